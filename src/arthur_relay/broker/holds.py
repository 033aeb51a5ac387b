"""What the workers of a fleet tell each other: that nothing should be sent for a while."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError, BrokerFullError
from arthur_relay.broker.pulse import Pulse
from arthur_relay.broker.shared import Hold
from arthur_relay.row import Failure

if TYPE_CHECKING:
    from arthur_relay.broker.shared import Shared
    from arthur_relay.row import Attempt, Batch
    from arthur_relay.worker.worker import Worker

HOLD_SECONDS: Final = 2.0
"""How much longer than us other workers wait where the key is refused, so that one of them asks."""

LOOK_SECONDS: Final = 10.0
"""How often to ask for a hold that was not heard of."""

NEWS_SECONDS: Final = 0.5
"""The shortest change of a hold that the others hear of."""


@dataclass(slots=True, eq=False)
class Holds:
    """Hears and says for how long no worker should send. Worker's loop only; outlives a run.

    Attributes:
        name: Tells this worker from others.
    """

    name: str
    _throttled: dict[str, float] = field(default_factory=dict, init=False)
    _attempts: Pulse = field(default_factory=Pulse, init=False)
    _until: float = field(default=0.0, init=False)
    """Until when the others wait, on the loop's clock: what was said, or heard."""

    def enter(self, worker: Worker) -> None:
        """Get ready for a loop."""
        self._attempts.renew()
        if self not in worker.sender.observers:
            worker.sender.observers.append(self)

    def on_attempt(self, batch: Batch, attempt: Attempt, seconds: float) -> None:  # noqa: ARG002 - the protocol's
        """Look whether the others have to wait. What an attempt means is known right after this."""
        if attempt.failure is Failure.THROTTLED and attempt.retry_after_seconds:
            self._throttled[batch.model_id] = attempt.retry_after_seconds
        self._attempts.beat()

    async def run(self, worker: Worker, shared: Shared) -> None:
        """Hear and say it, until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._hear, worker, shared)
            group.start_soon(self._say, worker, shared)

    async def _hear(self, worker: Worker, shared: Shared) -> None:
        """Wait when another worker was asked to."""
        heard = partial(self._wait_as_told, worker)
        while True:
            try:
                await shared.on_hold(heard)
            except BrokerAwayError:
                await anyio.sleep(PAUSE_SECONDS)
            else:
                break
        while True:  # what was said while the connection was lost
            await anyio.sleep(LOOK_SECONDS)
            with suppress(BrokerAwayError):
                if (hold := await shared.current_hold()) is not None:
                    heard(hold)

    def _wait_as_told(self, worker: Worker, hold: Hold) -> None:
        if hold.by == self.name:
            return
        until = anyio.current_time() + hold.seconds
        flow = worker.sender.flow
        if hold.model_id:
            flow.model_health.throttling.ask(hold.model_id, until)
        else:
            self._until = max(self._until, until)
            flow.breaker.hold(until)
        worker.wake()

    async def _say(self, worker: Worker, shared: Shared) -> None:
        """Have the others wait when Arthur asked for it, or refuses the key."""
        while True:
            attempted = self._attempts.next
            for hold in self._new_holds(worker, anyio.current_time()):
                with suppress(BrokerAwayError, BrokerFullError):  # the others find out
                    await shared.hold(hold)
            await attempted.wait()

    def _new_holds(self, worker: Worker, now: float) -> list[Hold]:
        throttled, self._throttled = self._throttled, {}
        holds = [
            Hold(seconds=seconds, reason="Retry-After", by=self.name, model_id=model_id)
            for model_id, seconds in throttled.items()
        ]
        if (until := _held_until(worker, now)) > max(now, self._until) + NEWS_SECONDS:
            self._until = until
            reason = worker.sender.last_failure
            holds.append(Hold(seconds=until - now, reason=reason, by=self.name))
        return holds


def _held_until(worker: Worker, now: float) -> float:
    """Return until when no worker should send anything, as far as we know."""
    sender = worker.sender
    until = now + sender.breaker.held(now)
    if sender.is_down and sender.authorization.is_unknown:
        wait = sender.breaker.wait(now)
        if wait != float("inf"):  # then a probe is on its way
            until = max(until, now + wait + HOLD_SECONDS)
    return until
