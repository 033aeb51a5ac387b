"""What is told of a capture's texts when they are redacted, and when a redactor fails."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from arthur_relay import (
    ArthurCallbackHandler,
    Health,
    HealthStatus,
    Inference,
    RelaySettings,
    Stats,
)
from arthur_relay.destinations.scope.encoder import Encoder
from arthur_relay.encoding.omissions import NoOmissions
from arthur_relay.encoding.privacy import CUT_ERROR_CHARACTERS, WITHHELD, Privacy
from arthur_relay.inference import MAX_ERROR_CHARACTERS, GenerationSnapshot
from arthur_relay.testing import memory_relay
from tests.encoding.rows_under_privacy import (
    CARD,
    MAIL,
    MARK,
    Told,
    calls,
    failed_run,
    inference,
    logprobs,
)
from tests.encoding.runs import SCHEMA, generation, make_run


def test_nothing_is_done_unless_it_is_asked_for() -> None:
    assert Privacy.of(RelaySettings(), lambda: None) is None
    assert Privacy.of(RelaySettings(redact="none"), lambda: None) is None
    assert Encoder(SCHEMA, NoOmissions())._privacy is None


def test_handlers_with_the_same_redactor_share_a_relay() -> None:
    def handler(redact: Any) -> ArthurCallbackHandler:
        settings = RelaySettings(disabled=True, redact=redact)
        return ArthurCallbackHandler.from_credentials("m", settings=settings)

    assert handler(raises).relay is handler(raises).relay
    assert handler([raises, "all"]).relay is handler([raises, "all"]).relay
    assert handler(raises).relay is not handler(panics).relay


# --- Redaction --------------------------------------------------------------------------------


def test_every_text_of_a_run_is_redacted() -> None:
    run = failed_run(
        f"ValueError: no user {MAIL}",
        prompt=f"I am {MAIL}",
        generations=[generation(text=f"Hello {MAIL}", tool_calls=calls(to=[MAIL], card=CARD))],
        metadata={
            "user": MAIL,
            "note": {"from": [MAIL, {MAIL: 1}], "card": CARD, "rest": [0.5, True, None]},
            "topics": [MAIL, "news"],
            "model_name": MAIL,
            "account": CARD,
        },
        tags=[f"for {MAIL}", "prod"],
    )
    told = Told(run, redact="email,credit_card")
    assert MAIL not in told.wire
    assert told.data["input_text"] == f"I am {MARK}"
    assert told.data["output_text"] == f"Hello {MARK}"
    assert told.data["error"] == f"ValueError: no user {MARK}"
    assert json.loads(told.data["tool_calls"])[0]["args"] == {
        "to": [MARK],
        "card": "[redacted: credit_card]",
    }
    assert json.loads(told.data["note"]) == {
        "from": [MARK, {MARK: 1}],
        "card": "[redacted: credit_card]",
        "rest": [0.5, True, None],
    }
    assert (told.data["user"], told.data["topics"]) == (MARK, [MARK, "news"])
    assert told.data["tags"] == [f"for {MARK}", "prod"]
    assert told.data["model_name"] == MARK  # the application's, because the run told none
    assert told.data["account"] == CARD  # a number that the model has registered as one
    assert (told.failures, told.omitted) == (0, [])


def test_every_text_of_an_inference_is_redacted() -> None:
    attributes = {"user": CARD, "error": MAIL, "tool_calls": calls(to=MAIL), "outcome": MAIL}
    told = Told(inference(input_text=MAIL, output_text=MAIL, attributes=attributes), redact="all")
    assert MAIL not in told.wire
    assert str(CARD) not in told.wire
    assert json.loads(told.data["tool_calls"])[0]["args"] == {"to": MARK}


def test_what_the_relay_and_the_provider_say_is_not_redacted() -> None:
    run = make_run(generations=[generation(finish_reason="stop", model_name="gpt")], tags=["t"])
    told = Told(run, redact=lambda _text: "x").data
    assert (told["finish_reason"], told["model_name"], told["outcome"]) == ("stop", "gpt", "ok")
    assert (told["input_text"], told["output_text"], told["tags"]) == ("x", "x", ["x"])
    assert Told(inference(), redact=lambda _text: "x").data["outcome"] == "ok"


def test_a_time_stays_one() -> None:
    moment = "2026-01-02T03:04:05+00:00"
    told = Told(inference(attributes={"since": moment}), redact=lambda _text: "x")
    assert told.data["since"] == moment


def test_redactors_work_one_after_the_other() -> None:
    told = Told(inference(input_text=MAIL), redact=["email", str.upper, lambda t: t + "!"])
    assert told.data["input_text"] == f"{MARK.upper()}!"


def test_a_secret_with_a_nul_in_it_is_found() -> None:
    told = Told(inference(input_text="alice@exam\x00ple.com"), redact="email")
    assert told.data["input_text"] == MARK
    odd = Told(inference(), redact=lambda text: text + "\x00\ud800")
    assert odd.data["input_text"] == "in\ufffd"


def test_tokens_are_left_out_when_the_output_is_not_told() -> None:
    tokens = ("alice", "@", "example", ".", "com")
    run = make_run(generations=[generation(text=MAIL, logprobs=logprobs(*tokens))])
    told = Told(run, redact="email")
    assert "alice" not in told.wire
    assert told.omitted == ["output_tokens", "output_likelihoods"]
    cut = Told(
        make_run(generations=[generation(text="a" * 99, logprobs=logprobs("a" * 99))]),
        max_text_bytes=64,
    )
    assert cut.omitted == ["output_tokens", "output_likelihoods"]


def test_tokens_are_left_out_when_they_spell_out_what_the_output_does_not() -> None:
    # The output is empty, as it is beside a tool call; and a candidate may be a secret by itself.
    spelled = generation(text="", logprobs=logprobs("al", "ice@", "example.", "com"))
    assert "ice@" not in Told(make_run(generations=[spelled]), redact="email").wire
    candidate = generation(text="hi", logprobs=logprobs("hi", other=MAIL))
    told = Told(make_run(generations=[candidate]), redact="email")
    assert told.data["output_tokens"] == ["hi"]
    assert told.omitted == ["output_likelihoods"]


def test_tokens_that_tell_nothing_stay() -> None:
    for settings in ({"redact": "all"}, {"max_text_bytes": 64}, {"hide_inputs": True}):
        run = make_run(generations=[generation(text="hi you", logprobs=logprobs("hi", " you"))])
        told = Told(run, **settings)
        assert told.data["output_tokens"] == ["hi", " you"]
        assert [*told.data["output_likelihoods"][0]] == ["hi", "?"]


def test_tokens_that_the_application_gives_are_looked_at_as_well() -> None:
    tokens = ["al", "ice@", "example.", "com"]
    attributes = {
        "output_tokens": tokens,
        "output_likelihoods": [{token: 1.0} for token in tokens],
        "input_tokens": tokens,
    }
    told = Told(inference(attributes=attributes), redact="email")
    assert "ice@" not in told.wire
    assert sorted(told.omitted) == ["input_tokens", "output_likelihoods", "output_tokens"]
    run = make_run(generations=[generation()], metadata={"input_tokens": tokens})
    assert "ice@" not in Told(run, redact="email").wire


def test_an_error_that_was_cut_may_end_in_half_a_secret() -> None:
    def told(text: str, **settings: Any) -> str:
        error = f"ValueError: {text[:MAX_ERROR_CHARACTERS]}"  # as the callback does it
        found: str = Told(failed_run(error), **settings).data["error"]
        return found

    secret = "x" * (MAX_ERROR_CHARACTERS - 10) + " 4111 1111 1111 1111"
    assert "4111" not in told(secret, redact="credit_card")
    assert told(secret, redact="credit_card").endswith("x…")
    assert told("y" * 5000, redact="email")[:-1] == "ValueError: " + "y" * (
        MAX_ERROR_CHARACTERS - CUT_ERROR_CHARACTERS
    )
    assert told(secret, max_text_bytes=10_000).endswith("x 4111 1111")
    assert told("short", redact="email") == "ValueError: short"

    def fails(_text: str) -> str:
        raise ValueError

    assert told(secret, redact=fails) == WITHHELD


# --- Failing closed ---------------------------------------------------------------------------


def raises(text: str) -> str:
    raise ValueError(f"can't redact {text}")


def panics(text: str) -> str:
    raise BaseException(text)


@pytest.mark.parametrize(
    "redactor",
    [raises, panics, lambda _text: None, lambda text: text.encode(), ["email", lambda _text: 5]],
)
def test_a_redactor_that_fails_costs_the_text(
    redactor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    run = failed_run(
        "ValueError: canary",
        prompt="canary",
        generations=[
            generation(
                text="canary", logprobs=logprobs("can", "ary"), tool_calls=calls(a=["canary"])
            )
        ],
        metadata={"user": "canary", "topics": ["canary"], "note": {"a": "canary"}},
        tags=["canary"],
    )
    told = Told(run, redact=redactor)
    assert "canary" not in told.wire
    assert told.data["input_text"] == told.data["output_text"] == told.data["error"] == WITHHELD
    assert told.data["tags"] == [WITHHELD]
    assert told.failures >= 7
    assert told.omitted == ["output_tokens", "output_likelihoods"]
    (record,) = caplog.records
    assert "redactor" in record.getMessage()
    assert "canary" not in record.getMessage()
    assert record.exc_info is None


def test_one_text_that_fails_costs_no_other() -> None:
    def picky(text: str) -> str:
        if "bad" in text:
            raise ValueError(text)
        return text

    told = Told(inference(input_text="bad", output_text="good"), redact=picky)
    assert (told.data["input_text"], told.data["output_text"]) == (WITHHELD, "good")
    assert told.failures == 1


def test_several_rows_of_a_run_are_all_looked_at() -> None:
    generations = [GenerationSnapshot(text=f"{n} {MAIL}") for n in range(3)]
    told = Told(make_run(generations=generations), redact="email")
    assert [row["output_text"] for row in told.rows] == [f"{n} {MARK}" for n in range(3)]


def told_by_a_relay(**settings: Any) -> tuple[Stats, Health]:
    relay, _destination = memory_relay(
        settings=RelaySettings(flush_interval_seconds=0.01, **settings)
    )
    with relay:
        relay.capture(Inference(input_text="canary", output_text=""))
        relay.flush(30)
        return relay.stats(), relay.health()


def test_stats_and_health_tell_of_failures_and_of_the_sample() -> None:
    stats, health = told_by_a_relay(redact=raises)
    assert (stats.delivered, stats.redaction_failures) == (1, 2)
    assert health.status is HealthStatus.DEGRADED
    assert "2 texts were withheld" in health.detail
    stats, health = told_by_a_relay(sample_rate=0.0)
    assert (stats.delivered, stats.dropped) == (0, {"sampled": 1})
    assert health.status is HealthStatus.OK
    assert "and 0 dropped, 1 are not in the sample" in health.detail
