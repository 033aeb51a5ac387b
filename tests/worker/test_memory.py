"""What is done with leaves nothing in memory, also while Python's collector does not come by."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import anyio
import pytest

from arthur_relay.delivery.in_flight import Delivery
from arthur_relay.row import Attempt, Batch, Row
from tests.worker.harness import ScriptedDestination, delivered, harness, run, unavailable


@pytest.fixture
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def rows_in_memory() -> int:
    return sum(type(each) is Row for each in gc.get_objects())


@pytest.mark.usefixtures("_without_collector")
def test_a_delivery_that_failed_first_leaves_no_row_behind() -> None:
    def script(batch: Batch, number: int) -> Attempt:
        failed = unavailable(batch)
        lost = Attempt(failed.outcomes, failed.failure, failed.reason, may_have_arrived=True)
        return lost if number <= 4 else delivered(batch)

    async def deliver() -> None:
        h = harness(ScriptedDestination(script))
        async with h.running():
            h.capture(*[f"{number}" for number in range(100)])
            await anyio.sleep(1000)
            h.check(delivered=100, pending=0)
            # tenacity's policies are still there, in cycles, and what they were given
            assert sum(type(each) is Delivery for each in gc.get_objects()) > 0
            assert rows_in_memory() == before

    before = rows_in_memory()
    run(deliver)
