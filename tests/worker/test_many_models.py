"""Inferences may name any number of models that Arthur does not know: these are bounded too."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import anyio
import pytest

from arthur_relay import Inference, Relay, RelaySettings
from arthur_relay.errors import UnreachableError
from arthur_relay.testing import MemoryDestination
from arthur_relay.worker.schema_registry import MODELS_AT_ONCE
from tests.waiting import wait_for
from tests.worker.harness import ScriptedDestination, harness, virtual

if TYPE_CHECKING:
    from arthur_relay.destinations.scope.schema import ModelSchema

AWAY = "Arthur can't be reached at nowhere: refused"


class Picky(ScriptedDestination):
    """Tells of models whose name is good, and of all once it is back."""

    is_back = False

    async def fetch_schema(self, model_id: str) -> ModelSchema:
        found = await super().fetch_schema(model_id)
        if self.is_back or model_id.startswith("good"):
            return found
        raise UnreachableError(AWAY)


class Away(MemoryDestination):
    async def fetch_schema(self, model_id: str) -> ModelSchema:
        raise UnreachableError(f"{AWAY} ({model_id})")


@pytest.mark.one_python
@virtual
async def test_few_are_asked_for_at_the_same_time_and_all_in_the_end() -> None:
    arthur = Picky()
    h = harness(arthur, queue_bytes=1 << 26)
    async with h.running():
        for number in range(2000):
            h.capture(f"r{number}", model=f"bad{number}")
        await anyio.sleep(600)
        schemas = h.worker.schemas
        assert len(schemas._loading) == MODELS_AT_ONCE
        assert len(schemas._loading) + len(schemas._queued) == 2000
        assert len(arthur.schema_requests) < 10_000, "they back off, however many they are"
        assert len(schemas._unreachable) <= 1000
        arthur.is_back = True
        assert await h.flush(3600)
        h.check(delivered=2000, pending=0)
        assert h.worker.admission.awaiting.size == 0
        assert not schemas._loading
        assert not schemas._queued
        assert not schemas.unreachable


@pytest.mark.one_python
@virtual
async def test_models_without_an_answer_make_way_for_others() -> None:
    arthur = Picky()
    h = harness(arthur)
    async with h.running():
        for number in range(5 * MODELS_AT_ONCE):
            h.capture(f"bad{number}", model=f"bad{number}")
        await anyio.sleep(1)
        h.capture("good", model="good")
        await anyio.sleep(300)
        assert arthur.stored == ["good"]


@pytest.mark.one_python
@virtual
async def test_a_model_that_nothing_waits_for_any_more_is_not_asked_for() -> None:
    arthur = Picky()
    h = harness(arthur, queue_size=50)
    async with h.running():
        for number in range(500):
            h.capture(f"r{number}", model=f"bad{number}")
            await anyio.sleep(0.01)
        assert h.ledger.totals().dropped["overflow"] >= 400
        await anyio.sleep(3600)
        schemas = h.worker.schemas
        assert len(schemas._loading) + len(schemas._queued) <= 50 + MODELS_AT_ONCE
        arthur.is_back = True
        assert await h.flush(3600)
        h.check(pending=0, delivered=500 - h.ledger.totals().dropped["overflow"])


def test_what_they_take_is_accounted_for() -> None:
    settings = RelaySettings(queue_bytes=16 << 20)
    relay = Relay(Away(), settings=settings)
    relay.capture(Inference(input_text="a", output_text="b", model_id="first"))
    wait_for(lambda: relay._host.pipeline.worker.schemas.unreachable)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(10_000):
            name = f"unknown-model-{number:08d}"
            relay.capture(Inference(input_text="in", output_text="out", model_id=name))
            if number % 100 == 0:
                wait_for(lambda: len(relay._host.pipeline.queue) < 500)
        wait_for(lambda: len(relay._host.pipeline.queue) == 0)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        stats = relay.stats()
        relay.close(0)
    assert stats.pending > 2000
    assert stats.pending_bytes <= settings.queue_bytes
    assert taken < 1.1 * stats.pending_bytes, (taken, stats.pending_bytes)


def test_ids_are_accounted_for_by_their_length() -> None:
    def pending_bytes(length: int) -> int:
        relay = Relay(Away(), settings=RelaySettings())
        for number in range(100):
            name = f"{number:0{length}}"
            relay.capture(Inference(input_text="in", output_text="out", model_id=name))
        # Between the inlet and there, the worker has some in its hands.
        wait_for(lambda: relay._host.pipeline.worker.admission.awaiting.rows == 100)
        try:
            return relay.stats().pending_bytes
        finally:
            relay.close(0)

    assert pending_bytes(250) >= pending_bytes(10) + 100 * 240


@virtual
async def test_ids_that_no_model_can_have_are_not_asked_for_and_not_kept() -> None:
    arthur = Picky()
    h = harness(arthur)
    async with h.running():
        for number in range(20):
            h.capture(f"r{number}", model=f"{number}" + "x" * 100_000)
        h.capture("good", model="good")
        assert await h.flush(10)
        h.check(delivered=1, rejected=20, pending=0)
        assert len(arthur.schema_requests) == 1
        assert list(h.worker.schemas.inquiries._answers) == [("good", False)]
        assert not h.worker.schemas._once._logged
        assert all(letter.size > 100_000 for _, letter in h.letters.letters())
