"""A row whose answer can't be read is found and rejected, and costs no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet

import anyio
import pytest

from arthur_relay.delivery.sender import MAX_MALFORMED_ANSWERS
from arthur_relay.row import Attempt, Batch, Failure
from tests.worker.harness import RETRY, ScriptedDestination, delivered, harness, run, virtual


def garbling(*, rows: AbstractSet[str] | None = None, model: str = "") -> ScriptedDestination:
    """Answers what nobody understands to what has some rows in it, or is of a model; or to all."""

    async def script(batch: Batch, _number: int) -> Attempt:
        await anyio.sleep(0.05)
        is_bad = rows is None or any(row.id in rows for row in batch.rows)
        if is_bad or batch.model_id == model:
            return Attempt((RETRY,) * len(batch.rows), Failure.MALFORMED, "malformed answer")
        return delivered(batch)

    return ScriptedDestination(script)


@pytest.mark.parametrize("bad", [1, 7, 50, 100])
def test_rows_whose_answers_are_garbled_cost_no_other(bad: int) -> None:
    names = {f"m{number * 100 // bad}" for number in range(bad)}

    async def test() -> None:
        destination = garbling(rows=names)
        h = harness(destination, batch_size=100)
        async with h.running():
            ids = h.capture_many(100)
            assert await h.flush(300)
            assert set(destination.stored) == set(ids) - names
            reasons = {"malformed answer": bad}
            h.check(delivered=100 - bad, rejected=bad, pending=0, rejected_reasons=reasons)

    run(test)


@virtual
async def test_where_no_answer_can_be_read_what_is_sent_is_bounded_and_backs_off() -> None:
    destination = garbling()
    h = harness(destination, batch_size=64)
    async with h.running():
        h.capture_many(64)
        began_at = anyio.current_time()
        assert await h.flush(3600)
        h.check(delivered=0, rejected=64, pending=0, rejected_reasons={"malformed answer": 64})
        sent = Counter(name for _, ids in destination.requests for name in ids)
        # Three times with all others, once in each half, quarter, ..., and twice alone.
        assert set(sent.values()) == {MAX_MALFORMED_ANSWERS + 5 + 2}
        assert anyio.current_time() - began_at > 5
        # It is known by now that nothing is found: the next batch goes without the halves.
        h.capture_many(64)
        assert await h.flush(3600)
        assert len(destination.requests) == 3 + (62 + 128) + 3 + 128


@virtual
async def test_a_model_whose_answers_are_garbled_costs_no_other() -> None:
    h = harness(garbling(rows=frozenset(), model="bad"), batch_size=50, max_in_flight=4)
    async with h.running():
        h.capture_many(500, model="bad")
        h.capture_many(2000, model="good")
        began_at = anyio.current_time()
        while len(h.destination.stored) < 2000:
            await anyio.sleep(0.1)
        assert anyio.current_time() - began_at < 10
        assert await h.flush(3600)
        h.check(delivered=2000, rejected=500, pending=0)


@virtual
async def test_an_answer_that_can_not_be_read_says_nothing_of_a_model_that_fails() -> None:
    """It is no proof that Arthur takes rows, so nobody else is blamed because of it."""
    answers = garbling(rows=frozenset(), model="garbled").script

    async def script(batch: Batch, number: int) -> Attempt:
        if batch.model_id == "garbled":
            answer = answers(batch, number)
            return answer if isinstance(answer, Attempt) else await answer
        await anyio.sleep(0.05)
        return Attempt((RETRY,) * len(batch.rows), Failure.UNAVAILABLE, "Arthur answered 503")

    h = harness(ScriptedDestination(script), batch_size=50)
    async with h.running():
        h.capture_many(50, model="garbled")
        h.capture_many(50, model="failing")
        await anyio.sleep(30)
        assert h.worker.sender.flow.model_health.passes == 0
        assert all(
            len(ids) in (1, 50) for _, ids in h.destination.requests if ids[0].startswith("failing")
        )
