"""The worker on a virtual clock: a scripted destination, and the pipeline around it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import anyio
import trio
from trio.testing import MockClock

from arthur_relay.accounting import Ledger
from arthur_relay.buffers.memory import MemoryBuffer
from arthur_relay.dead_letters import DeadLetters
from arthur_relay.dead_letters.memory import MemoryStore
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.errors import UnreachableError
from arthur_relay.inference import CapturedInference, Inference
from arthur_relay.memory_budget import MemoryBudget
from arthur_relay.row import DELIVERED, Attempt, Batch, Failure, Outcome, Verdict
from arthur_relay.settings import RelaySettings
from arthur_relay.system.clocks import Clock, SystemClock
from arthur_relay.testing import LLM_ATTRIBUTES
from arthur_relay.worker.composition import Storage, build_worker
from arthur_relay.worker.flush import FlushRequest
from arthur_relay.worker.gil import GilYielder, ThisProcess
from arthur_relay.worker.host import StandingHost
from tests.randomness import Always

if TYPE_CHECKING:
    from types import TracebackType

    from arthur_relay.buffers.spool.buffer import Spool

RETRY = Outcome(Verdict.RETRY)
AWAY = Outcome(Verdict.RETRY, "http 503", 503)

Script = Callable[[Batch, int], Attempt | Awaitable[Attempt]]


def delivered(batch: Batch) -> Attempt:
    return Attempt((DELIVERED,) * len(batch.rows))


def unavailable(batch: Batch, retry_after: float | None = None) -> Attempt:
    reason = "Arthur answered 503"
    return Attempt((AWAY,) * len(batch.rows), Failure.UNAVAILABLE, reason, retry_after)


@dataclass
class ScriptedDestination:
    """Answers as it is told, and remembers when it was asked for what."""

    name: ClassVar[str] = "scripted"
    script: Script = lambda batch, _number: delivered(batch)
    schema_errors: list[Exception] = field(default_factory=list)
    schema_requests: list[float] = field(default_factory=list)
    requests: list[tuple[float, list[str]]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    entered: int = 0

    async def __aenter__(self) -> Self:
        self.entered += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    async def fetch_schema(self, model_id: str) -> ModelSchema:
        self.schema_requests.append(anyio.current_time())
        if self.schema_errors:
            raise self.schema_errors.pop(0)
        return ModelSchema(model_id, LLM_ATTRIBUTES)

    async def deliver(self, batch: Batch) -> Attempt:
        self.requests.append((anyio.current_time(), [row.id for row in batch.rows]))
        answer = self.script(batch, len(self.requests))
        attempt = answer if isinstance(answer, Attempt) else await answer
        for row, outcome in zip(batch.rows, attempt.outcomes, strict=True):
            if outcome.verdict is Verdict.DELIVERED:
                self.stored.append(row.id)
        return attempt


Offload = Callable[[Callable[[], None]], Awaitable[None]]


async def _at_once(function: Callable[[], None]) -> None:
    function()


class NoPauses(ThisProcess):
    """Time in which nobody else wants to compute."""

    def sleep(self, seconds: float) -> None:
        """Do nothing."""


class Host(StandingHost):
    """Has open runs, or none, and lets the worker end when it is idle for so long."""

    def __init__(self) -> None:
        self.sweeps = 0
        self.is_open = False
        self.may_end = True
        self.asked: list[float] = []

    def may_idle(self) -> bool:
        self.asked.append(anyio.current_time())
        return self.may_end

    def sweep(self) -> bool:
        self.sweeps += 1
        return self.is_open


class LoopClock(SystemClock):
    """Durations of the loop's own, virtual clock; the real wall clock."""

    def monotonic(self) -> float:
        return anyio.current_time()


@dataclass
class Harness:
    """A worker with its parts, to be run inside of `running`; also what it needs of a thread."""

    destination: ScriptedDestination
    settings: RelaySettings
    ledger: Ledger = field(default_factory=Ledger)
    host: Host = field(default_factory=Host)
    wakes: int = 0
    run_elsewhere: Offload = _at_once
    spool: Spool | None = None
    clock: Clock = field(default_factory=LoopClock)

    def __post_init__(self) -> None:
        self.buffer = MemoryBuffer(
            max_rows=self.settings.queue_size, max_bytes=self.settings.buffer_bytes
        )
        self.letters = MemoryStore(max_bytes=1 << 20)
        self.dead_letters = DeadLetters([self.letters], on_dead_letter=self.settings.on_dead_letter)
        self.worker = build_worker(
            settings=self.settings,
            destination=self.destination,
            host=self.host,
            thread=self,
            ledger=self.ledger,
            storage=Storage((self.spool or self.buffer).as_buffer(), self.dead_letters),
            budget=MemoryBudget.of(self.settings),
            random=Always(1.0),
            gil=GilYielder(NoPauses()),
            clock=self.clock,
        )
        self.queue = self.worker.queue

    def capture(self, *ids: str, model: str = "m", text: str = "text") -> None:
        for inference_id in ids:
            inference = Inference(input_text=text, output_text="answer")
            self.queue.put(
                CapturedInference(
                    inference,
                    inference_id=inference_id,
                    model_id=model,
                    captured_at=0.0,
                )
            )

    def capture_many(self, count: int, *, model: str = "m", text: str = "text") -> list[str]:
        ids = [f"{model}{number}" for number in range(count)]
        self.capture(*ids, model=model, text=text)
        return ids

    async def flush(self, seconds: float = 1e6) -> bool:
        """Flush; returns whether it was done in time."""
        request = FlushRequest()
        finished = anyio.Event()
        request.done.add_done_callback(lambda _future: finished.set())
        self.worker.control(request)
        self.worker.wake()
        with anyio.move_on_after(seconds):
            await finished.wait()
        return finished.is_set()

    def check(self, **expected: Any) -> None:
        """Assert totals, and the invariant with what the destination itself has seen."""
        totals = self.ledger.totals()
        assert totals.captured == (
            totals.delivered + totals.rejected + sum(totals.dropped.values()) + totals.pending
        )
        assert totals.delivered == len(self.destination.stored)
        # The ledger's pending is what is left of a sum, so a row that got lost would hide in it.
        held = sum(capture.rows for capture in self.queue._items)
        assert (
            totals.pending
            == held + self.worker.admission.awaiting.rows + self.worker.buffer.intake.rows
        )
        found = {name: getattr(totals, name) for name in expected}
        assert found == expected

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Harness]:
        async with anyio.create_task_group() as group:
            ready = anyio.Event()
            group.start_soon(self.worker.run, ready.set)
            await ready.wait()
            yield self
            group.cancel_scope.cancel()

    is_this_thread: ClassVar[bool] = False

    def wake(self) -> None:
        self.wakes += 1
        self.worker.wake()

    async def offload(self, function: Callable[[], None]) -> None:
        await self.run_elsewhere(function)


def settings_of(**settings: Any) -> RelaySettings:
    """Return settings that make times easy to tell."""
    return RelaySettings(**{"flush_interval_seconds": 1.0, "batch_size": 10, **settings})


def harness(destination: ScriptedDestination | None = None, **settings: Any) -> Harness:
    """Return a harness with `settings_of` some settings."""
    return Harness(destination or ScriptedDestination(), settings_of(**settings))


async def seconds_until(h: Harness, stored: int, *, limit: float) -> float:
    """Wait until so many rows are stored, `limit` seconds at most; returns how many it took."""
    began_at = anyio.current_time()
    with anyio.fail_after(limit):
        while len(h.destination.stored) < stored:
            await anyio.sleep(0.1)
    return anyio.current_time() - began_at


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on a clock that jumps whenever everything waits."""
    # Not by anyio.run: until anyio 4.14 it does not pass the clock on.
    trio.run(test, clock=MockClock(autojump_threshold=0))


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make an async test function one that pytest calls and the virtual clock runs."""

    def wrapper() -> None:
        run(test)

    wrapper.__name__ = test.__name__
    wrapper.__doc__ = test.__doc__
    return wrapper


def unreachable(times: int) -> list[Exception]:
    """Return the errors of an Arthur that is away for so many questions."""
    return [UnreachableError("Arthur can't be reached at nowhere: refused") for _ in range(times)]


def rows_of(batch: Batch) -> Iterator[dict[str, Any]]:
    """Decode a batch's rows."""
    yield from json.loads(batch.body())
