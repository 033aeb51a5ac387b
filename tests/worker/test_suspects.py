"""A row that a whole request is refused for is found, within bounds, and costs no other."""

from __future__ import annotations

import pytest

from arthur_relay.pipeline.suspects import MAX_REQUESTS
from arthur_relay.row import Attempt, Batch, Failure, Outcome, Verdict
from tests.worker.harness import ScriptedDestination, delivered, harness, run, virtual


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
            assert len(h.destination.requests) <= 1 + MAX_REQUESTS

    run(test)


@virtual
async def test_what_is_refused_for_who_sends_it_is_not_searched() -> None:
    h = harness(refusing(403, "m7"), batch_size=10)
    async with h.running():
        h.capture_many(10)
        assert await h.flush()
        h.check(delivered=0, rejected=10)
        assert len(h.destination.requests) == 1


@virtual
async def test_a_search_is_bounded_and_not_begun_again_in_vain() -> None:
    destination = refusing(400)
    h = harness(destination, batch_size=500)
    async with h.running():
        h.capture_many(500)
        assert await h.flush()
        assert len(destination.requests) == 1 + MAX_REQUESTS
        h.capture_many(500)
        assert await h.flush()
        assert len(destination.requests) == 2 + MAX_REQUESTS
        h.check(delivered=0, rejected=1000)
        # Once something was taken again, the next one that is refused is searched.
        destination.script = refusing(400, "bad").script
        h.capture("good")
        assert await h.flush()
        h.capture("also good", "bad")
        assert await h.flush()
        assert destination.stored == ["good", "also good"]
