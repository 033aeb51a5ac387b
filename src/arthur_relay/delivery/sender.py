"""Sends batches: attempts, retries and smaller parts, until each row is settled or waits again.

A batch whose request fails while others pass is isolated: it is sent again in a lane of its own,
with few requests at once, and takes no slot from healthy batches. There it is divided until the
bad rows are alone. A model of which no row passes is held: its rows wait in the buffer, and some
of them are sent now and then as a probe. `model_health` decides what a failure is blamed on.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from arthur_relay.accounting import Ledger
from arthur_relay.buffers import LeaseBuffer
from arthur_relay.delivery.authorization import Authorization
from arthur_relay.delivery.batch_sizes import BatchSizes
from arthur_relay.delivery.bisect import STATUSES, Bisector
from arthur_relay.delivery.circuit_breaker import Breaker
from arthur_relay.delivery.concurrency import ConcurrencyLimit
from arthur_relay.delivery.flow_control import FlowControl, RequestResult
from arthur_relay.delivery.in_flight import (
    Delivery,
    InFlight,
    Lane,
)
from arthur_relay.delivery.model_health import FAULT_OF_ROWS, Blame
from arthur_relay.delivery.possibly_delivered import PossiblyDelivered
from arthur_relay.delivery.probes import Probes
from arthur_relay.delivery.retry import URGENT_SECONDS, FullJitter, StopAfterElapsed, retrying
from arthur_relay.delivery.row_outcomes import RowOutcomes
from arthur_relay.delivery.waiting_models import WaitingModels
from arthur_relay.destinations import Destination
from arthur_relay.errors import safe_traceback
from arthur_relay.row import ABOUT_US, Attempt, Batch, Failure, Outcome, Row, Verdict
from arthur_relay.sentences import no_answer_within, unreachable
from arthur_relay.settings import RelaySettings
from arthur_relay.system.randomness import Randomness
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.delivery")

MAX_MALFORMED_ANSWERS = 3
"""After so many answers that can't be understood a batch is divided, and a single row is rejected.

Each of these attempts may have stored the rows again, so a part inherits the count of the whole:
a part of several rows has one more attempt, a single row has two.
"""

BACKING_OFF_PER_SLOT = 3
"""Batches that may back off for each request slot: a batch that backs off holds no slot."""

SPARE_BATCHES = 1
"""Batches that are kept ready for the next free slot."""

ISOLATED_BATCHES = 2
ALL_ISOLATED_BATCHES = 20
"""The most isolated rows of one model, and of all models, in full batches; more rows wait."""

MAX_ALONE = 2000
"""The most rows of one model that are sent again one by one; more of its rows wait."""

MANY_ALONE = 500
ENOUGH_ATTEMPTS = 8
"""Where 500 rows of a model are sent one by one, a row that failed 8 times is rejected."""

_AGAIN = Outcome(Verdict.RETRY)


class WakesLoop(Protocol):
    """Wakes the worker's loop from within; see `worker.wake_up`. Loop's thread only."""

    def wake(self) -> None:
        """Make the loop check what there is to do."""
        ...


class Observes(Protocol):
    """Is shown each attempt."""

    def on_attempt(self, batch: Batch, attempt: Attempt, seconds: float) -> None:
        """Take note of an attempt and its duration. Worker's thread; must not raise."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class Sender:
    """Delivers batches until each row is settled. Belongs to the worker's loop.

    Attributes:
        destination: Makes one attempt.
        buffer: Takes back the rows that have to wait.
        outcomes: Settles rows, and records what happened to the others.
        ledger: Counts requests.
        settings: Time limits and counts.
        random: The randomness of jitter.
        wake_up: Woken when there may be capacity again.
        flow: Decides when a request may be sent.
        sending: How many requests are in flight. Any thread may read it.
        observers: Are shown each attempt.
    """

    destination: Destination
    buffer: LeaseBuffer
    outcomes: RowOutcomes
    ledger: Ledger
    settings: RelaySettings
    random: Randomness
    wake_up: WakesLoop
    flow: FlowControl
    sending: int = 0
    observers: list[Observes] = field(default_factory=list)
    _in_flight: InFlight = field(init=False)
    _paused: list["Future[None]"] = field(default_factory=list)
    _bisector: Bisector = field(default_factory=Bisector)
    _batch_sizes: BatchSizes = field(init=False)
    _probes: Probes = field(init=False)

    def __post_init__(self) -> None:
        self._batch_sizes = BatchSizes(self.settings.batch_size)
        self._in_flight = self.flow.in_flight
        self._probes = Probes(
            flow=self.flow,
            buffer=self.buffer,
            batch_sizes=self._batch_sizes,
            settings=self.settings,
        )

    def enter(self) -> None:
        """Get ready for a loop, also after an earlier one died."""
        self._in_flight.clear()
        self.sending = 0
        self._end_pauses()
        self.outcomes.enter()
        self.flow.enter()

    @property
    def breaker(self) -> Breaker:
        """Whether Arthur as a whole is down. Any thread may read it."""
        return self.flow.breaker

    @property
    def limit(self) -> ConcurrencyLimit:
        """How many requests may be in flight at once. Any thread may read it."""
        return self.flow.limit

    @property
    def authorization(self) -> Authorization:
        """Whether Arthur accepts our credentials. Any thread may read it."""
        return self.flow.authorization

    @property
    def last_failure(self) -> str:
        """Why the last request failed, or "". Any thread may read it."""
        return self.flow.last_failure

    @property
    def held_count(self) -> int:
        """How many models are held: no row of theirs passes. Any thread may read it."""
        return self.flow.model_health.count

    def is_held(self, model_id: str) -> bool:
        """Return whether a model is held while the rows of others may pass. Loop's thread."""
        return self.flow.model_health.is_held(model_id) and not self.is_down

    @property
    def held_models(self) -> str:
        """Why models are held, as part of a sentence, or "". Any thread may read it."""
        count = self.held_count
        if not count:
            return ""
        which = "one model" if count == 1 else f"{count} models"
        return f"nothing of {which} can be delivered ({self.flow.model_failure.rstrip('.')})"

    @property
    def has_answered(self) -> bool:
        """Whether the destination has answered anything so far. Any thread may read it."""
        return self.flow.has_answered

    @property
    def in_progress(self) -> int:
        """Batches that were started and are not settled. Any thread may read it."""
        return len(self._in_flight)

    @property
    def is_down(self) -> bool:
        """Whether the destination is known to be down."""
        return self.flow.is_down

    @property
    def is_healthy(self) -> bool:
        """Whether the last request did not fail."""
        return self.breaker.failures_in_a_row == 0

    @property
    def has_capacity(self) -> bool:
        """Whether one more batch may be started; few may while the destination fails.

        A full buffer can't drop the rows of a batch that was started to make room for newer ones.
        """
        slots, in_flight = self.limit.requests, self._in_flight
        if self.flow.is_paused:
            return False
        if self.is_down:
            return self.flow.takes_fresh()
        if in_flight.ordinary >= slots * (1 + BACKING_OFF_PER_SLOT):
            return False
        if self.flow.is_clogged:
            return in_flight.ordinary - in_flight.unproven < slots
        if not self.is_healthy:
            return in_flight.ordinary - in_flight.backing_off_alone < slots
        return in_flight.ordinary - in_flight.backing_off < slots + SPARE_BATCHES

    def waiting_models(self) -> WaitingModels:
        """Return the models whose rows have to stay in the buffer for now."""
        parts, alone = self._in_flight.isolated()
        rows = self.settings.batch_size
        most = 1 if parts.total() >= ALL_ISOLATED_BATCHES * rows else ISOLATED_BATCHES * rows
        busy = {model for model, count in parts.items() if count >= most}
        busy |= {model for model, count in alone.items() if count >= MAX_ALONE}
        return WaitingModels(busy, *self.flow.waiting_models())

    def start(self, group: TaskGroup, rows: tuple[Row, ...]) -> None:
        """Start a batch, or release its rows if their model has to wait. Returns at once."""
        delivery = Delivery(rows, possibly_delivered=PossiblyDelivered.of(rows))
        delivery.state.is_unproven = not self.flow.model_health.is_healthy(delivery.model_id)
        if self.flow.holds(delivery.state):
            self._give_back(delivery)
            return
        most = self._batch_sizes.of(delivery.model_id)
        if len(rows) > most:
            if not self.is_down:
                self._divide(group, delivery, most)
                return
            self.buffer.release(rows[most:])
            delivery.rows = rows[:most]
        self._start(group, delivery)
        self.flow.announce()

    def start_probes(self, group: TaskGroup) -> None:
        """Send a probe of each held model that may have one now; returns at once."""
        for probe in self._probes.take(anyio.current_time()):
            self._start(group, probe)

    def _may_be_bad(self, delivery: Delivery) -> bool:
        """Return whether a failed delivery may be one bad row, for which no other has to wait."""
        return len(delivery.rows) == 1 and self.flow.model_health.has_passed(delivery.model_id)

    def begin_pause(self, done: "Future[None]") -> None:
        """Send no more requests: rows that wait stay in the buffer.

        Args:
            done: Gets None when each request that was sent has ended.
        """
        self.flow.is_paused = True
        self._paused.append(done)
        self._end_pauses()

    def _end_pauses(self) -> None:
        while self._paused and not self.sending:
            done = self._paused.pop()
            if done.set_running_or_notify_cancel():
                done.set_result(None)

    def hurry(self) -> None:
        """End all back-offs once, for a flush. `Retry-After` is still obeyed."""
        self._in_flight.hurry()
        self.flow.hurry()

    def _start(self, group: TaskGroup, delivery: Delivery) -> None:
        self._in_flight.begin(delivery.state)
        group.start_soon(self._deliver, group, delivery)

    async def _deliver(self, group: TaskGroup, delivery: Delivery) -> None:
        try:
            if delivery.malformed:  # a part of rows that may just have been stored
                await self._back_off(
                    delivery, self.settings.retry_initial_seconds * self.random.random()
                )
            policy = retrying(
                wait=FullJitter(
                    initial_seconds=self.settings.retry_initial_seconds,
                    max_seconds=self.settings.retry_max_seconds,
                    random=self.random,
                ),
                stop=StopAfterElapsed(
                    deadline=self.outcomes.deadline_of(delivery), clock=anyio.current_time
                ),
                sleep=partial(self._back_off, delivery),
            )
            await policy(partial(self._attempt, group, delivery))
            if delivery.state.status in ABOUT_US:
                self._give_back(delivery)  # a failure that is about us costs no row
            else:
                self.outcomes.give_up(delivery, delivery.rows)
        except Exception as error:  # noqa: BLE001 - it must cost no other row
            self._isolate(group, delivery, error)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException:  # the worker dies, perhaps of these rows: then it would again
            self.outcomes.note_death(delivery.rows)
            raise
        finally:
            self._in_flight.end(delivery.state)
            delivery.forget_rows()
            if delivery.state.lane is Lane.PROBE:
                self.flow.model_health.end_probe(delivery.model_id, anyio.current_time())
            self.wake_up.wake()

    async def _attempt(self, group: TaskGroup, delivery: Delivery) -> bool:
        """Make one attempt. Returns True when rows are left for another one."""
        async with self.flow.slot(delivery.state):
            if self.flow.holds(delivery.state):
                self._give_back(delivery)
                return False
            if self.is_down:
                self.wake_up.wake()  # another batch may be sent now, in case this one hangs
            result = await self._ask(delivery)
            blame = self.flow.judge(delivery.state, result)  # before another takes the slot
        attempt = result.attempt
        delivery.possibly_delivered = delivery.possibly_delivered.after(attempt, delivery.rows)
        delivery.reason = attempt.reason
        delivery.code = next((each.reason for each in attempt.outcomes if each.reason), "")
        delivery.refusal = attempt.reason if attempt.failure is Failure.REFUSED else ""
        if attempt.failure is Failure.TOO_LARGE:
            self._make_smaller(group, delivery, attempt.outcomes[0])
            return False
        is_for_rows = attempt.failure is Failure.REFUSED and attempt.outcomes[0].status in STATUSES
        if is_for_rows and self._searches(group, delivery):
            return False
        if attempt.failure is Failure.MALFORMED:
            delivery.malformed += 1
            self.ledger.malformed_answers += 1
            if delivery.malformed >= MAX_MALFORMED_ANSWERS:
                if self._searches(group, delivery):
                    return False
                attempt = _all(delivery.rows, Outcome(Verdict.REJECTED, "malformed answer"))
        self._sort_out(delivery, attempt)
        if attempt.failure is Failure.UNAVAILABLE and delivery.state.status == FAULT_OF_ROWS:
            self._note_fault(delivery)
        if attempt.failure in (Failure.UNAUTHORISED, Failure.FORBIDDEN):
            self.outcomes.excuse(delivery)
            self._give_back(delivery)  # its model is held by now
            return False
        return self._goes_on(group, delivery, blame)

    def _note_fault(self, delivery: Delivery) -> None:
        """Make the model's batches smaller where the rows may have been at fault."""
        model_id = delivery.model_id
        if not self.is_down and self.flow.model_health.has_passed(model_id):
            self._batch_sizes.failed(model_id, len(delivery.rows))

    def _goes_on(self, group: TaskGroup, delivery: Delivery, blame: Blame | None) -> bool:
        """Return whether the rows that are left are to be sent again as they are."""
        if not delivery.rows:
            return False
        self.outcomes.note_attempt(delivery)
        if delivery.state.status in ABOUT_US:
            self.outcomes.excuse(delivery)
        self.outcomes.give_up_the_old(delivery)
        if not delivery.rows:
            return False
        is_held = self.flow.model_health.is_held(delivery.model_id)
        if is_held or self.flow.gives_way(delivery.state):
            self._give_back(delivery)
            return False
        rows = len(delivery.rows)
        most = self._batch_sizes.of(delivery.model_id)
        is_sure = blame is Blame.ROWS and self.flow.model_health.may_divide(delivery.state)
        if rows > 1 and (is_sure or rows > most):
            # With halves, each part above the size that passes would fail once more: so many
            # failures in a row that Arthur would seem to be down.
            self._divide(group, delivery, min(most, _part_of(rows, 2)))
            return False
        return not (is_sure and self._ends_early(delivery))

    async def _ask(self, delivery: Delivery) -> RequestResult:
        self.ledger.requests += 1
        self.ledger.retries += delivery.state.attempts > 0
        delivery.state.attempts += 1
        if delivery.state.seen < 0:
            delivery.state.seen = self.flow.model_health.passes
        batch = Batch(delivery.model_id, delivery.rows)
        began_in, began_at = self.limit.begin(), anyio.current_time()
        self.sending += 1
        try:
            attempt = await self._send(delivery, batch)
        finally:
            self.sending -= 1
            self._end_pauses()
        seconds = anyio.current_time() - began_at
        for observer in self.observers:
            observer.on_attempt(batch, attempt, seconds)
        attempt = delivery.possibly_delivered.judge(attempt, delivery.rows)
        return RequestResult(attempt, began_in, seconds, batch.size)

    async def _send(self, delivery: Delivery, batch: Batch) -> Attempt:
        limit = self.settings.request_timeout_seconds
        try:
            with anyio.move_on_after(limit):
                attempt = await delivery.possibly_delivered.deliver(self.destination, batch)
                if len(attempt.outcomes) == len(batch.rows):
                    return attempt
                other = _all(batch.rows, _AGAIN, Failure.MALFORMED, "answer of another length")
                return replace(other, may_have_arrived=True)
        except anyio.get_cancelled_exc_class():
            self.flow.abandon()
            raise
        except Exception as error:  # noqa: BLE001 - its bug must cost the batch, not the worker
            logger.error(  # noqa: TRY400 - the error's text might quote a prompt
                "arthur-relay: a destination raised, which none may: %s", safe_traceback(error)
            )
            reason = f"internal error ({type(error).__name__})"
            failed = _all(batch.rows, _AGAIN, Failure.MALFORMED, reason)
        else:
            reason = unreachable(no_answer_within(limit))
            failed = _all(batch.rows, _AGAIN, Failure.UNAVAILABLE, reason)
        return replace(failed, may_have_arrived=True)

    def _sort_out(self, delivery: Delivery, attempt: Attempt) -> None:
        """Settle the rows that are delivered or rejected; the others stay in the delivery."""
        rows = len(delivery.rows)
        delivered = self.outcomes.apply(delivery, attempt, urgent=self.flow.urgent)
        if delivery.rows and len(delivery.rows) < rows:
            self._in_flight.isolate(delivery.state)
        if delivered:
            self._bisector.taken(delivery.bisection, delivery.model_id, rows=delivered)
            self._batch_sizes.passed(delivery.model_id, delivered)

    def _searches(self, group: TaskGroup, delivery: Delivery) -> bool:
        """Divide refused rows to find the bad ones. Returns False where there is only one row."""
        rows = len(delivery.rows)
        found = self._bisector.divide(delivery.bisection, delivery.model_id, rows=rows)
        if found is None:
            return False
        delivery.bisection, parts = found
        self.outcomes.note_attempt(delivery)
        self._divide(group, delivery, _part_of(rows, parts))
        return True

    def _divide(self, group: TaskGroup, delivery: Delivery, size: int) -> None:
        """Send the rows in isolated parts of at most `size` rows."""
        rows, delivery.rows = delivery.rows, ()
        for at in range(0, len(rows), size):
            part = delivery.part(rows[at : at + size])
            part.malformed = max(0, delivery.malformed - (1 if len(part.rows) > 1 else 2))
            self._start(group, part)

    def _make_smaller(self, group: TaskGroup, delivery: Delivery, outcome: Outcome) -> None:
        """Send a batch that is too large in two parts, or a single row with its texts cut."""
        self.outcomes.note_attempt(delivery)
        if (rows := len(delivery.rows)) > 1:
            self._divide(group, delivery, _part_of(rows, 2))
            return
        if (smaller := self.outcomes.make_smaller(delivery, outcome)) is not None:
            self._start(group, delivery.part((smaller,)))

    def _isolate(self, group: TaskGroup, delivery: Delivery, error: Exception) -> None:
        """Reject a row whose handling raised; several rows are divided to find it."""
        logger.error("arthur-relay: rows could not be handled: %s", safe_traceback(error))
        self.flow.abandon()
        if (rows := len(delivery.rows)) > 1:
            self._divide(group, delivery, _part_of(rows, 2))
        elif delivery.rows:
            problem = f"internal error ({type(error).__name__})"
            self.outcomes.reject(delivery, Outcome(Verdict.REJECTED, problem))

    def _ends_early(self, delivery: Delivery) -> bool:
        """Reject a bad row that was sent often enough, if too many others are sent one by one."""
        (row,) = delivery.rows
        if row.history.attempts < ENOUGH_ATTEMPTS:
            return False
        _, alone = self._in_flight.isolated()
        if alone[delivery.model_id] < MANY_ALONE:
            return False
        code = delivery.code or delivery.reason
        outcome = Outcome(Verdict.REJECTED, code, delivery.state.status)
        self.outcomes.reject(delivery, outcome)
        return True

    def _give_back(self, delivery: Delivery) -> None:
        """Release the rows: they wait in the buffer, and hold no slot."""
        rows, delivery.rows = delivery.rows, ()
        self.buffer.release(rows)

    async def _back_off(self, delivery: Delivery, seconds: float) -> None:
        in_flight = self._in_flight
        is_ordinary = delivery.state.lane is Lane.ORDINARY
        is_alone = is_ordinary and self._may_be_bad(delivery)
        in_flight.backing_off += is_ordinary
        in_flight.backing_off_alone += is_alone
        self.wake_up.wake()
        delivery.state.hurry = anyio.Event()
        urgent = self.flow.urgent
        try:
            with anyio.move_on_after(min(seconds, URGENT_SECONDS) if urgent else seconds):
                await delivery.state.hurry.wait()
            if not self.flow.holds(delivery.state):
                # `Retry-After` is obeyed also when a flush ends the back-off.
                await anyio.sleep_until(delivery.state.not_before)
        finally:
            in_flight.backing_off -= is_ordinary
            in_flight.backing_off_alone -= is_alone


def _part_of(rows: int, parts: int) -> int:
    """Return how many rows each part has, rounded up."""
    return -(-rows // parts)


def _all(
    rows: tuple[Row, ...], outcome: Outcome, failure: Failure | None = None, reason: str = ""
) -> Attempt:
    return Attempt((outcome,) * len(rows), failure=failure, reason=reason)
