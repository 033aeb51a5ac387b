"""The retry matrix: what each answer of Arthur makes the relay do, counted at a real server.

Three rows are captured and travel in one request. The table says what the server does, how many
requests that carried rows it then saw, and what became of the rows. It is the specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from arthur_relay import ConfigurationError, Relay, RelaySettings
from arthur_relay.sandbox import ArthurSandbox
from tests.http.conftest import QUICK, capture, check_invariant, logins, posts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arthur_relay.sandbox import Faults


@dataclass(frozen=True)
class Case:
    """What the server does, and what then happens.

    Attributes:
        fault: Sets the server up.
        requests: Requests that carried rows, all attempts counted.
        delivered: Rows of the three that were delivered.
        rejected: Reasons of those that were rejected.
        duplicates: Rows that the server stored twice over, where an answer was lost.
        logins: Logins in all.
    """

    fault: Callable[[Faults], object]
    requests: int
    delivered: int = 3
    rejected: Mapping[str, int] | None = None
    duplicates: int = 0
    logins: int = 1


def refused(status: int) -> Case:
    return Case(
        lambda faults: faults.status(status, times=None),
        requests=1,
        delivered=0,
        rejected={f"http {status}": 3},
    )


def wrong_length_and_a_failed_row(faults: Faults) -> None:
    faults.wrong_length(-1, times=1)
    faults.fail_rows(containing="c", status=500, times=1)


def transient(status: int) -> Case:
    return Case(lambda faults: faults.status(status, times=2), requests=3)


MATRIX = {
    "all is well": Case(lambda faults: None, requests=1),
    # Statuses that can pass by themselves are tried again.
    "408": transient(408),
    "425": transient(425),
    "429": transient(429),
    "500": transient(500),
    "502": transient(502),
    "503": transient(503),
    "504": transient(504),
    "a redirect is not followed": Case(
        lambda faults: faults.redirect("http://127.0.0.1:9/", times=2), requests=3
    ),
    # What Arthur asks for is obeyed; that it is a minimum is tested on the virtual clock.
    "429 with seconds": Case(
        lambda faults: faults.status(429, retry_after="0", times=1), requests=2
    ),
    "503 with a date": Case(
        lambda faults: faults.status(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT", times=1),
        requests=2,
    ),
    "429 with nonsense": Case(
        lambda faults: faults.status(429, retry_after="soon", times=1), requests=2
    ),
    # Other 4xx can't be helped by trying again.
    "400": refused(400),
    "402": refused(402),
    "403": refused(403),
    "404": refused(404),
    "409": refused(409),
    "422": refused(422),
    # 401 logs in again, once.
    "401 once": Case(lambda faults: faults.status(401, times=1), requests=2, logins=2),
    "401 for ever": Case(
        lambda faults: faults.status(401, times=None),
        requests=2,
        delivered=0,
        rejected={"http 401": 3},
        logins=2,
    ),
    "an expired token": Case(lambda faults: faults.expire_tokens(), requests=2, logins=2),
    # 413 splits: 3 -> 1 + 2 -> 1 + 1, as long as it is answered.
    "413 once": Case(lambda faults: faults.status(413, times=1), requests=3),
    # Rows are mapped one by one; only failed ones are sent again.
    "a row that is at fault": Case(
        lambda faults: faults.fail_rows(containing="b", status=400),
        requests=1,
        delivered=2,
        rejected={"row 400": 1},
    ),
    "rows that Arthur could not store": Case(
        lambda faults: faults.fail_rows([500, 200, 429], times=1), requests=2
    ),
    # Answers that do not say what became of the rows are tried again, three times in all.
    "not JSON": Case(lambda faults: faults.not_json(times=2), requests=3),
    "not JSON for ever": Case(
        lambda faults: faults.not_json(times=None),
        requests=3,
        delivered=0,
        rejected={"malformed answer": 3},
    ),
    "results of another length, and the counts say that all is stored": Case(
        lambda faults: faults.wrong_length(-1, times=1), requests=1
    ),
    "results of another length, and the counts do not": Case(
        wrong_length_and_a_failed_row,
        requests=2,
        duplicates=2,
    ),
    "counts that disagree are not believed": Case(
        lambda faults: faults.wrong_counts(1, times=1), requests=1
    ),
    # Transport.
    "the connection is cut": Case(lambda faults: faults.cut(times=2), requests=3),
    "cut in mid-body": Case(lambda faults: faults.cut_midbody(times=1), requests=2, duplicates=3),
    "stored, then cut: the answer is lost": Case(
        lambda faults: faults.cut(times=1, store=True), requests=2, duplicates=3
    ),
}


@pytest.mark.parametrize("name", MATRIX)
def test_matrix(name: str, sandbox: ArthurSandbox, make_relay: Callable[..., Relay]) -> None:
    case = MATRIX[name]
    # Not before all three are there do they set off, in one request.
    relay = make_relay(flush_interval_seconds=3600.0)
    relay.connect(sandbox.model_id)
    case.fault(sandbox.faults)
    capture(relay, "a", "b", "c")
    result = relay.flush(30)
    assert not result.timed_out
    found = Case(
        case.fault,
        requests=posts(sandbox),
        delivered=result.delivered,
        rejected=dict(relay.stats().rejected_reasons) or None,
        duplicates=sandbox.duplicates,
        logins=logins(sandbox),
    )
    assert found == case
    assert relay.stats().requests == case.requests - (case.logins - 1)
    check_invariant(relay, sandbox)


def test_no_answer_within_the_time_for_one(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(flush_interval_seconds=3600.0, request_timeout_seconds=0.3)
    relay.connect(sandbox.model_id)
    # Stored at once, and answered only when the fault is taken away: the answers are lost.
    sandbox.faults.hang(times=2, store=True)
    capture(relay, "a", "b", "c")
    result = relay.flush(30)
    assert (result.delivered, result.rejected, result.timed_out) == (3, 0, False)
    assert relay.stats().requests == 3
    assert relay.stats().retries == 2
    assert sandbox.duplicates == 6
    assert logins(sandbox) == 1
    check_invariant(relay, sandbox)


def test_413_splits_down_to_rows_and_cuts_what_is_too_large_alone() -> None:
    with (
        ArthurSandbox(max_body_bytes=20_000) as sandbox,
        Relay.from_credentials(
            sandbox.model_id,
            sandbox.url,
            sandbox.login,
            sandbox.password,
            settings=RelaySettings(**{**QUICK, "flush_interval_seconds": 3600.0}),
        ) as relay,
    ):
        capture(relay, *[f"r{number}" for number in range(40)], text="x" * 900)
        capture(relay, "huge", text="y" * 100_000)
        result = relay.flush(60)
        assert (result.delivered, result.rejected, result.pending) == (41, 0, 0)
        (huge,) = [r for r in sandbox.inferences if r["partner_inference_id"] == "huge"]
        assert "cut by arthur-relay" in huge["inference_data"]["input_text"]
        check_invariant(relay, sandbox)


def test_an_outage_of_the_server_itself(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay()
    relay.connect(sandbox.model_id)
    capture(relay, "before")
    relay.flush(30)
    sandbox.go_away()
    capture(relay, "during")
    assert relay.flush(0.2).timed_out
    assert relay.health().status in ("failing", "degraded")
    sandbox.come_back()
    assert relay.flush(60).delivered == 2
    assert relay.health().status == "ok"
    check_invariant(relay, sandbox)


@pytest.mark.parametrize("route", ["login", "users", "models"])
def test_retry_after_is_obeyed_on_every_route(
    route: str, sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    sandbox.faults.status(429, retry_after="3600", times=None, routes=(route,))
    relay = make_relay(connect_timeout_seconds=0.05)
    relay.connect(sandbox.model_id)
    capture(relay, "a")
    assert relay.flush(0.5).timed_out  # with these settings that is a hundred back-offs
    assert sum(request.status == 429 for request in sandbox.requests) == 1
    check_invariant(relay, sandbox)


def test_a_model_that_is_refused_for_good_is_not_asked_for_again(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    sandbox.faults.status(402, times=None, routes=("models",))
    relay = make_relay()
    with pytest.raises(
        ConfigurationError, match=rf"refused to tell of model {sandbox.model_id} .402"
    ):
        relay.connect(sandbox.model_id)
    capture(relay, "a")
    assert relay.flush(30).rejected == 1
    assert dict(relay.stats().rejected_reasons) == {"model refused": 1}
    assert sum(request.status == 402 for request in sandbox.requests) == 1
