"""An Arthur that asks for patience with one model's rows (429) takes those of the others."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest

from arthur_relay.row import DELIVERED, Attempt, Batch, Failure, Outcome, Verdict
from tests.worker.harness import (
    ScriptedDestination,
    delivered,
    harness,
    run,
    seconds_until,
    virtual,
)

pytestmark = pytest.mark.one_python

ROW_429 = Outcome(Verdict.RETRY, "row 429", 429)


def throttled(batch: Batch, retry_after: float | None = None) -> Attempt:
    outcome = Outcome(Verdict.RETRY, "http 429", 429)
    return Attempt((outcome,) * len(batch.rows), Failure.THROTTLED, "http 429", retry_after)


def throttling(*models: str, retry_after: float | None = None) -> ScriptedDestination:
    """Answers 429 for what is of some models."""

    async def script(batch: Batch, _number: int) -> Attempt:
        await anyio.sleep(0.05)
        if batch.model_id in models:
            return throttled(batch, retry_after)
        return delivered(batch)

    return ScriptedDestination(script)


@pytest.mark.parametrize("retry_after", [None, 60.0])
@pytest.mark.parametrize("bad", [1, 8])
def test_models_that_are_throttled_cost_no_other(retry_after: float | None, bad: int) -> None:
    models = [f"bad{number}-" for number in range(bad)]

    async def test() -> None:
        destination = throttling(*models, retry_after=retry_after)
        h = harness(destination, batch_size=50, queue_size=100_000)
        async with h.running():
            h.capture_many(100, model="good")
            await anyio.sleep(5)
            for model in models:
                h.capture_many(500, model=model)
            await anyio.sleep(5)
            h.capture_many(2000, model="good")
            assert await seconds_until(h, 2100, limit=600) < 5
            await anyio.sleep(600)
            h.capture_many(2000, model="good")
            assert await seconds_until(h, 4100, limit=600) < 5
            assert len(destination.requests) < 82 + 80 * bad
            destination.script = lambda batch, _number: delivered(batch)
            assert await h.flush()
            h.check(delivered=4100 + 500 * bad, pending=0, rejected=0)

    run(test)


@pytest.mark.parametrize("retry_after", [None, 20.0])
def test_nor_one_that_was_never_seen_before(retry_after: float | None) -> None:
    """Nothing has passed so far, so it may be Arthur as a whole: the next one tells."""

    async def test() -> None:
        h = harness(throttling("bad", "worse", retry_after=retry_after), batch_size=50)
        async with h.running():
            h.capture_many(500, model="bad")
            h.capture_many(500, model="worse")
            await anyio.sleep(5)
            h.capture_many(500, model="good")
            assert await seconds_until(h, 500, limit=600) < 5 + (retry_after or 0.0)

    run(test)


@virtual
async def test_what_was_asked_for_is_obeyed_for_the_model() -> None:
    destination = throttling("bad", retry_after=40.0)
    h = harness(destination)
    async with h.running():
        h.capture("good", model="good")
        await anyio.sleep(5)
        h.capture("a", model="bad")
        await anyio.sleep(5)
        h.capture("b", model="bad")
        assert not await h.flush(30)  # which overrules nothing that Arthur asked for
        await anyio.sleep(300)
        times = sorted({at for at, ids in destination.requests if ids != ["good"]})
        assert len(times) >= 4
        assert min(b - a for a, b in pairwise(times)) >= 40.0


@virtual
async def test_two_models_that_are_throttled_have_all_wait() -> None:
    """Where nothing else passes, Arthur as a whole asks for patience."""
    destination = throttling("a", "b", "c", retry_after=40.0)
    h = harness(destination)
    async with h.running():
        h.capture("a", model="a")
        h.capture("b", model="b")
        await anyio.sleep(5)
        h.capture("c", model="c")
        await anyio.sleep(30)
        assert sorted(ids for _, ids in destination.requests) == [["a"], ["b"]]
        await anyio.sleep(60)
        assert ["c"] in [ids for _, ids in destination.requests]


@virtual
async def test_a_throttled_row_costs_no_other_of_its_batch() -> None:
    throttles = True

    def script(batch: Batch, _number: int) -> Attempt:
        return Attempt(
            tuple(ROW_429 if throttles and row.id == "m7" else DELIVERED for row in batch.rows),
            reason="row 429",
        )

    h = harness(ScriptedDestination(script), batch_size=100)
    async with h.running():
        ids = h.capture_many(300)
        await anyio.sleep(60)
        assert set(h.destination.stored) == set(ids) - {"m7"}
        assert {tuple(ids) for _, ids in h.destination.requests[3:]} == {("m7",)}
        h.capture_many(100, model="later")
        assert await seconds_until(h, 399, limit=60) < 2
        throttles = False
        assert await h.flush()
        h.check(delivered=400, pending=0)


@virtual
async def test_a_model_whose_rows_are_all_throttled_one_by_one_costs_no_other() -> None:
    def script(batch: Batch, _number: int) -> Attempt:
        if batch.model_id == "bad":
            return Attempt((ROW_429,) * len(batch.rows), reason="row 429")
        return delivered(batch)

    h = harness(ScriptedDestination(script), batch_size=50, max_in_flight=2)
    async with h.running():
        h.capture_many(900, model="bad")
        await anyio.sleep(5)
        h.capture_many(900, model="good")
        assert await seconds_until(h, 900, limit=600) < 5
        h.check(delivered=900, pending=900, rejected=0)


@virtual
async def test_too_many_requests_of_a_model_that_passes_are_no_trouble_of_it() -> None:
    """More than three at once are answered with 429; the relay learns to make fewer."""
    on_their_way = 0

    async def script(batch: Batch, _number: int) -> Attempt:
        nonlocal on_their_way
        on_their_way += 1
        is_too_much = on_their_way > 3
        await anyio.sleep(0.2)
        on_their_way -= 1
        return throttled(batch) if is_too_much else delivered(batch)

    h = harness(ScriptedDestination(script), batch_size=10)
    async with h.running():
        h.capture_many(3000)
        assert await h.flush(100)
        assert not h.worker.sender.held_count
        assert h.worker.sender.limit.requests <= 6
        h.check(delivered=3000, pending=0)
