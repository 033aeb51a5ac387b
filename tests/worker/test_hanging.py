"""Models for which Arthur never answers keep places, and cost no other model its own."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from arthur_relay.row import Attempt, Batch
from arthur_relay.settings import MOST_HANGING
from tests.worker.harness import Harness, ScriptedDestination, delivered, harness, run, virtual

TIME_OUT = 30.0
"""The default of `request_timeout_seconds`."""


class Hanging(ScriptedDestination):
    """Never answers for models whose name begins with `bad`; notes how many wait for it."""

    most_at_once = 0

    def __init__(self) -> None:
        super().__init__(self.answer)
        self.at_once: Counter[str] = Counter()
        self.is_over = False
        self.hangs_for = "bad"

    async def answer(self, batch: Batch, _number: int) -> Attempt:
        self.at_once[batch.model_id] += 1
        self.most_at_once = max(self.most_at_once, self.at_once.total())
        try:
            await anyio.sleep(0.05)
            if batch.model_id.startswith(self.hangs_for) and not self.is_over:
                await anyio.sleep_forever()
        finally:
            self.at_once[batch.model_id] -= 1
        return delivered(batch)


async def seconds_until(h: Harness, stored: int, *, limit: float) -> float:
    began_at = anyio.current_time()
    with anyio.fail_after(limit):
        while len(h.destination.stored) < stored:
            await anyio.sleep(0.1)
    return anyio.current_time() - began_at


@pytest.mark.parametrize("places", [1, 4, 16])
@pytest.mark.parametrize("bad", [1, 40, 200])
def test_models_that_hang_cost_nothing_to_one_that_goes_well(bad: int, places: int) -> None:
    rows = max(2, 4000 // bad)

    async def test() -> None:
        arthur = Hanging()
        h = harness(arthur, batch_size=50, max_in_flight=places, queue_size=100_000)
        async with h.running():
            h.capture_many(100, model="good")
            assert await h.flush(10)
            for number in range(bad):
                h.capture_many(rows, model=f"bad{number}-")
            await anyio.sleep(5)
            for turn in range(20):
                h.capture_many(200, model="good")
                assert await seconds_until(h, 300 + 200 * turn, limit=100) < 10
                await anyio.sleep(7)
            assert arthur.most_at_once <= places + MOST_HANGING + 4
            arthur.is_over = True
            assert await h.flush()
            h.check(delivered=4100 + rows * bad, pending=0, rejected=0)

    run(test)


@pytest.mark.parametrize("bad", [1, 5, 40, 200])
def test_nor_much_to_one_that_was_never_seen(bad: int) -> None:
    """Nothing was ever answered, so it may be Arthur that hangs."""

    async def test() -> None:
        arthur = Hanging()
        h = harness(arthur, batch_size=50, queue_size=100_000)
        async with h.running():
            for number in range(bad):
                h.capture_many(60, model=f"bad{number}-")
            await anyio.sleep(5)
            h.capture_many(1000, model="good")
            seconds = await seconds_until(h, 1000, limit=3000)
            print(bad, seconds, arthur.most_at_once)
            assert seconds < 4 * TIME_OUT

    run(test)
