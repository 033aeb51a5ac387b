"""Ground truth on a virtual clock: behind its inference, asked again, never in anyone's way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from arthur_relay.delivery import ground_truth
from arthur_relay.delivery.ground_truth import (
    LONGEST_WAIT_SECONDS,
    LOOK_SECONDS,
    PATIENCE_SECONDS,
    URGENT_WAITS,
)
from arthur_relay.inference import CapturedGroundTruth
from arthur_relay.row import DELIVERED, Attempt, Failure, Outcome, Row, RowKind, Verdict
from arthur_relay.worker.encode_stage import NO_GROUND_TRUTH
from tests.worker.harness import (
    RETRY,
    Harness,
    ScriptedDestination,
    delivered,
    harness,
    rows_of,
    run,
    virtual,
)

if TYPE_CHECKING:
    from arthur_relay.row import Batch

NOT_YET = Outcome(Verdict.NOT_YET, "row 404", 404)


def log(h: Harness, *ids: str, values: dict[str, Any] | None = None) -> None:
    for inference_id in ids:
        truth = CapturedGroundTruth(inference_id, "m", values or {"thumbs_up": True}, 100, 1.5)
        h.queue.put(truth)


def kinds(h: Harness, log_of: list[RowKind]) -> None:
    def script(batch: Batch, _number: int) -> Attempt:
        log_of.append(batch.kind)
        return delivered(batch)

    h.destination.script = script


@virtual
async def test_it_goes_behind_its_inference_in_a_batch_of_its_own() -> None:
    h = harness()
    sent: list[RowKind] = []
    kinds(h, sent)
    async with h.running():
        h.capture("a", "b")
        log(h, "a", "b")
        assert await h.flush(30)
    assert sent == [RowKind.INFERENCE, RowKind.GROUND_TRUTH]
    assert h.destination.stored == ["a", "b", "a", "b"]
    h.check(captured=4, delivered=4, pending=0)


@virtual
async def test_the_row_is_what_arthur_takes() -> None:
    h = harness()
    bodies: list[Any] = []

    def script(batch: Batch, _number: int) -> Attempt:
        bodies.extend(rows_of(batch))
        return delivered(batch)

    h.destination.script = script
    async with h.running():
        log(h, "a", values={"thumbs_up": "true", "not_registered": 1})
        assert await h.flush(30)
    assert bodies == [
        {
            "partner_inference_id": "a",
            "ground_truth_timestamp": "1970-01-01T00:00:01.500000+00:00",
            "ground_truth_data": {"thumbs_up": True},
        }
    ]
    assert h.ledger.attributes_omitted == 1


@virtual
async def test_it_waits_while_its_inference_fails_and_no_other_does() -> None:
    fails = {"a"}

    def script(batch: Batch, _number: int) -> Attempt:
        if batch.kind is RowKind.GROUND_TRUTH:
            return delivered(batch)
        return Attempt(tuple(RETRY if row.id in fails else DELIVERED for row in batch.rows))

    h = harness(ScriptedDestination(script))
    async with h.running():
        h.capture("a", "b")
        log(h, "a", "b")
        await anyio.sleep(20)
        assert h.destination.stored == ["b", "b"]
        fails.clear()
        assert await h.flush(100)
    assert h.destination.stored == ["b", "b", "a", "a"]
    h.check(captured=4, delivered=4, pending=0)


@virtual
async def test_an_inference_of_another_process_is_waited_for() -> None:
    there: set[str] = set()

    def script(batch: Batch, _number: int) -> Attempt:
        return Attempt(tuple(DELIVERED if row.id in there else NOT_YET for row in batch.rows))

    h = harness(ScriptedDestination(script))
    async with h.running():
        log(h, "elsewhere", "too")
        await anyio.sleep(600)
        asked = len(h.destination.requests)
        assert 8 < asked < 40  # with a back-off of up to a minute
        there.add("elsewhere")
        await anyio.sleep(70)
        assert h.destination.stored == ["elsewhere"]
        await anyio.sleep(PATIENCE_SECONDS)
    h.check(captured=2, delivered=1, rejected=1, pending=0)
    [letter] = h.dead_letters.letters()
    assert (letter.inference_id, letter.kind) == ("too", RowKind.GROUND_TRUTH)
    assert (letter.reason, letter.status) == ("row 404", 404)


@virtual
async def test_an_unknown_inference_does_not_hold_up_an_exit() -> None:
    h = harness(ScriptedDestination(lambda batch, _number: Attempt((NOT_YET,) * len(batch.rows))))
    async with h.running():
        log(h, "nowhere")
        await anyio.sleep(3)
        before = anyio.current_time()
        h.worker.sender.flow.urgent = True
        assert await h.flush(30)
        assert anyio.current_time() - before <= 1.0 * URGENT_WAITS
    h.check(captured=1, rejected=1, pending=0)


@virtual
async def test_without_a_registered_attribute_it_is_rejected() -> None:
    h = harness()
    async with h.running():
        log(h, "a", values={"not_registered": 1})
        assert await h.flush(30)
    h.check(captured=1, rejected=1, pending=0)
    assert h.ledger.rejected == {NO_GROUND_TRUTH: 1}
    [letter] = h.dead_letters.letters()
    assert (letter.inference_id, letter.kind) == ("a", RowKind.GROUND_TRUTH)
    assert (letter.reason, letter.attempts, letter.body) == (NO_GROUND_TRUTH, 0, b"")


@virtual
async def test_one_that_is_too_large_alone_is_rejected() -> None:
    def script(batch: Batch, _number: int) -> Attempt:
        too_large = Outcome(Verdict.REJECTED, "http 413", 413)
        return Attempt((too_large,) * len(batch.rows), Failure.TOO_LARGE, "http 413")

    h = harness(ScriptedDestination(script))
    async with h.running():
        log(h, "a", "b")
        assert await h.flush(30)
    h.check(captured=2, rejected=2, pending=0)
    assert [letter.attempts for letter in h.dead_letters.letters()] == [2, 2]


def test_one_models_ground_truth_costs_no_others_and_none_is_given_up_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However much of it waits for inferences that never come."""
    monkeypatch.setattr(ground_truth, "MAX_KEPT_ROWS", 500)
    there: set[str] = set()

    def script(batch: Batch, _number: int) -> Attempt:
        return Attempt(tuple(DELIVERED if row.id in there else NOT_YET for row in batch.rows))

    async def test() -> None:
        h = harness(ScriptedDestination(script), batch_size=100)
        async with h.running():
            log(h, *[f"never{number}" for number in range(1000)])
            await anyio.sleep(120)
            late = [f"late{number}" for number in range(50)]
            for inference_id in late:
                values = {"thumbs_up": True}
                h.queue.put(CapturedGroundTruth(inference_id, "other", values, 100, 1.5))
            await anyio.sleep(300)
            there.update(late)
            await anyio.sleep(2 * LONGEST_WAIT_SECONDS)
            assert set(h.destination.stored) == there
            h.check(captured=1050, delivered=50, pending=1000)
            await anyio.sleep(PATIENCE_SECONDS + 10 * LONGEST_WAIT_SECONDS)
            h.check(captured=1050, delivered=50, rejected=1000, pending=0)
        attempts = [letter.attempts for letter in h.dead_letters.letters()]
        assert min(attempts) > 5

    run(test)


@virtual
async def test_ground_truth_is_let_go_when_its_inference_goes_back_and_is_given_up() -> None:
    h = harness()
    async with h.running():
        order = h.worker.batching.ground_truth
        inference, truth = Row("a", "m", b"{}"), Row("a", "m", b"{}", kind=RowKind.GROUND_TRUTH)
        h.buffer.put([inference, truth])
        leased = h.buffer.lease(2)
        assert leased == [inference, truth]
        assert order.keep_back([truth], h.buffer.on_their_way, 0.0) == {truth}
        assert order.due(1.0, h.buffer.on_their_way) == []
        h.buffer.release([inference])
        assert h.buffer.evict() is inference
        assert order.due(LOOK_SECONDS, h.buffer.on_their_way) == [truth]
        h.buffer.settle([truth])
