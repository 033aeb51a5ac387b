"""The worker's beginnings and ends: schemas that come late, closing, dying, coming back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any

import anyio
import pytest

from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.errors import CredentialsError, ModelError, UnreachableError
from arthur_relay.row import Attempt, Batch
from arthur_relay.testing import LLM_ATTRIBUTES
from arthur_relay.worker.flush import FlushRequest
from arthur_relay.worker.model_inquiries import ANSWERS_KEPT, REFUSAL_SECONDS
from arthur_relay.worker.worker import SWEEP_SECONDS
from tests.worker.harness import (
    ScriptedDestination,
    delivered,
    harness,
    run,
    unreachable,
    virtual,
)


@virtual
async def test_inferences_wait_while_arthur_can_not_tell_the_schema() -> None:
    destination = ScriptedDestination(schema_errors=unreachable(5))
    h = harness(destination, retry_initial_seconds=10.0)
    async with h.running():
        ids = h.capture_many(20)
        await anyio.sleep(5)
        h.check(pending=20)
        assert h.worker.budget.buffered > 0
        await anyio.sleep(1000)
        assert sorted(destination.stored) == sorted(ids)
        h.check(delivered=20, pending=0)
        assert h.worker.budget.buffered == 0


@virtual
async def test_staged_captures_are_bounded_too() -> None:
    destination = ScriptedDestination(schema_errors=unreachable(3))
    h = harness(destination, retry_initial_seconds=100.0, queue_size=10)
    async with h.running():
        for number in range(50):
            h.capture(f"r{number}")
            await anyio.sleep(0.01)
        await anyio.sleep(2)
        h.check(pending=10, dropped={"overflow": 40})
        await anyio.sleep(1000)
        assert destination.stored == [f"r{number}" for number in range(40, 50)]


@virtual
async def test_one_unknown_model_does_not_hold_up_another() -> None:
    class Destination(ScriptedDestination):
        async def fetch_schema(self, model_id: str) -> ModelSchema:
            if model_id == "later":
                raise UnreachableError("not now")
            return await super().fetch_schema(model_id)

    h = harness(Destination())
    async with h.running():
        h.capture("x", model="later")
        h.capture("y", model="now")
        await anyio.sleep(5)
        h.check(delivered=1, pending=1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelError("no such model"), "unknown model"),
        (CredentialsError("no"), "credentials refused"),
    ],
)
def test_a_model_that_arthur_refuses_rejects_its_inferences(error: Exception, reason: str) -> None:
    async def test() -> None:
        destination = ScriptedDestination(schema_errors=[error])
        h = harness(destination)
        async with h.running():
            h.capture("a", "b")
            assert await h.flush()
            h.capture("c")
            assert await h.flush()
            h.check(rejected=3, pending=0, rejected_reasons={reason: 3})
            assert len(destination.schema_requests) == 1  # not asked anew for each inference
            assert h.worker.schemas.refused == reason
            await anyio.sleep(REFUSAL_SECONDS + SWEEP_SECONDS)
            assert h.worker.schemas.refused == ""  # health() does not tell of it for ever
            h.capture("d")  # and it is asked again: someone may have registered the model
            await anyio.sleep(5)
            h.check(delivered=1, rejected=3)

    run(test)


@virtual
async def test_an_inference_without_a_model_is_rejected() -> None:
    h = harness()
    async with h.running():
        h.capture("a", model="")
        assert await h.flush()
        h.check(rejected=1, pending=0, rejected_reasons={"no model id": 1})


@virtual
async def test_a_given_schema_is_not_asked_for() -> None:
    h = harness()
    async with h.running():
        h.worker.schemas.give(ModelSchema("m", LLM_ATTRIBUTES))
        h.worker.wake()
        h.capture("a")
        assert await h.flush()
        assert h.destination.schema_requests == []
        h.check(delivered=1)


@virtual
async def test_a_question_gets_the_first_answer_and_the_worker_keeps_asking() -> None:
    h = harness(ScriptedDestination(schema_errors=unreachable(2)))
    async with h.running():
        first = h.worker.schemas.ask("m")
        second = h.worker.schemas.ask("m")
        h.worker.wake()
        await anyio.sleep(0.01)
        assert isinstance(first.exception(0), UnreachableError)
        assert isinstance(second.exception(0), UnreachableError)
        await anyio.sleep(100)
        third = h.worker.schemas.ask("m")
        h.worker.wake()
        await anyio.sleep(0.01)
        assert third.result(0) is None


@virtual
async def test_a_question_whose_asker_has_gone_harms_no_one() -> None:
    h = harness(ScriptedDestination(schema_errors=unreachable(1)))
    async with h.running():
        h.worker.schemas.ask("m").cancel()
        h.worker.wake()
        h.capture("a")
        assert await h.flush()
        h.check(delivered=1)


@virtual
async def test_closing_ends_the_worker_when_all_is_settled() -> None:
    h = harness()
    async with anyio.create_task_group() as group:
        group.start_soon(h.worker.run)
        await anyio.sleep(0.001)
        h.capture("a")
        request = FlushRequest(closing=True)
        h.worker.control(request)
        h.worker.wake()
    assert request.done.done()
    h.check(delivered=1, pending=0)


@virtual
async def test_a_worker_that_dies_in_mid_delivery_comes_back_and_loses_nothing() -> None:
    release = anyio.Event()

    async def stuck(batch: Batch) -> Attempt:
        await release.wait()
        return delivered(batch)

    def script(batch: Batch, number: int) -> Attempt | Awaitable[Attempt]:
        return stuck(batch) if number <= 2 else delivered(batch)

    h = harness(ScriptedDestination(script), batch_size=2)
    ids = h.capture_many(7)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(h.worker.run)
            await anyio.sleep(5)
            h.check(pending=4, delivered=3)
            scope.cancel()
    h.check(pending=4, delivered=3)
    async with h.running():
        assert await h.flush()
        assert sorted(h.destination.stored) == sorted(ids)
        h.check(pending=0, delivered=7)
        assert h.destination.entered == 2


def test_what_can_not_be_encoded_is_dropped_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        h = harness()
        async with h.running():
            h.capture("fine")
            for _ in range(3):
                unencodable: Any = _Unencodable()
                h.queue.put(unencodable)
            assert await h.flush()
            h.check(delivered=1, pending=0, dropped={"unencodable": 3})

    caplog.set_level(logging.INFO, logger="arthur_relay")
    run(test)
    assert len([r for r in caplog.records if "could not be encoded" in r.getMessage()]) == 1


class _Unencodable:
    """Something that is neither a run nor an inference."""

    model_id = "m"
    size = 10
    rows = 1


@virtual
async def test_a_bug_in_telling_a_model_costs_no_one_the_worker() -> None:
    destination = ScriptedDestination(schema_errors=[RuntimeError("a bug")])
    h = harness(destination)
    async with h.running():
        h.capture("a")
        await anyio.sleep(10)
        h.check(delivered=1, pending=0)
        assert len(destination.schema_requests) == 2


@virtual
async def test_a_worker_that_died_while_it_asked_asks_again() -> None:
    class Stuck(ScriptedDestination):
        async def fetch_schema(self, model_id: str) -> ModelSchema:
            if self.entered == 1:
                await anyio.sleep_forever()
            return await super().fetch_schema(model_id)

    h = harness(Stuck())
    h.capture("a")
    with anyio.move_on_after(5):
        await h.worker.run()
    h.check(pending=1)
    async with h.running():
        assert await h.flush(10)
        h.check(delivered=1, pending=0)


@virtual
async def test_refusals_are_remembered_up_to_a_number() -> None:
    count = ANSWERS_KEPT + 200
    h = harness(ScriptedDestination(schema_errors=[ModelError("no such model")] * count))
    async with h.running():
        for number in range(count):
            h.capture("a", model=f"wrong {number}")
        assert await h.flush(60)
        refusals = [h.worker.schemas.refusal(f"wrong {number}") for number in range(count)]
        assert count - refusals.count(None) == ANSWERS_KEPT
    h.check(captured=count, rejected=count, pending=0)
