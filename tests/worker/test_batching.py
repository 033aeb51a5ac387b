"""When rows set off: by count, by bytes, by age, at a flush; by model."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import trio

from arthur_relay.row import Attempt, Batch
from arthur_relay.worker.worker import TURN_BATCHES
from tests.worker.harness import ScriptedDestination, delivered, harness, virtual


@virtual
async def test_a_full_batch_leaves_at_once() -> None:
    h = harness(batch_size=3)
    async with h.running():
        start = anyio.current_time()
        ids = h.capture_many(3)
        await anyio.sleep(0.5)
        assert [ids_ for _, ids_ in h.destination.requests] == [ids]
        assert h.destination.requests[0][0] - start < 0.1
        h.check(captured=3, delivered=3, pending=0)


@virtual
async def test_a_lonely_row_waits_for_the_linger_and_no_longer() -> None:
    h = harness()
    async with h.running():
        start = anyio.current_time()
        h.capture("a")
        await anyio.sleep(0.9)
        h.check(delivered=0, pending=1)
        await anyio.sleep(0.2)
        h.check(delivered=1, pending=0)
        assert 0.99 <= h.destination.requests[0][0] - start <= 1.01


@virtual
async def test_what_is_ready_leaves_before_everything_is_encoded() -> None:
    left: list[int] = []

    def note(batch: Batch, _number: int) -> Attempt:
        left.append(len(h.queue))
        return delivered(batch)

    h = harness(ScriptedDestination(note), max_in_flight=1)
    async with h.running():
        h.capture("first")  # the model is known from now on
        assert await h.flush()
        h.capture_many(10 * TURN_BATCHES * 10)
        assert await h.flush()
    assert left[1] >= 8 * TURN_BATCHES * 10  # the request begins while the next turn encodes
    assert left[1:] == sorted(left[1:], reverse=True)
    h.check(delivered=10 * TURN_BATCHES * 10 + 1, pending=0)


@virtual
async def test_a_flush_does_not_wait_for_the_linger() -> None:
    h = harness(flush_interval_seconds=1000.0)
    async with h.running():
        start = anyio.current_time()
        h.capture("a", "b")
        assert await h.flush()
        assert anyio.current_time() - start < 1.0
        h.check(delivered=2, pending=0)


@virtual
async def test_a_batch_is_bounded_in_bytes_and_a_large_row_travels_alone() -> None:
    h = harness(batch_bytes=4096, batch_size=100)
    async with h.running():
        h.capture("s1", "s2", text="x" * 1500)
        h.capture("large", text="x" * 10_000)
        h.capture("s3", text="x" * 1500)
        assert await h.flush()
        assert sorted(ids for _, ids in h.destination.requests) == [["large"], ["s1", "s2"], ["s3"]]


@virtual
async def test_models_never_share_a_batch() -> None:
    h = harness()
    async with h.running():
        h.capture("a1", model="a")
        h.capture("b1", model="b")
        h.capture("a2", model="a")
        assert await h.flush()
        assert sorted(ids for _, ids in h.destination.requests) == [["a1", "a2"], ["b1"]]


@virtual
async def test_rows_of_a_batch_keep_the_order_of_capture() -> None:
    h = harness(batch_size=7)
    async with h.running():
        ids = h.capture_many(100)
        assert await h.flush()
        sent = [ids_ for _, ids_ in h.destination.requests]
        batches = sorted(sent, key=lambda batch: ids.index(batch[0]))
        assert [row for batch in batches for row in batch] == ids


@virtual
async def test_requests_in_flight_are_bounded() -> None:
    now_in_flight = most = 0

    async def slow(batch: Batch) -> Attempt:
        nonlocal now_in_flight, most
        now_in_flight += 1
        most = max(most, now_in_flight)
        await anyio.sleep(1)
        now_in_flight -= 1
        return delivered(batch)

    h = harness(ScriptedDestination(lambda batch, _n: slow(batch)), batch_size=1, max_in_flight=3)
    async with h.running():
        h.capture_many(30)
        assert await h.flush()
        assert most == 3
        h.check(delivered=30, pending=0)


@virtual
async def test_captures_of_a_busy_second_do_not_wake_the_worker_one_by_one() -> None:
    h = harness(batch_size=1000)
    async with h.running():
        for number in range(100):
            h.capture(f"r{number}")
            await anyio.sleep(0.01)
        assert h.wakes <= 2
        assert await h.flush()
        h.check(delivered=100, pending=0)


@virtual
async def test_an_idle_worker_sleeps() -> None:
    h = harness()
    async with h.running():
        before = h.host.sweeps
        await anyio.sleep(3600)
        assert h.host.sweeps - before <= 3600 / 10 + 1  # the sweep's own timer, and nothing else


@virtual
async def test_a_worker_that_is_ahead_sleeps_until_a_request_ends() -> None:
    answer = anyio.Event()

    async def held(batch: Batch) -> Attempt:
        await answer.wait()
        return delivered(batch)

    h = harness(
        ScriptedDestination(lambda batch, _n: held(batch)),
        batch_size=1,
        max_in_flight=1,
        flush_interval_seconds=0.0,
    )
    async with h.running():
        h.capture_many(30)  # more than fit on their way, so some rows are ready
        await settle()
        left = len(h.queue)
        h.capture("late", "later")
        await settle()
        assert len(h.queue) == left + 2
        answer.set()
        assert await h.flush()
        h.check(delivered=32, pending=0)


async def settle() -> None:
    """Let every task run until it waits; fails if one never does."""
    quiet = 0
    for _ in range(2000):
        await anyio.lowlevel.checkpoint()
        # Trio shuffles the tasks of a turn, so one look alone may miss the other that runs.
        runs = trio.lowlevel.current_statistics().tasks_runnable > 0
        quiet = 0 if runs else quiet + 1
        if quiet == 50:
            return
    raise AssertionError("something runs on and on, and waits for nothing")


@virtual
async def test_a_flush_waits_for_what_was_captured_before_only() -> None:
    async def slow(batch: Batch) -> Attempt:
        await anyio.sleep(5)
        return delivered(batch)

    h = harness(ScriptedDestination(lambda batch, _n: slow(batch)), max_in_flight=1)
    async with h.running(), anyio.create_task_group() as group:
        h.capture("before")

        async def keep_capturing() -> None:
            for number in range(100):
                await anyio.sleep(1)
                h.capture(f"after{number}")

        group.start_soon(keep_capturing)
        start = anyio.current_time()
        assert await h.flush()
        assert anyio.current_time() - start < 15  # it does not starve behind later captures
        assert "before" in h.destination.stored
        group.cancel_scope.cancel()


@virtual
async def test_a_flush_of_nothing_returns_at_once() -> None:
    h = harness()
    async with h.running():
        start = anyio.current_time()
        assert await h.flush()
        assert anyio.current_time() - start < 0.01
