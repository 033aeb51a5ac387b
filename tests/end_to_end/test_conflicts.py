"""409: a row that Arthur has already, because an answer was lost; or somebody else's id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arthur_relay.delivery.possibly_delivered import PossiblyDelivered
from arthur_relay.row import DELIVERED, RECOVERED, Attempt, Failure, History, Outcome, Row, Verdict
from tests.end_to_end.conftest import capture

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay import Relay
    from arthur_relay.sandbox import ArthurSandbox


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("lost", ["cut", "cut_midbody", "503", "not understood"])
def test_of_a_row_that_was_sent_before_it_says_that_it_is_delivered(
    lost: str, whole: bool, sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay()
    match lost:
        case "cut":
            sandbox.faults.cut(store=True)
        case "cut_midbody":
            sandbox.faults.cut_midbody()
        case "503":
            sandbox.faults.status(503, store=True)
        case _:
            sandbox.faults.not_json(store=True)
    if whole:
        sandbox.faults.status(409)
    else:  # nothing is stored by the first one then, but who asks can't know
        sandbox.faults.fail_rows([409], times=2)
    capture(relay, "a")
    result = relay.flush(30)
    assert (result.delivered, result.rejected) == (1, 0)
    assert list(relay.dead_letters()) == []


def test_several_rows_of_a_request_that_is_refused_as_a_whole(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(flush_interval_seconds=3600.0)
    sandbox.faults.cut(store=True)
    sandbox.faults.status(409, times=None)
    capture(relay, "a", "b", "c")
    assert relay.flush(30).delivered == 3


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("away", [False, True])
def test_of_a_row_that_was_never_sent_it_is_a_rejection(
    away: bool, whole: bool, sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay()
    if whole:
        sandbox.faults.status(409)
    else:
        sandbox.faults.fail_rows([409], times=1)
    if away:
        sandbox.go_away()
    capture(relay, "a")
    if away:
        assert relay.flush(0.2).pending == 1
        sandbox.come_back()
    result = relay.flush(30)
    assert (result.delivered, result.rejected) == (0, 1)


@pytest.mark.parametrize(
    "old",
    [
        Row("old", "m", b"{}", history=History(attempts=2)),
        Row("old", "m", b"{}", history=History(deaths=1)),
        Row("old", "m", b"{}", RECOVERED),
    ],
    ids=["in vain", "at a death", "perhaps, before a kill"],
)
def test_a_row_that_another_life_sent_was_sent_before(old: Row) -> None:
    new = Row("new", "m", b"{}")
    conflict = Outcome(Verdict.REJECTED, "row 409", 409)
    unheard = PossiblyDelivered.of((old, new))
    found = unheard.judge(Attempt((conflict, conflict)), (old, new))
    assert found.outcomes == (DELIVERED, conflict)
    refused = Attempt((conflict, conflict), Failure.REFUSED)
    assert unheard.judge(refused, (old, new)) is refused  # nobody can say which is meant
