"""A row that a whole request is refused for is found, within bounds, and costs no other."""

from __future__ import annotations

import anyio
import pytest

from arthur_relay.row import Attempt, Batch, Failure, Outcome, Verdict
from tests.worker.harness import ScriptedDestination, delivered, harness, run, virtual

pytestmark = pytest.mark.one_python


def refusing(status: int, *bad: str) -> ScriptedDestination:
    """Refuses a whole request for what is in some rows."""

    def script(batch: Batch, _number: int) -> Attempt:
        if not bad or any(row.id in bad for row in batch.rows):
            outcome = Outcome(Verdict.REJECTED, f"http {status}", status)
            return Attempt((outcome,) * len(batch.rows), Failure.REFUSED, f"http {status}")
        return delivered(batch)

    return ScriptedDestination(script)


@pytest.mark.parametrize("status", [400, 422])
def test_a_row_that_a_whole_request_is_refused_for_costs_no_other(status: int) -> None:
    async def test() -> None:
        h = harness(refusing(status, "m7", "m8", "m400"), batch_size=500)
        async with h.running():
            ids = h.capture_many(500)
            assert await h.flush()
            assert set(ids) - set(h.destination.stored) == {"m7", "m8", "m400"}
            h.check(captured=500, delivered=497, rejected=3, rejected_reasons={f"http {status}": 3})
            assert {letter.attempts for _, letter in h.letters.letters()} == {10}
            assert len(h.destination.requests) <= 65

    run(test)


@virtual
async def test_what_is_refused_for_who_sends_it_is_not_searched() -> None:
    h = harness(refusing(403, "m7"), batch_size=10)
    async with h.running():
        h.capture_many(10)
        assert await h.flush()
        h.check(delivered=0, rejected=10)
        assert len(h.destination.requests) == 1


@pytest.mark.parametrize("bad", [1, 10, 50, 200, 399, 400])
def test_a_search_goes_on_until_it_is_done(bad: int) -> None:
    names = {f"m{number * 400 // bad}" for number in range(bad)}

    async def test() -> None:
        h = harness(refusing(400, *names), batch_size=400)
        async with h.running():
            ids = h.capture_many(400)
            assert await h.flush()
            assert set(ids) - set(h.destination.stored) == names
            h.check(delivered=400 - bad, rejected=bad)
            # Each row by itself, and the halves above it.
            assert len(h.destination.requests) < 2 * 400

    run(test)


@virtual
async def test_where_a_search_found_nothing_good_the_next_one_goes_without_halves() -> None:
    destination = refusing(400)
    h = harness(destination, batch_size=100)
    async with h.running():
        h.capture_many(100)
        assert await h.flush()
        assert len(destination.requests) == 199
        h.capture_many(100)
        assert await h.flush()
        assert len(destination.requests) == 199 + 101
        h.check(delivered=0, rejected=200)
        # What is good among them arrives all the same, and after it they are halved again.
        destination.script = refusing(400, *[f"m{number}" for number in range(98)]).script
        h.capture_many(100)
        assert await h.flush()
        assert sorted(destination.stored) == ["m98", "m99"]


@virtual
async def test_a_search_takes_no_place_from_other_models() -> None:
    """However many of a model's rows are bad, another model's go on beside the search."""

    async def script(batch: Batch, _number: int) -> Attempt:
        await anyio.sleep(1)
        if batch.model_id == "good":
            return delivered(batch)
        outcome = Outcome(Verdict.REJECTED, "http 400", 400)
        return Attempt((outcome,) * len(batch.rows), Failure.REFUSED, "http 400")

    h = harness(ScriptedDestination(script), batch_size=100, max_in_flight=4)
    async with h.running():
        h.capture_many(2000, model="bad")
        h.capture_many(2000, model="good")
        began_at = anyio.current_time()
        while len(h.destination.stored) < 2000:
            await anyio.sleep(1)
        assert anyio.current_time() - began_at < 30
        assert await h.flush()
        h.check(delivered=2000, rejected=2000)
