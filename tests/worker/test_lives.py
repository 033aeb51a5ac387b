"""Attempts and the time that a row may fail for count across lives of the process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from arthur_relay.buffers.spool import Spool
from arthur_relay.buffers.spool_directory import SpoolDirectory
from arthur_relay.dead_letters import DeadLetters
from arthur_relay.row import Attempt, Batch, Failure, Outcome, Verdict
from tests.unit.test_dead_letters import Broken
from tests.worker.harness import Harness, ScriptedDestination, harness, run, unavailable

START = datetime(2026, 11, 27, tzinfo=UTC)


def on_disk(
    path: Path, destination: ScriptedDestination, now: datetime, **settings: float
) -> Harness:
    """Return a worker of a process that starts now, with a spool."""
    h = harness(destination, **settings)
    h.worker.utc_now = h.worker.dispatcher.utc_now = lambda: now
    spool = Spool(
        SpoolDirectory(path),
        max_bytes=1 << 26,
        power_safe=False,
        monotonic=anyio.current_time,
        utc_now=lambda: now,
    )
    worker = h.worker
    parts: list[Any] = [h, worker, worker.dispatcher, worker.settlement, worker.room]
    for part in (*parts, worker.schemas, worker.acceptance, worker._compactor):
        part.buffer = spool
    return h


async def live(h: Harness, seconds: float, then: Callable[[Harness], object] = bool) -> None:
    """Run the worker for so long, as a process that is killed after it."""
    async with h.running():
        then(h)
        await anyio.sleep(seconds)
    h.buffer.close()


def test_the_time_that_a_row_may_fail_for_goes_on_after_a_restart(tmp_path: Path) -> None:
    destination = ScriptedDestination(lambda batch, _n: unavailable(batch))

    async def test() -> None:
        first = on_disk(tmp_path, destination, START, retry_max_elapsed_seconds=100)
        await live(first, 60, lambda h: h.capture("a"))
        first.check(captured=1, pending=1)
        attempts = len(destination.requests)
        # Half of its time has passed; what it takes to start again counts as well.
        later = START + timedelta(seconds=70)
        second = on_disk(tmp_path, destination, later, retry_max_elapsed_seconds=100)
        await live(second, 60)
        second.check(captured=1, pending=0, dropped={"retry_time_exceeded": 1})
        ((_, letter),) = second.letters.letters()
        assert letter.attempts == len(destination.requests)
        assert attempts < letter.attempts

    run(test)


def test_after_a_long_stop_a_row_is_tried_once_more(tmp_path: Path) -> None:
    destination = ScriptedDestination(lambda batch, _n: unavailable(batch))

    async def test() -> None:
        await live(on_disk(tmp_path, destination, START), 30, lambda h: h.capture("a"))
        before = len(destination.requests)
        destination.script = ScriptedDestination().script
        later = on_disk(tmp_path, destination, START + timedelta(days=30))
        await live(later, 30)
        assert len(destination.requests) == before + 1
        later.check(delivered=1, pending=0)

    run(test)


def test_a_bad_row_is_found_sooner_by_the_next_process(tmp_path: Path) -> None:
    """What failed as a whole batch is sent in smaller ones, whoever sends it."""

    def script(batch: Batch, _number: int) -> Attempt:
        if any(row.id == "m7" for row in batch.rows):
            outcome = Outcome(Verdict.RETRY, "http 500", 500)
            return Attempt((outcome,) * len(batch.rows), Failure.UNAVAILABLE, "http 500")
        return ScriptedDestination().script(batch, 0)  # type: ignore[return-value]

    destination = ScriptedDestination(script)

    async def test() -> None:
        first = on_disk(tmp_path, destination, START, batch_size=500)
        await live(first, 1.2, lambda h: h.capture_many(100))
        sizes = [len(ids) for _, ids in destination.requests]
        assert sizes[0] == 100
        second = on_disk(tmp_path, destination, START + timedelta(seconds=10), batch_size=500)
        await live(second, 60)
        assert all(len(ids) < 500 for _, ids in destination.requests[len(sizes) :])
        assert len(destination.stored) == 99

    run(test)


def test_a_row_whose_dead_letter_is_not_safe_is_there_in_the_next_life(tmp_path: Path) -> None:
    def script(batch: Batch, _number: int) -> Attempt:
        outcome = Outcome(Verdict.REJECTED, "row 422", 422)
        return Attempt((outcome,) * len(batch.rows))

    async def test() -> None:
        first = on_disk(tmp_path, ScriptedDestination(script), START)
        keeper = Broken()
        first.worker.dead_letters = DeadLetters([keeper])
        await live(first, 5, lambda h: h.capture("a"))
        first.check(captured=1, rejected=1, pending=0)
        assert keeper.is_broken
        second = on_disk(tmp_path, ScriptedDestination(), START + timedelta(seconds=10))
        await live(second, 5)
        second.check(delivered=1, pending=0)

    run(test)
