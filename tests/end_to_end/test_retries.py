"""Retries that are more than one fault at a time; those are in the table of `test_faults.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arthur_relay import ConfigurationError, Relay, RelaySettings
from arthur_relay.sandbox import ArthurSandbox
from tests.end_to_end.conftest import QUICK, capture, check_invariant

if TYPE_CHECKING:
    from collections.abc import Callable


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
    relay.close(0.0)  # else it would hope for an answer until its deadline


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


def test_a_login_that_is_refused_later_is_told_once_in_a_sentence(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay], caplog: pytest.LogCaptureFixture
) -> None:
    relay = make_relay()
    relay.connect(sandbox.model_id)
    sandbox.faults.expire_tokens()
    sandbox.faults.status(401, times=None, routes=("login",))  # its password was changed
    for name in ("a", "b"):
        capture(relay, name)
        assert relay.flush(0.5).timed_out  # it waits until the password is right
    advice = f"Arthur refused the login {sandbox.login}: check the login and its password"
    assert relay.health().status == "failing"
    assert advice in relay.health().detail
    assert sum(advice in record.getMessage() for record in caplog.records) == 1
    assert (relay.stats().pending, list(relay.dead_letters())) == (2, [])
    sandbox.faults.reset()
    capture(relay, "c")
    assert relay.flush(30).delivered == 3
    assert relay.health().status == "ok"
    check_invariant(relay, sandbox)
