"""Medians, spreads and paired ratios of repetitions; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """What repetitions came to."""

    median: float
    low: float
    """A quarter of the repetitions are below it."""
    high: float
    """A quarter of the repetitions are above it."""
    repetitions: int

    @property
    def percent(self) -> float:
        """The range of the middle half, in percent of the median."""
        return 100 * (self.high - self.low) / abs(self.median) if self.median else 0.0

    @property
    def margin(self) -> float:
        """How far off the median may be, nineteen times in twenty.

        The notch of a box plot: McGill, Tukey and Larsen, "Variations of Box Plots", 1978.
        """
        return 1.57 * (self.high - self.low) / math.sqrt(self.repetitions)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie, between two of them if need be.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def spread(values: Sequence[float]) -> Spread | None:
    """Median and spread; None when there are no values."""
    if not values:
        return None
    return Spread(
        statistics.median(values), percentile(values, 25), percentile(values, 75), len(values)
    )


def paired_ratios(measured: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Each repetition over the baseline's of the same round.

    The machine's mood of a round is in both and cancels out; medians compared with each other would
    keep it. Rounds that only one of the two has, or in which the baseline is nothing, are left out.
    """
    return [value / base for value, base in zip(measured, baseline, strict=False) if base]


def paired_differences(measured: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Each repetition less the baseline's of the same round."""
    return [value - base for value, base in zip(measured, baseline, strict=False)]
