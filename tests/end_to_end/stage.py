"""A relay, an Arthur and what goes wrong between them, for the table of faults."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio

from arthur_relay import Relay, RelaySettings
from arthur_relay.credentials import resolve_credentials
from arthur_relay.delivery import open_requests
from arthur_relay.destinations.engine.client import EngineDestination
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.runtime import thread
from arthur_relay.runtime.daemon_thread_executor import DaemonThreadExecutor
from arthur_relay.runtime.event_loop import AddressInfo, RelayEventLoop
from arthur_relay.sandbox import ArthurSandbox
from arthur_relay.testing import LLM_ATTRIBUTES
from tests.end_to_end.conftest import QUICK, capture, held, logins, posts
from tests.end_to_end.fronts import Wire
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    import pytest

    from arthur_relay.row import Attempt, Batch

IDS = ("a", "b", "c")
"""The inferences that travel in one request."""

StageT = TypeVar("StageT", bound="Stage")

LONG_SECONDS = 60.0
"""A deadline for what comes to its end well before, on a machine that has other things to do."""


SHORT_SECONDS = 0.5
"""The deadline of an exit that comes before the fault has passed."""

MARGIN_SECONDS = 10.0
"""What an exit may take beyond its deadline on a machine that has other things to do."""

SPEED = 500.0
"""How much faster the relay's clock runs where minutes have to pass."""

PATIENT = {
    "retry_initial_seconds": 0.5,
    "retry_max_seconds": 30.0,
    "breaker_max_seconds": 30.0,
    "request_timeout_seconds": 3600.0,
}
"""The default back-off, and no time-outs on a clock that runs that fast."""

IMPATIENT = {"request_timeout_seconds": 2.5, "breaker_failures": 2}
"""Less time for an answer, but enough on a machine that has other things to do."""


class Hasty(RelayEventLoop):
    """A relay's loop on a clock that runs faster, and with names of its own.

    Args:
        thread: See `RelayEventLoop`.
        speed: Seconds that pass on it in one second.
        lookup: See `RelayEventLoop`.
    """

    def __init__(
        self, thread: DaemonThreadExecutor, *, speed: float, lookup: Callable[..., AddressInfo]
    ) -> None:
        self._speed = speed
        super().__init__(thread, lookup)
        loop: Any = self
        select = loop._selector.select
        loop._selector.select = lambda timeout=None: select(timeout and timeout / speed)

    def time(self) -> float:
        """Return the seconds that have passed on it."""
        return super().time() * self._speed


class Watched:
    """A destination, and when it was asked for what.

    Attributes:
        times: When each attempt began, on the loop's clock.
        before: What to do before an attempt, by its number from 1.
    """

    def __init__(self, destination: ScopeDestination | EngineDestination) -> None:
        self._destination = destination
        self.name = destination.name
        self.times: list[float] = []
        self.before: dict[int, Callable[[], object]] = {}

    async def __aenter__(self) -> Self:
        await self._destination.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._destination.__aexit__(exc_type, exc_value, traceback)

    async def fetch_schema(self, model_id: str) -> Any:
        return await self._destination.fetch_schema(model_id)

    def begin(self) -> None:
        """Take note of an attempt that begins."""
        self.times.append(anyio.current_time())
        self.before.pop(len(self.times), lambda: None)()

    async def deliver(self, batch: Batch) -> Attempt:
        self.begin()
        return await self._destination.deliver(batch)


class Warnings(logging.Handler):
    """Counts the lines that people on call get to see."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@dataclass
class Stage:
    """Where a fault is played.

    Attributes:
        sandbox: Arthur.
        environment: Its variables.
        exits: Ends what was entered for it.
        host: The name in Arthur's address.
        port: The port in it.
        scheme: And its scheme.
        unknown_names: How often Arthur's name can't be found.
    """

    sandbox: ArthurSandbox
    environment: pytest.MonkeyPatch
    exits: ExitStack
    host: str = "127.0.0.1"
    port: int = 0
    scheme: str = "http"
    unknown_names: int = 0
    relay: Relay = field(init=False)
    watched: Watched = field(init=False)
    told: Warnings = field(default_factory=Warnings)
    _wire: Wire | None = None

    @property
    def faults(self) -> Any:
        """What Arthur can be told to do wrong."""
        return self.sandbox.faults

    @property
    def wire(self) -> Wire:
        """What lies between the relay and Arthur; where it is asked for at all."""
        assert self._wire is not None
        return self._wire

    def lay_wire(self) -> None:
        """Put a wire between the relay and Arthur."""
        self._wire = self.exits.enter_context(Wire(self.port))
        self.port = self._wire.port

    def lookup(self, host: str, *arguments: Any) -> AddressInfo:
        """Look a name up: this machine is known by any name, but not always."""
        if self.unknown_names:
            self.unknown_names -= 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return list(socket.getaddrinfo("127.0.0.1", *arguments))

    def make_relay(self, **settings: Any) -> None:
        """Make the relay, with Arthur at the address that is told by now."""
        chosen = RelaySettings(**{**QUICK, "flush_interval_seconds": 3600.0, **settings})
        credentials = resolve_credentials(
            url=f"{self.scheme}://{self.host}:{self.port}",
            login=self.sandbox.login,
            password=self.sandbox.password,
            allow_insecure=True,
        )
        self.watched = Watched(ScopeDestination.of(credentials, chosen))
        self.relay = Relay(self.watched, model_id=self.sandbox.model_id, settings=chosen)
        self.exits.callback(self.relay.close, 0.0)

    def capture(self) -> None:
        """Have three inferences captured."""
        capture(self.relay, *IDS)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids that Arthur knows them by."""
        return IDS

    def connect(self, *, asks: bool) -> None:
        """Make the model known: by asking Arthur, or where that is in vain, by telling."""
        if asks:
            self.relay.connect(self.sandbox.model_id)
        else:
            self.relay._host.register(ModelSchema(self.sandbox.model_id, LLM_ATTRIBUTES))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        wait_for(condition, LONG_SECONDS, look_seconds=0.002)

    def is_failing(self, attempts: int) -> bool:
        """Whether so many attempts have been made, and people on call were told of it."""
        return len(self.watched.times) >= attempts and len(self.told.lines) > 0

    @property
    def requests(self) -> int:
        """Requests with rows that Arthur saw."""
        return posts(self.sandbox)

    @property
    def logins(self) -> int:
        """Logins that Arthur saw."""
        return logins(self.sandbox)

    @property
    def stored(self) -> list[str]:
        """Ids of what Arthur has, each once."""
        return [row["partner_inference_id"] for row in self.sandbox.inferences]

    @property
    def letters(self) -> Counter[str]:
        """Why the dead letters could not be delivered."""
        return Counter(letter.reason for letter in self.relay.dead_letters())

    def check(self, *, unheard: int) -> None:
        """Assert the invariant on both sides: what the relay says and what Arthur got.

        Args:
            unheard: So many inferences Arthur has, and the relay does not know it.
        """
        stats = self.relay.stats()
        assert stats.captured == len(self.ids)
        assert stats.captured == (
            stats.delivered + stats.rejected + sum(stats.dropped.values()) + stats.pending
        )
        if self.relay._host.pipeline.is_open:
            # What is pending is what is left of a sum, so a row that got lost would hide in it.
            assert stats.pending == held(self.relay)
        stored = self.stored
        assert len(set(stored)) == len(stored) == stats.delivered + unheard
        assert set(stored) <= set(self.ids)
        assert self.letters.total() == stats.rejected + stats.dropped.get("retry_time_exceeded", 0)


@contextmanager
def stage(monkeypatch: pytest.MonkeyPatch, *, speed: float = 1.0) -> Iterator[Stage]:
    """Set up a stage, on a clock that may run faster."""
    with stage_of(Stage, monkeypatch, speed=speed) as place:
        yield place


@contextmanager
def stage_of(
    kind: type[StageT], monkeypatch: pytest.MonkeyPatch, *, speed: float = 1.0
) -> Iterator[StageT]:
    """Set up a stage of a kind, on a clock that may run faster."""
    with ArthurSandbox() as sandbox, ExitStack() as exits:
        exits.callback(sandbox.faults.reset)
        place = kind(sandbox, monkeypatch, exits, port=int(sandbox.url.rpartition(":")[2]))
        hasty = partial(Hasty, speed=speed, lookup=place.lookup)
        monkeypatch.setattr(thread, "RelayEventLoop", hasty)
        # A request must not seem to hang only because the clock runs that fast.
        monkeypatch.setattr(open_requests, "LEAST_SECONDS", speed * open_requests.LEAST_SECONDS)
        logger = logging.getLogger("arthur_relay")
        logger.addHandler(place.told)
        exits.callback(logger.removeHandler, place.told)
        yield place
