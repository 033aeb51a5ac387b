"""Nothing about one row may end the worker: it costs that row alone, and is counted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import product
from typing import Any

import anyio
import pytest

from arthur_relay.delivery.batching import MAX_DEATHS, SET_ASIDE, Batcher, BatchingStage
from arthur_relay.inference import CapturedGroundTruth
from arthur_relay.row import DELIVERED, Attempt, Batch, Failure, Outcome, Row, Verdict
from arthur_relay.worker.ingest import IngestAnswer, IngestBatch
from tests.worker.harness import Harness, ScriptedDestination, delivered, harness, run, virtual

TEXT = "x" * 5000
PROMPT = f"prompt {TEXT[:3]}"
"""What no log may hold; put together, as a log of an error shows the line that raised it."""

ODD = {
    "no data": b'{"partner_inference_id": "bad", "t": "%s"}' % TEXT.encode(),
    "null": b'{"partner_inference_id": "bad", "inference_data": null}',
    "a list": b'{"partner_inference_id": "bad", "inference_data": ["a"]}',
    "a list of all": b'["bad"]',
    "no number": b'{"partner_inference_id": "bad", "inference_data": {"a": 1e400}}',
    "NaN": b'{"partner_inference_id": "bad", "inference_data": {"a": NaN}}',
    "half a character": b'{"partner_inference_id": "bad", "inference_data": {"input": "\\ud800"}}',
    "no UTF-8": b'{"partner_inference_id": "bad", "inference_data": {"input": "\xff"}}',
    "deep": b'{"inference_data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no JSON": b"{",
    "nothing": b"",
    "texts of other types": b'{"inference_data": {"input_text": 7, "output_text": ["%s"]}}'
    % TEXT.encode(),
    "an endless number": b'{"inference_data": {"input_text": ' + b"9" * 6000 + b"}}",
}


class _Client:
    def answered(self, answers: Sequence[IngestAnswer]) -> None:
        assert all(refusal is None for _, refusal in answers)


def offer(h: Harness, *rows: Row) -> None:
    """Hand over rows that come encoded, as a daemon does."""
    h.worker.ingest.offer(IngestBatch.of(rows, _Client()))
    h.worker.wake()


def good(name: str) -> Row:
    return Row(name, "m", b'{"inference_data": {"input_text": "a", "output_text": "b"}}')


def too_large(batch: Batch, _number: int) -> Attempt:
    """Finds a request with a bad row too large."""
    if any(row.id == "bad" for row in batch.rows):
        outcome = Outcome(Verdict.REJECTED, "http 413", 413)
        return Attempt((outcome,) * len(batch.rows), Failure.TOO_LARGE, "http 413")
    return delivered(batch)


@pytest.mark.parametrize("body", ODD.values(), ids=list(ODD))
def test_a_row_that_is_too_large_and_can_not_be_read_costs_itself(body: bytes) -> None:
    async def test() -> None:
        h = harness(ScriptedDestination(too_large))
        async with h.running():
            h.capture("first")  # so that the model is known
            offer(h, good("a"), Row("bad", "m", body), good("b"))
            assert await h.flush()
            h.check(captured=4, delivered=3, rejected=1, pending=0)
            ((_, letter),) = h.letters.letters()
            assert (letter.inference_id, letter.reason, letter.body) == ("bad", "http 413", body)

    run(test)


@pytest.mark.parametrize("error", [ValueError, RecursionError, MemoryError, AssertionError])
def test_a_row_that_can_not_be_cut_costs_itself(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def shrink(self, _row: Row) -> Row:
            raise error(PROMPT)

    caplog.set_level(logging.DEBUG)

    async def test() -> None:
        h = harness(ScriptedDestination(too_large))
        h.worker.sender.outcomes.shrinker = Failing()
        async with h.running():
            offer(h, good("a"), Row("bad", "m", b"{}"), good("b"))
            assert await h.flush()
            h.check(delivered=2, rejected=1, pending=0)

    run(test)
    assert PROMPT not in caplog.text


@pytest.mark.parametrize("outcomes", [0, 2, 4])
def test_an_answer_for_another_number_of_rows_is_not_understood(outcomes: int) -> None:
    async def test() -> None:
        destination = ScriptedDestination(lambda batch, n: delivered(batch))
        h = harness(destination)
        answers = iter([Attempt((DELIVERED,) * outcomes)])

        async def deliver(batch: Batch) -> Attempt:
            return next(answers, None) or await ScriptedDestination.deliver(destination, batch)

        destination.deliver = deliver  # type: ignore[method-assign] # one that answers amiss
        async with h.running():
            h.capture_many(3)
            assert await h.flush()
            h.check(delivered=3, pending=0)
            assert h.ledger.malformed_answers == 1

    run(test)


@virtual
async def test_an_error_while_an_answer_is_sorted_costs_one_row() -> None:
    """Whichever part of the worker fails of a row: the row is found, and the others go on."""
    h = harness(ScriptedDestination(lambda batch, _n: refusing_bad(batch)), batch_size=100)
    ground_truth: Any = h.worker.batching.ground_truth
    settled = ground_truth.settled

    def fail(rows: Sequence[Row]) -> None:
        if any(row.id == "m42" for row in rows) and len(h.letters.count()) == 0:
            raise LookupError(PROMPT)
        settled(rows)

    async with h.running():
        ground_truth.settled = fail
        h.capture_many(100)
        await anyio.sleep(30)
        assert h.destination.entered == 1  # it did not die
        assert len(h.destination.stored) == 100


def refusing_bad(batch: Batch) -> Attempt:
    return delivered(batch)


async def live(h: Harness, lives: int) -> int:
    """Run the worker again and again, as the runtime does; returns how often it died."""
    deaths = 0
    while deaths < lives:
        try:
            with anyio.move_on_after(60):
                await h.worker.run()
            return deaths
        except BaseException as error:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise
            deaths += 1
    return deaths


@pytest.mark.parametrize("place", ["_without_early_ground_truth", "add"])
def test_a_row_that_the_worker_dies_of_is_set_aside(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        h = harness(batch_size=100)

        def failing(original: Any) -> Any:
            def call(part: Any, rows: Sequence[Row], *others: Any) -> Any:
                if any(row.id == "m42" for row in rows):
                    raise LookupError(PROMPT)
                return original(part, rows, *others)

            return call

        owner = Batcher if place == "add" else BatchingStage
        monkeypatch.setattr(owner, place, failing(getattr(owner, place)))
        h.capture_many(300)
        deaths = await live(h, 10)
        assert deaths <= MAX_DEATHS
        if place != "add":
            h.check(captured=300, delivered=299, rejected=1, pending=0)
            ((_, letter),) = h.letters.letters()
            assert (letter.inference_id, letter.reason) == ("m42", SET_ASIDE)
        else:  # alone it needs no batcher
            h.check(captured=300, delivered=300, pending=0)

    run(test)


@virtual
async def test_a_delivery_that_ends_the_worker_does_so_twice() -> None:
    """What is no `Exception`: an application's own destination, or its redactor, that exits."""

    def script(batch: Batch, _number: int) -> Attempt:
        if any(row.id == "m42" for row in batch.rows):
            raise SystemExit(3)
        return delivered(batch)

    h = harness(ScriptedDestination(script), batch_size=100)
    h.capture_many(300)
    assert await live(h, 10) == MAX_DEATHS
    h.check(captured=300, delivered=299, rejected=1, pending=0)
    ((_, letter),) = h.letters.letters()
    assert (letter.inference_id, letter.reason) == ("m42", SET_ASIDE)


def rejecting(batch: Batch, _number: int) -> Attempt:
    refused = Outcome(Verdict.REJECTED, "row 422", 422)
    return Attempt(tuple(refused if row.id in ("m3", "m7") else DELIVERED for row in batch.rows))


@pytest.mark.parametrize(
    ("place", "error"),
    [
        *product(["letter", "callback", "retained"], [OSError, MemoryError, SystemExit]),
        ("callback", KeyboardInterrupt),
        ("keeper", LookupError),
        ("keeper", MemoryError),  # no keeper exits: they are ours
    ],
)
def test_an_error_while_a_row_is_buried_costs_that_row_alone(
    place: str,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whether the letter can't be made or written, or whoever is told of it fails or exits."""
    told: list[str] = []

    def fail(letter: Any, *_: Any) -> None:
        told.append(getattr(letter, "inference_id", ""))
        raise error(PROMPT)

    async def test() -> None:
        settings = {"on_dead_letter": fail} if place == "callback" else {}
        h = harness(ScriptedDestination(rejecting), **settings)
        if place == "letter":
            monkeypatch.setattr(h.worker.dead_letters, "add", fail)
        elif place == "keeper":
            monkeypatch.setattr(h.letters, "add", fail)
        elif place == "retained":
            monkeypatch.setattr(h.worker.buffer.journal, "retain", fail)
        h.capture_many(10)
        assert await live(h, 1) == 0, "the worker died"
        assert told
        h.check(captured=10, delivered=8, rejected=2, pending=0)
        h.capture("later")
        assert await live(h, 1) == 0
        h.check(captured=11, delivered=9, rejected=2, pending=0)
        if place == "callback":
            assert [letter.inference_id for letter in h.dead_letters.letters()] == ["m3", "m7"]

    run(test)
    assert PROMPT not in caplog.text


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("error", [LookupError, SystemExit])
def test_so_does_an_error_while_a_capture_is_buried(
    error: type[BaseException], is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ground truth without an attribute, which is refused before it is a row."""

    def fail(*_: Any) -> None:
        raise error(PROMPT)

    async def test() -> None:
        h = harness()
        if is_known:
            h.capture("first")
            assert await live(h, 1) == 0
        monkeypatch.setattr(h.worker.dead_letters, "add", fail)
        h.queue.put(CapturedGroundTruth("a", "m", {"not_registered": 1}, 100, 1.5))
        h.capture("b")
        assert await live(h, 1) == 0, "the worker died"
        h.check(captured=2 + is_known, delivered=1 + is_known, rejected=1, pending=0)

    run(test)
