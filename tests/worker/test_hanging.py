"""Models for which Arthur never answers keep places, and cost no other model its own."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from arthur_relay.delivery.probes import MOST_PROBES
from arthur_relay.row import Attempt, Batch
from arthur_relay.settings import MOST_HANGING
from tests.worker.harness import (
    ScriptedDestination,
    delivered,
    harness,
    run,
    seconds_until,
    virtual,
)

pytestmark = pytest.mark.one_python

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


@pytest.mark.parametrize(("bad", "places"), [(1, 1), (40, 1), (5, 4), (200, 4), (40, 16)])
def test_models_that_hang_cost_nothing_to_one_that_goes_well(bad: int, places: int) -> None:
    rows = max(20, 1000 // bad)

    async def test() -> None:
        arthur = Hanging()
        h = harness(arthur, batch_size=10, max_in_flight=places, queue_size=100_000)
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
            assert arthur.most_at_once <= 2 * places + MOST_HANGING + 4
            arthur.is_over = True
            assert await h.flush()
            h.check(delivered=4100 + rows * bad, pending=0, rejected=0)

    run(test)


@pytest.mark.parametrize("bad", [1, 5, 40, 200])
def test_nor_much_to_one_that_was_never_seen(bad: int) -> None:
    """Nothing was ever answered, so it may be Arthur that hangs."""

    async def test() -> None:
        arthur = Hanging()
        h = harness(arthur, batch_size=10, queue_size=100_000)
        async with h.running():
            for number in range(bad):
                h.capture_many(20, model=f"bad{number}-")
            await anyio.sleep(5)
            h.capture_many(200, model="good")
            seconds = await seconds_until(h, 200, limit=3000)
            assert seconds < 4 * TIME_OUT

    run(test)


@virtual
async def test_models_that_went_well_and_hang_all_at_once_cost_no_other() -> None:
    arthur = Hanging()
    arthur.is_over = True
    h = harness(arthur, batch_size=10, queue_size=100_000)
    async with h.running():
        for number in range(100):
            h.capture_many(20, model=f"bad{number}-")
        h.capture_many(20, model="good")
        assert await h.flush(30)
        arthur.is_over = False
        for number in range(100):
            h.capture_many(20, model=f"bad{number}-")
        await anyio.sleep(5)
        for turn in range(20):
            h.capture_many(20, model="good")
            seconds = await seconds_until(h, 2020 + 20 * (turn + 1), limit=1000)
            assert seconds < (3 * TIME_OUT if turn == 0 else 1)
            await anyio.sleep(10)


@virtual
async def test_requests_that_hang_are_bounded_however_many_models_do() -> None:
    arthur = Hanging()
    arthur.is_over = True
    h = harness(arthur, batch_size=10, queue_size=100_000, request_timeout_seconds=300.0)
    async with h.running():
        for _ in range(2):
            for number in range(400):
                h.capture_many(10, model=f"bad{number}-")
            if arthur.is_over:
                assert await h.flush(100)
            arthur.is_over = False
        await anyio.sleep(290)
        assert 64 < arthur.most_at_once <= 4 + 128


@virtual
async def test_a_model_that_hangs_is_held_after_one_time_out() -> None:
    arthur = Hanging()
    h = harness(arthur, batch_size=50)
    async with h.running():
        h.capture_many(1000, model="bad")
        for number in range(40):
            h.capture_many(1, model=f"good{number}-")
            await anyio.sleep(1)
        assert h.worker.sender.held_models.startswith("nothing of one model can be delivered")
        before = len(h.destination.requests)
        await anyio.sleep(600)
        assert len(h.destination.requests) - before <= 600 / (30 + 15)
        assert arthur.at_once["bad"] <= 1


@virtual
async def test_an_arthur_that_hangs_opens_the_breaker_and_has_few_requests() -> None:
    arthur = Hanging()
    h = harness(arthur, batch_size=50)
    async with h.running():
        h.capture_many(1000, model="bad")
        await anyio.sleep(3 * TIME_OUT)
        assert h.worker.sender.is_down
        assert arthur.most_at_once <= 4
        before = len(h.destination.requests)
        for _ in range(600):
            await anyio.sleep(1)
            assert arthur.at_once.total() <= 2
        assert len(h.destination.requests) - before <= 600 / 20
        arthur.is_over = True
        assert await h.flush(100)
        h.check(delivered=1000, pending=0)


@pytest.mark.parametrize("bad", [5, 40, 200])
def test_one_that_recovers_beside_others_that_hang_is_found(bad: int) -> None:
    """Arthur as a whole hung, and then for all but one of many models."""

    async def test() -> None:
        arthur = Hanging()
        arthur.hangs_for = ""
        h = harness(arthur, batch_size=10, queue_size=100_000)
        async with h.running():
            for number in range(bad):
                h.capture_many(10, model=f"bad{number}-")
            h.capture_many(100, model="good")
            await anyio.sleep(300)
            assert h.worker.sender.is_down
            assert arthur.at_once.total() <= 1 + MOST_PROBES
            arthur.hangs_for = "bad"
            seconds = await seconds_until(h, 100, limit=100_000)
            assert seconds < 12 * TIME_OUT

    run(test)
