"""The worker pauses when it has computed for long while others compute, and not otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field

from arthur_relay.worker.gil import (
    LOOK_SECONDS,
    PAUSE_SECONDS,
    RUSH_SECONDS,
    SLICE_SECONDS,
    GilYielder,
)


@dataclass
class Clock:
    """Time, the CPU time of others, and the pauses that were made."""

    now: float = 100.0
    cpu: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def compute(self, seconds: float, *, others: float = 0.0) -> None:
        self.now += seconds
        self.cpu += others

    def seconds(self) -> float:
        return self.now

    def of_others(self) -> float:
        return self.cpu

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


def pace_of(clock: Clock) -> GilYielder:
    return GilYielder(clock)


def test_it_pauses_after_a_slice_while_others_compute() -> None:
    clock = Clock()
    gil = pace_of(clock)
    for _ in range(20):
        clock.compute(SLICE_SECONDS * 0.3, others=SLICE_SECONDS * 0.1)
        gil.maybe_yield(lambda: False)
    assert clock.pauses == [PAUSE_SECONDS] * 5  # after each fourth


def test_it_does_not_pause_for_nobody() -> None:
    clock = Clock()
    gil = pace_of(clock)
    clock.compute(LOOK_SECONDS)
    gil.maybe_yield(lambda: False)
    for _ in range(200):
        clock.compute(SLICE_SECONDS, others=SLICE_SECONDS / 1000)
        gil.maybe_yield(lambda: False)
    assert clock.pauses == []
    clock.compute(LOOK_SECONDS, others=LOOK_SECONDS / 2)  # someone comes
    gil.maybe_yield(lambda: False)
    assert clock.pauses == [PAUSE_SECONDS]


def test_in_a_rush_it_computes_for_longer() -> None:
    clock = Clock()
    gil = pace_of(clock)
    clock.compute(RUSH_SECONDS * 0.9, others=1.0)
    gil.maybe_yield(lambda: True)
    assert clock.pauses == []
    clock.compute(RUSH_SECONDS * 0.2)
    gil.maybe_yield(lambda: True)
    assert clock.pauses == [PAUSE_SECONDS]
