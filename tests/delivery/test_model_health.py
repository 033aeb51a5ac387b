"""Whom a failure is blamed on, by what is usual for its model."""

from __future__ import annotations

import pytest

from arthur_relay.delivery.circuit_breaker import Breaker
from arthur_relay.delivery.in_flight import Delivery, Lane
from arthur_relay.delivery.model_health import FAULTS_IN_A_ROW, Blame, ModelHealth
from arthur_relay.row import Row
from tests.randomness import Always


def model_health() -> ModelHealth:
    return ModelHealth(
        Breaker(failures=5, first_wait_seconds=1.0, max_wait_seconds=30.0, random=Always(1.0))
    )


def failed(found: ModelHealth, *, lane: Lane = Lane.ORDINARY, failures: int = 1) -> Blame:
    """Return whom a 500 is blamed on."""
    delivery = Delivery((Row("a", "m", b"{}"),), lane, seen=found.passes).state
    delivery.failures, delivery.status = failures, 500
    return found.blame(delivery, is_down=False)


def faults_until_another_is_to_blame(found: ModelHealth) -> int:
    count = 0
    while failed(found) is Blame.ROWS:
        count += 1
        assert count < 1000
    return count


@pytest.mark.parametrize(("usual", "most"), [(0, 30), (1, 45), (6, 120), (100, 300)])
def test_more_faults_in_a_row_are_its_rows_where_that_is_usual(usual: int, most: int) -> None:
    found = model_health()
    for _ in range(200):
        for _ in range(usual):
            failed(found)
        found.passed("m")
    assert faults_until_another_is_to_blame(found) == pytest.approx(most, abs=1)


def test_what_is_usual_is_forgotten_when_it_is_so_no_more() -> None:
    found = model_health()
    for _ in range(200):
        for _ in range(6):
            failed(found)
        found.passed("m")
    for _ in range(100):
        found.passed("m")
    assert faults_until_another_is_to_blame(found) == FAULTS_IN_A_ROW


def test_a_row_that_fails_alone_again_and_again_counts_for_nothing() -> None:
    found = model_health()
    found.passed("m")
    for _ in range(1000):
        assert failed(found, lane=Lane.ISOLATED, failures=2) is Blame.ROWS
    assert faults_until_another_is_to_blame(found) == FAULTS_IN_A_ROW
