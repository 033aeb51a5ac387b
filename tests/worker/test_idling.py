"""A worker that has had nothing to do for a while ends, and whatever there is to do keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from arthur_relay.worker.flush import FlushRequest
from tests.worker.harness import (
    Harness,
    ScriptedDestination,
    delivered,
    harness,
    unavailable,
    unreachable,
    virtual,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from arthur_relay.row import Attempt, Batch

IDLE_SECONDS = 30.0


async def seconds_until_it_ends(
    h: Harness, meanwhile: Callable[[], Awaitable[None]] | None = None, *, limit: float = 1000.0
) -> float | None:
    """Run a worker until it ends for want of work; return after how long, or None."""
    h.host.idle_seconds = IDLE_SECONDS
    began_at = anyio.current_time()
    found: list[bool] = []

    async def run() -> None:
        found.append(await h.worker.run())

    with anyio.move_on_after(limit):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            if meanwhile is not None:
                await meanwhile()
        assert found == [True]
        return anyio.current_time() - began_at
    return None


@virtual
async def test_it_ends_when_there_has_been_nothing_to_do() -> None:
    assert await seconds_until_it_ends(harness()) == IDLE_SECONDS


@virtual
async def test_it_never_does_unless_it_is_told_to() -> None:
    h = harness()
    with anyio.move_on_after(100_000):
        await h.worker.run()
        raise AssertionError


@virtual
async def test_the_time_begins_anew_with_each_capture() -> None:
    h = harness()

    async def capture() -> None:
        for number in range(5):
            await anyio.sleep(20)
            h.capture(f"{number}")

    found = await seconds_until_it_ends(h, capture)
    assert found is not None
    assert 130 <= found <= 132
    h.check(captured=5, delivered=5, pending=0)


@virtual
async def test_what_is_not_in_the_sample_counts_as_something_to_do() -> None:
    h = harness(sample_rate=0.0)

    async def capture() -> None:
        await anyio.sleep(20)
        h.capture("left out")

    found = await seconds_until_it_ends(h, capture)
    assert found is not None
    assert 50 <= found <= 52


@virtual
async def test_it_stays_while_rows_wait_for_an_arthur_that_is_away() -> None:
    back_at = 400.0

    def script(batch: Batch, _number: int) -> Attempt:
        if anyio.current_time() < back_at:
            return unavailable(batch)
        return delivered(batch)

    h = harness(ScriptedDestination(script))
    h.capture("waits")
    found = await seconds_until_it_ends(h)
    assert found is not None
    assert found > back_at + IDLE_SECONDS - 1
    h.check(captured=1, delivered=1, pending=0)


@virtual
async def test_it_stays_while_a_model_is_asked_for() -> None:
    destination = ScriptedDestination(schema_errors=unreachable(8))
    h = harness(destination)
    answer = h.worker.schemas.ask("m")
    found = await seconds_until_it_ends(h)
    assert found is not None
    assert found >= destination.schema_requests[-1] + IDLE_SECONDS
    assert len(destination.schema_requests) == 9
    assert answer.done()


@virtual
async def test_it_stays_while_runs_are_open() -> None:
    h = harness()
    h.host.is_open = True

    async def end() -> None:
        await anyio.sleep(500)
        h.host.is_open = False

    found = await seconds_until_it_ends(h, end)
    assert found is not None
    assert 520 <= found <= 550


@virtual
async def test_it_stays_where_it_may_not_end_and_does_not_turn_for_it() -> None:
    h = harness()
    h.host.may_end = False
    assert await seconds_until_it_ends(h, limit=301) is None
    assert len(h.host.asked) == 10
    assert h.host.sweeps < 100


@virtual
async def test_a_flush_and_an_end_are_heard_all_the_same() -> None:
    h = harness()
    h.host.idle_seconds = IDLE_SECONDS
    assert await h.worker.run()
    closing = FlushRequest(closing=True)
    h.capture("late")
    h.worker.control(closing)
    assert h.worker.has_work()
    assert not await h.worker.run()
    assert closing.done.done()
    h.check(captured=1, delivered=1, pending=0)
    assert h.destination.entered == 2
