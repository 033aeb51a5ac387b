"""Requests in flight follow what the destination can take; breaker and Retry-After sit above."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arthur_relay.delivery.concurrency import ConcurrencyLimit
from arthur_relay.row import Attempt, Batch, Failure, Outcome, Verdict
from tests.worker.harness import ScriptedDestination, delivered, harness, virtual

pytestmark = pytest.mark.one_python

EVENTS = st.lists(
    st.tuples(st.sampled_from(["ok", "failed", "late failed"]), st.floats(0.0, 100.0)), max_size=200
)


@given(st.integers(1, 256), EVENTS)
def test_the_limit_stays_between_one_and_the_maximum(
    maximum: int, events: list[tuple[str, float]]
) -> None:
    limit = ConcurrencyLimit(maximum)
    assert limit.requests == maximum
    first = limit.begin()
    for event, seconds in events:
        match event:
            case "ok":
                limit.succeeded(limit.begin(), seconds=seconds, size=1000)
            case "failed":
                limit.failed(limit.begin())
            case _:
                limit.failed(first)
        assert 1 <= limit.requests <= maximum


def test_failures_of_one_round_halve_the_limit_once_and_a_round_of_answers_adds_one() -> None:
    limit = ConcurrencyLimit(64)
    together = [limit.begin() for _ in range(64)]
    for began_in in together:
        limit.failed(began_in)
    assert limit.requests == 32
    for _ in range(33):
        limit.succeeded(limit.begin(), seconds=0.01, size=1000)
    assert limit.requests == 33


def test_answers_that_become_slow_ease_the_limit_and_good_times_follow_slowly() -> None:
    limit = ConcurrencyLimit(20)
    for _ in range(50):
        limit.succeeded(limit.begin(), seconds=0.2, size=1000)
    assert limit.requests == 20
    for _ in range(60):
        limit.succeeded(limit.begin(), seconds=1.0, size=1000)
    eased = limit.requests
    assert eased < 10
    for _ in range(800):  # it stays that slow: that is how this destination is now
        limit.succeeded(limit.begin(), seconds=1.0, size=1000)
    assert limit.requests > eased


def test_one_cause_makes_the_limit_smaller_once() -> None:
    limit = ConcurrencyLimit(16)
    for _ in range(160):
        limit.succeeded(limit.begin(), seconds=0.1, size=1000)
    for began_in in [limit.begin() for _ in range(16)]:
        limit.succeeded(began_in, seconds=0.3, size=1000)
    assert limit.requests == 12
    for _ in range(12):  # all is as before, but the mean is not yet
        limit.succeeded(limit.begin(), seconds=0.1, size=1000)
        assert limit.requests >= 12


def test_what_stays_slow_is_learned_one_request_at_a_time() -> None:
    limit = ConcurrencyLimit(16)
    for _ in range(50):
        limit.succeeded(limit.begin(), seconds=0.1, size=1000)
    answers = 0
    while limit.requests > 1:
        limit.succeeded(limit.begin(), seconds=1.0, size=1000)
        answers += 1
    assert answers < 80  # a fifth less for each full round
    for _ in range(30):  # ten times as long as ever, and it is not our doing
        limit.succeeded(limit.begin(), seconds=1.0, size=1000)
    assert limit.requests >= 4


def test_what_is_slow_under_load_does_not_become_the_good_times() -> None:
    limit = ConcurrencyLimit(16)
    for _ in range(50):
        limit.succeeded(limit.begin(), seconds=0.1, size=1000)
    seen = []
    for _ in range(1_000):  # now eight are served at once, and the others wait
        limit.succeeded(limit.begin(), seconds=0.1 * max(1.0, limit.requests / 8), size=1000)
        seen.append(limit.requests)
    assert min(seen) >= 8
    assert max(seen[-100:]) < 16


@pytest.mark.parametrize("sigma", [0.2, 0.5, 0.8, 1.2])
def test_answers_that_vary_by_themselves_are_not_slow(sigma: float) -> None:
    draw = random.Random(7)
    limit = ConcurrencyLimit(16)
    seen = []
    for _ in range(200):  # rounds
        together = [limit.begin() for _ in range(limit.requests)]
        for began_in in together:
            seconds = 0.2 * draw.lognormvariate(0.0, sigma)
            limit.succeeded(began_in, seconds=seconds, size=1000)
        seen.append(limit.requests)
    assert sum(seen) / len(seen) > 14


def test_good_times_are_not_a_matter_of_luck_while_few_requests_are_on_their_way() -> None:
    seen = []
    for seed in range(20):
        draw = random.Random(seed)
        limit = ConcurrencyLimit(16)
        for number in range(220):  # rounds
            for began_in in [limit.begin() for _ in range(limit.requests)]:
                seconds = 0.2 * draw.lognormvariate(0.0, 0.5)
                limit.succeeded(began_in, seconds=seconds, size=1000)
            if number < 100 and limit.requests > 4:
                limit.failed(limit.begin())
            elif number >= 120:
                seen.append(limit.requests)
    assert sum(seen) / len(seen) > 15.5


def test_the_limit_stays_longer_just_below_what_was_too_much() -> None:
    limit = ConcurrencyLimit(16)

    def rounds_until(requests: int) -> int:
        rounds = 0
        while limit.requests < requests:
            for _ in range(limit.requests):
                limit.succeeded(limit.begin(), seconds=0.01, size=1000)
            rounds += 1
        return rounds

    limit.failed(limit.begin())
    rounds_until(12)
    limit.failed(limit.begin())
    assert limit.requests == 6
    assert rounds_until(11) <= 7
    assert rounds_until(12) == 4
    assert rounds_until(16) <= 6  # it was not too much after all


def test_what_is_fast_is_never_slow() -> None:
    limit = ConcurrencyLimit(8)
    for number in range(200):
        limit.succeeded(limit.begin(), seconds=0.001 if number % 7 else 0.04, size=1000)
    assert limit.requests == 8


def test_a_large_request_may_take_longer_than_a_small_one() -> None:
    limit = ConcurrencyLimit(8)
    for _ in range(100):
        limit.succeeded(limit.begin(), seconds=0.1, size=2_000)
        limit.succeeded(limit.begin(), seconds=0.9, size=2_000_000)
    assert limit.requests == 8


@dataclass
class Server:
    """Serves so many requests at once, a tenth of a second each, and answers 429 to the others."""

    capacity: int
    busy: int = 0
    served: int = 0
    refused: int = 0
    seconds: float = 0.1
    queues: bool = False
    in_flight: list[int] = field(default_factory=list)

    async def answer(self, batch: Batch) -> Attempt:
        self.busy += 1
        self.in_flight.append(self.busy)
        try:
            if self.busy > self.capacity and not self.queues:
                await anyio.sleep(0.01)
                self.refused += 1
                outcomes = (Outcome(Verdict.RETRY, "http 429"),) * len(batch.rows)
                return Attempt(outcomes, Failure.THROTTLED, "http 429")
            await anyio.sleep(self.seconds * max(1.0, self.busy / self.capacity))
            self.served += 1
            return delivered(batch)
        finally:
            self.busy -= 1


@virtual
async def test_requests_in_flight_follow_a_capacity_that_changes() -> None:
    server = Server(capacity=16)
    destination = ScriptedDestination(lambda batch, _n: server.answer(batch))
    h = harness(
        destination, batch_size=1, max_in_flight=32, retry_initial_seconds=0.05, queue_bytes=1 << 30
    )
    async with h.running():
        h.capture_many(14_000)
        for capacity in (16, 4, 24):
            server.capacity = capacity
            await anyio.sleep(5)  # time to find out
            server.served = server.refused = 0
            server.in_flight.clear()
            await anyio.sleep(10)
            possible = capacity * 10 / server.seconds
            assert server.served > 0.7 * possible
            assert server.refused < 0.2 * server.served
            assert max(server.in_flight) <= 1.5 * capacity + 2


@virtual
async def test_requests_in_flight_follow_answers_that_become_slow() -> None:
    server = Server(capacity=4, queues=True)
    destination = ScriptedDestination(lambda batch, _n: server.answer(batch))
    h = harness(destination, batch_size=1, max_in_flight=4, retry_initial_seconds=0.05)
    async with h.running():
        h.capture_many(5_000)
        await anyio.sleep(10)
        server.capacity = 1  # the same requests take four times as long, and would all wait
        server.in_flight.clear()
        await anyio.sleep(20)
        assert sum(server.in_flight) / len(server.in_flight) < 3.0
