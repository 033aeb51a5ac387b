"""What becomes of rows when deliveries fail: retried, split, cut, rejected, given up."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable
from itertools import pairwise

import anyio
import pytest

from arthur_relay.delivery.circuit_breaker import BreakerState
from arthur_relay.row import DELIVERED, Attempt, Batch, Failure, Outcome, Verdict
from arthur_relay.worker.flush import FlushRequest
from tests.worker.harness import (
    RETRY,
    ScriptedDestination,
    delivered,
    harness,
    run,
    unavailable,
    virtual,
)


@virtual
async def test_a_failed_batch_is_tried_again_after_a_growing_back_off() -> None:
    destination = ScriptedDestination(
        lambda batch, n: unavailable(batch) if n <= 3 else delivered(batch)
    )
    h = harness(destination, retry_initial_seconds=1.0, retry_max_seconds=100.0)
    async with h.running():
        h.capture("a")
        await anyio.sleep(20)
        times = [at for at, _ in destination.requests]
        # The harness's random() is 1: each wait is its ceiling, doubled each time.
        assert [round(b - a, 3) for a, b in pairwise(times)] == [1.0, 2.0, 4.0]
        h.check(delivered=1, pending=0)
        assert h.ledger.requests == 4
        assert h.ledger.retries == 3


@virtual
async def test_only_failed_rows_are_sent_again() -> None:
    def script(batch: Batch, number: int) -> Attempt:
        if number == 1:
            return Attempt((DELIVERED, Outcome(Verdict.RETRY, "row 503"), DELIVERED))
        return delivered(batch)

    h = harness(ScriptedDestination(script))
    async with h.running():
        h.capture("a", "b", "c")
        await anyio.sleep(30)
        assert [ids for _, ids in h.destination.requests] == [["a", "b", "c"], ["b"]]
        h.check(delivered=3, pending=0)


@virtual
async def test_a_batch_that_failed_arrives_behind_later_ones() -> None:
    failures = ["older"]

    def script(batch: Batch, _number: int) -> Attempt:
        if batch.rows[0].id in failures:
            failures.clear()
            return unavailable(batch)
        return delivered(batch)

    h = harness(ScriptedDestination(script), batch_size=1)
    async with h.running():
        h.capture("older", "newer")
        assert await h.flush()
        assert h.destination.stored == ["newer", "older"]


@virtual
async def test_a_rejected_row_costs_no_other() -> None:
    def script(batch: Batch, _number: int) -> Attempt:
        bad = Outcome(Verdict.REJECTED, "row 400")
        return Attempt(tuple(bad if row.id == "bad" else DELIVERED for row in batch.rows))

    h = harness(ScriptedDestination(script))
    async with h.running():
        h.capture("a", "bad", "c")
        assert await h.flush()
        h.check(delivered=2, rejected=1, pending=0, rejected_reasons={"row 400": 1})


def too_large_above(rows: int) -> ScriptedDestination:
    def script(batch: Batch, _number: int) -> Attempt:
        if len(batch.rows) > rows:
            outcome = Outcome(Verdict.REJECTED, "http 413")
            return Attempt((outcome,) * len(batch.rows), Failure.TOO_LARGE, "http 413")
        return delivered(batch)

    return ScriptedDestination(script)


@virtual
async def test_413_splits_until_it_fits() -> None:
    h = harness(too_large_above(2), batch_size=9)
    async with h.running():
        ids = h.capture_many(9)
        assert await h.flush()
        assert sorted(h.destination.stored) == sorted(ids)
        h.check(delivered=9, rejected=0, pending=0)


@virtual
async def test_a_row_too_large_by_itself_is_cut_and_marked() -> None:
    texts = []

    def script(batch: Batch, _number: int) -> Attempt:
        if len(batch.body()) > 5_000:
            outcome = Outcome(Verdict.REJECTED, "http 413")
            return Attempt((outcome,), Failure.TOO_LARGE, "http 413")
        texts.append(json.loads(batch.rows[0].body)["inference_data"]["input_text"])
        return delivered(batch)

    h = harness(ScriptedDestination(script))
    async with h.running():
        h.capture("huge", text="ä" * 20_000)
        assert await h.flush()
        h.check(delivered=1, rejected=0, pending=0)
        assert texts[0].startswith("äää")
        assert "cut by arthur-relay" in texts[0]
        assert len(texts[0].encode()) <= 5_000
        assert h.buffer.size == 0


@virtual
async def test_a_row_that_stays_too_large_is_rejected() -> None:
    h = harness(too_large_above(0))
    async with h.running():
        h.capture("huge", text="x" * 20_000)
        assert await h.flush()
        h.check(delivered=0, rejected=1, pending=0, rejected_reasons={"http 413": 1})


@virtual
async def test_rows_are_given_up_after_the_maximum_elapsed_time() -> None:
    h = harness(
        ScriptedDestination(lambda batch, _n: unavailable(batch)),
        retry_max_elapsed_seconds=60.0,
        breaker_failures=1000,
    )
    async with h.running():
        start = anyio.current_time()
        h.capture("a", "b")
        assert await h.flush()
        assert anyio.current_time() - start <= 61
        h.check(delivered=0, pending=0, dropped={"retry_time_exceeded": 2})


@virtual
async def test_retry_after_holds_every_request() -> None:
    def script(batch: Batch, number: int) -> Attempt:
        if number == 1:
            return Attempt(
                (RETRY,) * len(batch.rows), Failure.THROTTLED, "http 429", retry_after_seconds=40.0
            )
        return delivered(batch)

    h = harness(ScriptedDestination(script), retry_initial_seconds=0.5)
    async with h.running():
        h.capture("a")
        await anyio.sleep(2)
        h.capture("b")  # another batch, which has to wait as well
        flushed = await h.flush(10)  # and a flush does not overrule what Arthur asked for
        assert not flushed
        await anyio.sleep(60)
        times = [at for at, _ in h.destination.requests]
        assert len(times) >= 2
        assert times[1] - times[0] >= 40.0
        h.check(delivered=2, pending=0)


@virtual
async def test_a_malformed_answer_is_retried_and_then_rejected() -> None:
    h = harness(
        ScriptedDestination(
            lambda batch, _n: Attempt(
                (RETRY,) * len(batch.rows), Failure.MALFORMED, "malformed answer"
            )
        )
    )
    async with h.running():
        h.capture("a")
        await anyio.sleep(60)
        assert len(h.destination.requests) == 3
        assert h.ledger.malformed_answers == 3
        h.check(rejected=1, pending=0, rejected_reasons={"malformed answer": 1})


@virtual
async def test_a_request_without_an_answer_is_bounded_and_retried() -> None:
    async def never(batch: Batch) -> Attempt:
        await anyio.sleep_forever()
        return delivered(batch)

    def script(batch: Batch, number: int) -> Attempt | Awaitable[Attempt]:
        return never(batch) if number == 1 else delivered(batch)

    h = harness(ScriptedDestination(script), request_timeout_seconds=30.0)
    async with h.running():
        h.capture("a")
        await anyio.sleep(40)
        times = [at for at, _ in h.destination.requests]
        assert 30.0 <= times[1] - times[0] <= 31.0
        h.check(delivered=1, pending=0)


@virtual
async def test_a_destination_that_raises_costs_its_batch_and_not_the_worker() -> None:
    def script(batch: Batch, _number: int) -> Attempt:
        if batch.rows[0].id == "bad":
            raise RuntimeError("a bug in a destination")
        return delivered(batch)

    h = harness(ScriptedDestination(script), batch_size=1)
    async with h.running():
        h.capture("bad", "good")
        await anyio.sleep(60)
        h.check(delivered=1, rejected=1, pending=0)


def test_a_long_outage_costs_nothing_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="arthur_relay")
    back_at = 3600.0

    async def test() -> None:
        origin = 0.0

        def script(batch: Batch, _number: int) -> Attempt:
            gone = anyio.current_time() - origin < back_at
            return unavailable(batch) if gone else delivered(batch)

        h = harness(ScriptedDestination(script), breaker_max_seconds=30.0)
        async with h.running():
            origin = anyio.current_time()
            for number in range(360):
                h.capture(f"r{number}")
                await anyio.sleep(10)
            assert await h.flush()
            h.check(delivered=360, pending=0)
            # About one probe each half minute, and not one for each inference.
            assert len(h.destination.requests) < 250
            assert h.worker.sender.breaker.state is BreakerState.CLOSED

    run(test)
    texts = [record.getMessage() for record in caplog.records]
    assert [text for text in texts if "Arthur answered 503; inferences wait" in text] == texts[:1]
    assert [text for text in texts if "answers again" in text] == texts[1:2]
    assert len(texts) == 2


@virtual
async def test_a_flush_cuts_a_back_off_short() -> None:
    destination = ScriptedDestination(
        lambda batch, n: unavailable(batch) if n == 1 else delivered(batch)
    )
    h = harness(destination, retry_initial_seconds=600.0, retry_max_seconds=600.0)
    async with h.running():
        h.capture("a")
        await anyio.sleep(5)
        h.check(pending=1)
        assert await h.flush(5)
        h.check(delivered=1, pending=0)


@virtual
async def test_a_poisoned_model_does_not_stall_another() -> None:
    def script(batch: Batch, _number: int) -> Attempt:
        if batch.model_id == "poison":
            return Attempt((Outcome(Verdict.RETRY, "row 500"),) * len(batch.rows))
        return delivered(batch)

    h = harness(ScriptedDestination(script), batch_size=1, max_in_flight=2)
    async with h.running():
        h.capture("p1", "p2", "p3", model="poison")
        h.capture_many(20, model="good")
        await anyio.sleep(10)
        h.check(delivered=20, pending=3)


@virtual
async def test_what_waits_for_a_slot_sees_a_hold_that_came_meanwhile() -> None:
    def script(batch: Batch, number: int) -> Attempt:
        if number == 1:
            outcomes = (RETRY,) * len(batch.rows)
            return Attempt(outcomes, Failure.THROTTLED, "http 429", retry_after_seconds=40.0)
        return delivered(batch)

    h = harness(ScriptedDestination(script), batch_size=1, max_in_flight=1)
    async with h.running():
        h.capture_many(8)
        await anyio.sleep(100)
        times = [at for at, _ in h.destination.requests]
        assert times[1] - times[0] >= 40.0
        h.check(delivered=8, pending=0)


@virtual
async def test_many_flushes_are_no_storm_on_an_arthur_in_trouble() -> None:
    h = harness(ScriptedDestination(lambda batch, _n: unavailable(batch)))
    async with h.running():
        h.capture("a")
        for _ in range(1000):
            request = FlushRequest()
            h.worker.control(request)
            h.worker.wake()
            await anyio.sleep(0.01)
            request.done.cancel()  # as `Relay.flush` does when its time is up
        assert len(h.destination.requests) <= 20
        assert len(h.worker.flushes) <= 1  # the last one, until the next turn


@virtual
async def test_an_outage_that_ends_before_the_deadline_of_a_close_costs_nothing() -> None:
    back_at = float("inf")

    def script(batch: Batch, _number: int) -> Attempt:
        return delivered(batch) if anyio.current_time() >= back_at else unavailable(batch)

    h = harness(ScriptedDestination(script), retry_initial_seconds=30.0, breaker_failures=1)
    async with anyio.create_task_group() as group:
        group.start_soon(h.worker.run)
        await anyio.sleep(0.001)
        h.capture("a")
        await anyio.sleep(10)
        back_at = anyio.current_time() + 1.0
        h.worker.control(FlushRequest(closing=True))
        h.worker.wake()
        with anyio.fail_after(5.0):
            while h.ledger.totals().pending:
                await anyio.sleep(0.1)
    h.check(delivered=1, pending=0)


@virtual
async def test_a_split_batch_keeps_its_time() -> None:
    began = anyio.current_time()
    splits: list[int] = []

    def script(batch: Batch, _number: int) -> Attempt:
        if len(batch.rows) > 1 and anyio.current_time() - began > 60:
            splits.append(len(batch.rows))
            too_large = Outcome(Verdict.REJECTED, "http 413", 413)
            return Attempt((too_large,) * len(batch.rows), Failure.TOO_LARGE, "http 413")
        return unavailable(batch)

    # Without a breaker, which would have one row ask at a time.
    h = harness(ScriptedDestination(script), retry_max_elapsed_seconds=100, breaker_failures=1000)
    async with h.running():
        h.capture("a", "b")
        await anyio.sleep(140)  # after a split a time of their own would end at 160 and later
    assert splits == [2]
    h.check(captured=2, dropped={"retry_time_exceeded": 2}, pending=0)
    letters = h.dead_letters.letters()
    assert {letter.reason for letter in letters} == {"retry_time_exceeded"}
    assert min(letter.attempts for letter in letters) > 3  # those before the split included
