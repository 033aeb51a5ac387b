"""The back-off: it doubles up to the longest wait, however many failures there were."""

from __future__ import annotations

import pytest

from arthur_relay.system.back_off import ceiling_seconds, upper_half

pytestmark = pytest.mark.one_python


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0.5), (1, 1.0), (4, 8.0), (5, 10.0), (1000, 10.0), (10**9, 10.0)]
)
def test_the_ceiling(failures: int, seconds: float) -> None:
    assert ceiling_seconds(failures, first_seconds=0.5, longest_seconds=10.0) == seconds


def test_the_upper_half() -> None:
    assert [upper_half(10.0, random) for random in (0.0, 0.5, 1.0)] == [5.0, 7.5, 10.0]
