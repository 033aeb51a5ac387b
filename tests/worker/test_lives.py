"""Attempts and the time that a row may fail for count across lives of the process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from arthur_relay.buffers.spool.buffer import Spool
from arthur_relay.buffers.spool.directory import SpoolDirectory
from arthur_relay.dead_letters import DeadLetters
from arthur_relay.delivery.ground_truth import PATIENCE_SECONDS
from arthur_relay.delivery.in_flight import note_unknown
from arthur_relay.inference import CapturedGroundTruth
from arthur_relay.row import (
    NO_HISTORY,
    Attempt,
    Batch,
    Failure,
    History,
    Outcome,
    Row,
    RowKind,
    Verdict,
)
from arthur_relay.worker.flush import FlushRequest
from tests.buffers.spools import connection_of, crash, new_spool
from tests.dead_letters.test_dead_letters import Broken
from tests.worker.harness import (
    Harness,
    ScriptedDestination,
    delivered,
    run,
    settings_of,
    unavailable,
)

START = datetime(2026, 11, 27, tzinfo=UTC)


class Standing:
    """A wall clock that stands, beside the durations of the virtual one."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def monotonic(self) -> float:
        return anyio.current_time()

    def utc_now(self) -> datetime:
        return self.now


def on_disk(
    path: Path, destination: ScriptedDestination, now: datetime, **settings: float
) -> Harness:
    """Return a worker of a process that starts now, with a spool."""
    clock = Standing(now)
    spool = Spool(
        SpoolDirectory(path),
        max_bytes=1 << 26,
        power_safe=False,
        clock=clock,
    )
    return Harness(destination, settings_of(**settings), spool=spool, clock=clock)


async def live(h: Harness, seconds: float, then: Callable[[Harness], object] = bool) -> None:
    """Run the worker for so long, as a process that is killed after it."""
    async with h.running():
        then(h)
        await anyio.sleep(seconds)
    h.worker.buffer.durable.close()


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


@pytest.mark.parametrize(
    ("failure", "status"), [(Failure.UNAUTHORISED, 401), (Failure.FORBIDDEN, 403)]
)
def test_the_time_for_which_we_were_refused_does_not_count(
    failure: Failure, status: int, tmp_path: Path
) -> None:
    began = 0.0

    def script(batch: Batch, _number: int) -> Attempt:
        if not 20 < anyio.current_time() - began < 60:
            return unavailable(batch)
        refused = Outcome(Verdict.RETRY, f"http {status}", status)
        return Attempt((refused,) * len(batch.rows), failure, refused.reason)

    destination = ScriptedDestination(script)

    async def test() -> None:
        nonlocal began
        began = anyio.current_time()
        first = on_disk(tmp_path, destination, START, retry_max_elapsed_seconds=100)
        await live(first, 60, lambda h: h.capture("a"))
        later = START + timedelta(days=2)
        second = on_disk(tmp_path, destination, later, retry_max_elapsed_seconds=100)
        await live(second, 60)
        second.check(captured=1, pending=1, dropped={})

    run(test)


def test_a_bad_row_is_found_sooner_by_the_next_process(tmp_path: Path) -> None:
    """What failed as a whole batch is sent in smaller ones, whoever sends it."""

    def script(batch: Batch, _number: int) -> Attempt:
        if any(row.id == "m7" for row in batch.rows):
            outcome = Outcome(Verdict.RETRY, "http 500", 500)
            return Attempt((outcome,) * len(batch.rows), Failure.UNAVAILABLE, "http 500")
        return delivered(batch)

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


def unknown(batch: Batch, _number: int) -> Attempt:
    return Attempt((Outcome(Verdict.NOT_YET, "row 404", 404),) * len(batch.rows))


def truth(h: Harness, *ids: str) -> None:
    for inference_id in ids:
        h.queue.put(CapturedGroundTruth(inference_id, "m", {"thumbs_up": True}, 100, 1.5))


def test_the_patience_with_an_inference_that_does_not_come_goes_on_after_a_restart(
    tmp_path: Path,
) -> None:
    destination = ScriptedDestination(unknown)

    async def test() -> None:
        first = on_disk(tmp_path, destination, START)
        await live(first, PATIENCE_SECONDS / 2, lambda h: truth(h, "a"))
        first.check(captured=1, pending=1)
        later = START + timedelta(seconds=PATIENCE_SECONDS / 2)
        second = on_disk(tmp_path, destination, later)
        await live(second, PATIENCE_SECONDS / 2 + 120)
        second.check(captured=1, rejected=1, pending=0)
        ((_, letter),) = second.letters.letters()
        assert letter.reason == "row 404"
        assert letter.attempts == len(destination.requests)

    run(test)


def test_a_long_outage_does_not_count_as_patience(tmp_path: Path) -> None:
    """The inference's process could not deliver either."""
    destination = ScriptedDestination(lambda batch, _n: unavailable(batch))

    async def test() -> None:
        first = on_disk(tmp_path, destination, START)
        await live(first, 100, lambda h: truth(h, "a"))
        destination.script = unknown
        second = on_disk(tmp_path, destination, START + timedelta(seconds=2 * PATIENCE_SECONDS))
        await live(second, 100)
        second.check(captured=1, pending=1)
        destination.script = ScriptedDestination().script
        third = on_disk(tmp_path, destination, START + timedelta(seconds=2.5 * PATIENCE_SECONDS))
        await live(third, 10)
        third.check(delivered=1, pending=0)

    run(test)


def test_an_end_does_not_cut_the_patience_of_what_stays_in_the_spool(tmp_path: Path) -> None:
    destination = ScriptedDestination(unknown)

    async def test() -> None:
        first = on_disk(tmp_path, destination, START)
        async with first.running():
            truth(first, "a")
            await anyio.sleep(5)
            first.worker.sender.flow.urgent = True
            assert not await first.flush(30)
        first.worker.buffer.durable.close()
        first.check(captured=1, pending=1)

    run(test)


def test_after_a_restart_ground_truth_that_waited_travels_together(tmp_path: Path) -> None:
    destination = ScriptedDestination(unknown)

    async def test() -> None:
        first = on_disk(tmp_path, destination, START, batch_size=100)
        await live(first, 600, lambda h: truth(h, *[f"g{number}" for number in range(100)]))
        before = len(destination.requests)
        destination.script = ScriptedDestination().script
        second = on_disk(tmp_path, destination, START + timedelta(seconds=600), batch_size=100)
        await live(second, 10)
        second.check(delivered=100, pending=0)
        assert len(destination.requests) - before == 1

    run(test)


def test_the_spool_keeps_in_mind_since_when_an_inference_is_unknown(tmp_path: Path) -> None:
    """Also in a file that was made before it did, and while the row waits apart."""
    spool = new_spool(tmp_path)
    spool.open()
    execute = connection_of(spool).execute
    execute("ALTER TABLE rows DROP COLUMN unknown_since")
    spool.close()
    spool = new_spool(tmp_path)
    spool.open()
    spool.put([Row("a", "m", b"{}", kind=RowKind.GROUND_TRUTH), Row("b", "m", b"{}")])
    spool.commit()
    row, _ = spool.lease(2)
    note_unknown(row, 17.5)
    note_unknown(row, 18.5)
    spool.note([row])
    spool.put_off([row])
    (again,) = spool.lease_put_off("m", 1)
    assert again.history == row.history
    crash_without_commit, spool = spool, new_spool(tmp_path)
    crash_without_commit.commit()
    crash(crash_without_commit)
    assert spool.open() == 2
    histories = {each.id: each.history for each in spool.lease(2)}
    assert histories == {"a": History(2, None, 0, 17.5), "b": NO_HISTORY}


def test_a_flush_waits_for_what_an_earlier_process_left_and_an_end_does_not(tmp_path: Path) -> None:
    destination = ScriptedDestination(lambda batch, _number: unavailable(batch))

    async def lives() -> None:
        await live(on_disk(tmp_path, destination, START), 1.0, lambda h: h.capture_many(3))
        second = on_disk(tmp_path, destination, START)
        with anyio.fail_after(1.0):
            second.worker.control(FlushRequest(closing=True))
            await second.worker.run()
        second.check(captured=3, pending=3, delivered=0)
        second.worker.buffer.durable.close()
        third = on_disk(tmp_path, destination, START)
        async with third.running():
            assert not await third.flush(5.0)
            destination.script = lambda batch, _number: delivered(batch)
            assert await third.flush(120.0)
            third.check(captured=3, pending=0, delivered=3)
        third.worker.buffer.durable.close()

    run(lives)
