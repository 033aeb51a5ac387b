"""Breaker, back-off and Retry-After: pure decisions, with time and randomness given."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arthur_relay.delivery.circuit_breaker import Breaker, BreakerState
from arthur_relay.delivery.retry import FullJitter, StopAfterElapsed
from arthur_relay.destinations.http import retry_after_seconds
from tests.randomness import Always

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def breaker(failures: int = 3) -> Breaker:
    return Breaker(
        failures=failures, first_wait_seconds=1.0, max_wait_seconds=8.0, random=Always(1.0)
    )


def test_the_breaker_opens_after_failures_in_a_row_only() -> None:
    b = breaker()
    assert [b.failed(0.0), b.failed(0.0)] == [False, False]
    b.succeeded()
    assert [b.failed(0.0), b.failed(0.0), b.failed(0.0)] == [False, False, True]
    assert b.state is BreakerState.OPEN
    assert not b.failed(0.0)  # it says so once


def test_one_probe_passes_and_the_wait_doubles_up_to_its_limit() -> None:
    b = breaker(failures=1)
    now, waits = 0.0, []
    b.failed(now)
    for _ in range(6):
        waits.append(b.admit(now))
        now += waits[-1]
        assert b.admit(now) == 0.0
        assert b.admit(now) == math.inf  # the others wait for the probe
        b.failed(now)
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    now += 8.0
    assert b.admit(now) == 0.0
    assert b.succeeded()
    assert b.admit(now) == 0.0
    assert not b.succeeded()
    b.failed(now)
    assert b.admit(now) == 1.0  # and the next outage begins with the first wait


def test_a_cancelled_probe_lets_another_one_pass() -> None:
    b = breaker(failures=1)
    b.failed(0.0)
    assert b.admit(1.0) == 0.0
    b.abandoned(1.0)
    assert b.admit(1.0) == 0.0
    b.succeeded()
    b.abandoned(1.0)
    assert b.state is BreakerState.CLOSED


def test_a_hold_stops_everything_and_a_flush_does_not_overrule_it() -> None:
    b = breaker(failures=1)
    b.hold(10.0)
    b.hold(5.0)  # a shorter one does not shorten it
    assert b.admit(4.0) == 6.0
    b.failed(4.0)
    b.probe_now(4.0)
    assert b.admit(4.0) == 6.0
    assert b.admit(10.0) == 0.0


def test_a_flush_makes_the_next_probe_due() -> None:
    b = breaker(failures=1)
    b.probe_now(0.0)
    b.failed(0.0)
    b.probe_now(0.0)
    assert b.admit(0.0) == 0.0


def state(attempt: int, upcoming: float = 0.0) -> Any:
    return SimpleNamespace(attempt_number=attempt, upcoming_sleep=upcoming)


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0.001, 10), st.floats(0.001, 100))
def test_full_jitter_stays_below_its_ceiling(
    attempt: int, chance: float, initial: float, maximum: float
) -> None:
    wait = FullJitter(initial_seconds=initial, max_seconds=maximum, random=Always(chance))
    assert 0.0 <= wait(state(attempt)) <= min(maximum, initial * 2.0 ** min(attempt - 1, 62))


def test_stop_looks_ahead_to_the_next_attempt() -> None:
    now = [0.0]
    stop = StopAfterElapsed(deadline=10.0, clock=lambda: now[0])
    assert not stop(state(1, upcoming=9.0))
    assert stop(state(1, upcoming=10.0))
    now[0] = 5.0
    assert stop(state(1, upcoming=5.0))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("99999999999999999999", 300.0),
        ("9" * 5000, 300.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("٣", None),  # a digit, and not one of HTTP's
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 12:00:30 -0000", 30.0),
        ("Sun, 22 Nov 2020 12:00:30 GMT", 0.0),
        ("Sun, 22 Nov 9999 12:00:30 GMT", 300.0),
        ("Sun, 99 Nov 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after(header: str | None, expected: float | None) -> None:
    assert retry_after_seconds(header, now=NOW, maximum=300.0) == expected


@given(st.text())
def test_retry_after_takes_any_text(text: str) -> None:
    found = retry_after_seconds(text, now=NOW, maximum=60.0)
    assert found is None or 0.0 <= found <= 60.0


@given(st.integers(-10_000, 10_000))
def test_retry_after_as_a_date_is_a_wait_from_now(seconds: int) -> None:
    moment = NOW + timedelta(seconds=seconds)
    text = moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert retry_after_seconds(text, now=NOW, maximum=1e6) == max(0, seconds)
