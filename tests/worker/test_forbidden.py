"""Rows of a model that we may not write to wait until we may; other models' go on."""

from __future__ import annotations

import anyio
import orjson
import pytest

from arthur_relay.destinations.scope.interpret import interpret_results
from arthur_relay.row import DELIVERED, Attempt, Batch, Failure, Outcome, Row, Verdict
from tests.worker.harness import ScriptedDestination, delivered, harness, run, virtual


def forbidding(model: str) -> ScriptedDestination:
    def script(batch: Batch, _number: int) -> Attempt:
        if batch.model_id != model:
            return delivered(batch)
        outcome = Outcome(Verdict.RETRY, "http 403", 403)
        return Attempt((outcome,) * len(batch.rows), Failure.FORBIDDEN, "not permitted (403)")

    return ScriptedDestination(script)


@virtual
async def test_rows_of_a_model_that_is_forbidden_wait_for_any_time() -> None:
    h = harness(forbidding("bad"), batch_size=50, retry_max_elapsed_seconds=60.0)
    async with h.running():
        h.capture_many(500, model="bad")
        await anyio.sleep(5)
        sender = h.worker.sender
        assert sender.authorization.refusal == "not permitted (403)"
        assert sender.held_models.endswith("(not permitted (403))")
        assert not sender.is_down
        h.capture_many(500, model="good")
        await anyio.sleep(2)
        h.check(delivered=500, pending=500)
        assert not sender.authorization.refusal, "the last rows were taken"
        before = len(h.destination.requests)
        await anyio.sleep(3600)
        assert 100 < len(h.destination.requests) - before < 200
        h.check(delivered=500, pending=500, rejected=0, dropped={})
        h.destination.script = lambda batch, _number: delivered(batch)
        before = len(h.destination.requests)
        assert await h.flush()
        h.check(delivered=1000, pending=0)
        assert len(h.destination.requests) - before < 15, "they go in whole batches, as new ones"


@pytest.mark.parametrize("status", [401, 402, 403])
def test_nor_is_a_single_row_rejected_for_who_sends_it(status: int) -> None:
    batch = Batch("m", (Row("a", "m", b"{}"), Row("b", "m", b"{}")))
    answer = orjson.dumps({"results": [{"status": 200}, {"status": status}]})
    attempt = interpret_results(batch, answer)
    assert [each.verdict for each in attempt.outcomes] == [Verdict.DELIVERED, Verdict.RETRY]

    def script(batch: Batch, _number: int) -> Attempt:
        again = Outcome(Verdict.RETRY, f"row {status}", status)
        return Attempt(
            tuple(again if row.id == "m7" else DELIVERED for row in batch.rows), reason=again.reason
        )

    async def test() -> None:
        h = harness(ScriptedDestination(script), retry_max_elapsed_seconds=60.0)
        async with h.running():
            h.capture_many(10)
            await anyio.sleep(600)
            h.check(delivered=9, pending=1, rejected=0, dropped={})
            h.destination.script = lambda batch, _number: delivered(batch)
            assert await h.flush()
            h.check(delivered=10, pending=0)

    run(test)
