"""Medians, spreads and paired ratios."""

from __future__ import annotations

import pytest

from tests.benchmarks.ratios import paired_differences, paired_ratios, percentile, spread


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.5),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 25, 2.0),
        (list(range(101)), 99, 99.0),
        ([7.0], 99, 7.0),
        ([1.0, 9.0], 100, 9.0),
    ],
)
def test_a_percentile_lies_between_its_neighbours(
    values: list[float], percent: float, expected: float
) -> None:
    assert percentile(values, percent) == pytest.approx(expected)


def test_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_the_spread_is_the_middle_half_and_one_outlier_does_not_count() -> None:
    found = spread([1.0, 2.0, 3.0, 4.0, 1000.0])
    assert found is not None
    assert found == (3.0, 2.0, 4.0, 5)
    assert found.percent == pytest.approx(100 * 2 / 3)


def test_the_spread_of_equal_repetitions_is_nothing() -> None:
    found = spread([5.0, 5.0, 5.0])
    assert found is not None
    assert found.percent == 0


def test_no_spread_of_nothing() -> None:
    assert spread([]) is None
    nothing = spread([0.0, 0.0])
    assert nothing is not None
    assert nothing.percent == 0


def test_a_paired_ratio_does_not_see_the_machines_mood() -> None:
    mood = [1.0, 3.0, 2.0, 10.0]
    baseline = [2.0 * each for each in mood]
    measured = [2.2 * each for each in mood]
    assert paired_ratios(measured, baseline) == pytest.approx([1.1] * 4)


def test_rounds_that_only_one_has_are_left_out() -> None:
    assert paired_ratios([2.0, 4.0], [1.0, 1.0, 1.0]) == [2.0, 4.0]
    assert paired_differences([2.0, 4.0, 8.0], [1.0]) == [1.0]


def test_a_baseline_of_nothing_makes_no_ratio() -> None:
    assert paired_ratios([2.0, 4.0], [0.0, 2.0]) == [2.0]


def test_the_margin_shrinks_with_the_repetitions() -> None:
    few, many = spread([1.0, 2.0, 3.0, 4.0]), spread([1.0, 2.0, 3.0, 4.0] * 25)
    assert few is not None
    assert many is not None
    assert few.margin == pytest.approx(1.57 * 1.5 / 2)
    assert many.margin < few.margin / 4
