"""The sink's capacity, on a clock of its own: served, waiting, refused, step by step."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import count
from statistics import mean

import httpx
import pytest

from tests.benchmarks.results import Cells
from tests.benchmarks.sink import Sink
from tests.benchmarks.sink.capacity import SERVICE_SECONDS, Capacity, Step, varied
from tests.benchmarks.workloads import adapting


class Clock:
    """Time that passes when a test says so, and what is to be called then."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = count()
        self._calls: list[tuple[float, int, Callable[[], None]]] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (self.now + seconds, next(self._numbers), call))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._calls and self._calls[0][0] <= end:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        self.now = end


class Requests:
    """Requests to a capacity, each of two records and a second of work."""

    def __init__(self, *steps: Step) -> None:
        self.clock = Clock()
        self.heard: list[str] = []
        self.capacity = Capacity(
            list(steps),
            now=lambda: self.clock.now,
            call_later=self.clock.call_later,
            service_seconds=lambda: 1.0,
        )

    def send(self, *names: str) -> None:
        for name in names:
            self.capacity.take(
                2,
                serve=lambda name=name: self.heard.append(name),  # type: ignore[misc] # its default
                refuse=lambda name=name: self.heard.append(f"no {name}"),  # type: ignore[misc] # same
            )


def test_beyond_the_capacity_requests_wait_and_beyond_twice_it_they_are_refused() -> None:
    requests = Requests(Step(2, 60.0))
    requests.send(*"abcde")
    assert requests.heard == ["no e"]
    requests.clock.advance(1.0)
    assert requests.heard == ["no e", "a", "b"]
    requests.clock.advance(1.0)
    assert requests.heard == ["no e", "a", "b", "c", "d"]
    [tally] = requests.capacity.tallies
    assert (tally.requests, tally.refused, tally.records) == (5, 1, 8)
    assert tally.seconds == [1.0, 1.0, 2.0, 2.0]
    assert tally.to_json()["p50_ms"] == 1500.0


def test_a_step_goes_over_into_the_next_one() -> None:
    requests = Requests(Step(1, 1.5), Step(3, 10.0), Step(1, 10.0))
    requests.clock.advance(100.0)  # it begins with the first request
    requests.send("a", "b")
    requests.clock.advance(1.6)
    requests.send("c", "d", "e")  # b is being served since 1.0
    requests.clock.advance(1.1)
    assert requests.heard == ["a", "b", "c", "d"]
    requests.clock.advance(7.0)
    first, second = requests.capacity.tallies
    assert (first.records, second.records) == (2, 8)
    assert (first.begun, second.begun) == (100.0, 101.5)


def test_more_capacity_takes_up_what_waits() -> None:
    requests = Requests(Step(1, 0.5), Step(1, 10.0))
    requests.send("a", "b")
    requests.capacity._steps[1] = Step(2, 10.0)
    requests.clock.advance(1.5)
    assert requests.heard == ["a", "b"]


def test_after_the_last_step_everything_is_served_at_once() -> None:
    requests = Requests(Step(1, 1.2))
    requests.send("a", "b")
    requests.clock.advance(1.2)
    requests.send(*"cdefg")
    assert requests.heard == ["a", *"cdefg"]
    requests.clock.advance(1.0)
    assert requests.heard[-1] == "b"
    assert sum(tally.records for tally in requests.capacity.tallies) == 2


def test_services_vary_around_their_mean() -> None:
    draw = random.Random(1)
    seconds = sorted(varied(draw) for _ in range(20_000))
    assert mean(seconds) == pytest.approx(SERVICE_SECONDS, rel=0.02)
    assert seconds[18_000] / seconds[10_000] == pytest.approx(1.9, rel=0.05)


def test_a_sink_refuses_and_tells() -> None:
    with Sink() as sink, httpx.Client(timeout=20) as client:
        sink.limit([(0, 60.0)])
        url = f"{sink.url}/api/v3/models/model/inferences"
        body = b'[{"partner_inference_id": "a"}]'
        assert client.post(url, content=body).status_code == 429
        [tally] = sink.tallies()
        assert (tally["requests"], tally["refused"], tally["records"]) == (1, 1, 0)
        sink.limit([(1, 60.0)])
        assert client.post(url, content=body).status_code == 207
        [tally] = sink.tallies()
        assert (tally["requests"], tally["refused"], tally["records"]) == (1, 0, 1)
        assert tally["p50_ms"] > 0
        sink.limit(None)
        assert sink.tallies() == []
        assert client.post(url, content=body).status_code == 207
        assert sink.counts().records == 1


def cells_with(rate: float, refused: float) -> Cells:
    """An adaptive relay that comes to this, beside fixed ones that come to 100 and 150."""
    cells = Cells()
    for variant, value in (("fixed 1", 100.0), ("fixed 4", 150.0), (adapting.ADAPTIVE, rate)):
        for case in ("1. 8 at once", adapting.ALL_STEPS):
            sample = {"delivered_per_second": value, "refused_percent": refused, "p50_ms": 1.0}
            cells.cell(case, variant).samples.append(sample)
    cells.cell(adapting.COURSE, adapting.ADAPTIVE).samples.append(
        {"seconds": 0.0, "limit": 16.0, "at_once": 8.0}
    )
    return cells


@pytest.mark.parametrize(
    ("rate", "refused", "reached"),
    [
        (121.0, 4.9, [True, True]),
        (119.0, 4.9, [False, True]),
        (121.0, 5.1, [True, False]),
    ],
)
def test_the_adaptive_relay_is_judged_by_the_best_fixed_one(
    rate: float, refused: float, reached: list[bool]
) -> None:
    section = adapting.WORKLOAD.section(cells_with(rate, refused))
    assert [figure.reached for figure in section.figures] == reached
    assert "those of fixed 4" in section.figures[0].what
    assert [table.title for table in section.tables] == ["1. 8 at once", "All steps"]


def test_the_course_is_the_limit_and_the_capacity_of_the_moment() -> None:
    tallies = [{"begun": 10.0, "at_once": 8}, {"begun": 12.0, "at_once": 2}]
    moments = [(9.0, 16), (10.5, 16), (12.5, 4)]
    assert adapting._course(moments, tallies) == [
        {"seconds": 0.5, "limit": 16, "at_once": 8},
        {"seconds": 2.5, "limit": 4, "at_once": 2},
    ]
