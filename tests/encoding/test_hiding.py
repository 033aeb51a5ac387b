"""What is told of a capture's texts when they are hidden, or cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arthur_relay.encoding.privacy import HIDDEN
from tests.encoding.rows_under_privacy import MAIL, Told, calls, failed_run, inference, logprobs
from tests.encoding.runs import generation, make_run


def whole_run(**fields: Any) -> Any:
    return make_run(
        prompt="canary-in",
        generations=[
            generation(
                text="canary-out",
                logprobs=logprobs("canary-out"),
                tool_calls=calls(a="canary-out"),
                finish_reason="stop",
            )
        ],
        metadata={"user": "u", "error": "canary-error"},
        tags=["t"],
        **fields,
    )


def test_inputs_are_hidden() -> None:
    told = Told(whole_run(), hide_inputs=True)
    assert "canary-in" not in told.wire
    assert told.data["input_text"] == HIDDEN
    assert told.data["output_text"] == "canary-out"
    assert told.data["output_tokens"] == ["canary-out"]
    assert "canary-out" in told.data["tool_calls"]
    assert told.data["error"] == HIDDEN  # the application's, which may quote the prompt


def test_outputs_are_hidden_with_tokens_and_tool_calls() -> None:
    told = Told(whole_run(), hide_outputs=True)
    assert "canary-out" not in told.wire
    assert told.data["output_text"] == told.data["tool_calls"] == HIDDEN
    assert told.data["input_text"] == "canary-in"
    assert "output_tokens" not in told.data
    assert "output_likelihoods" not in told.data
    assert (told.data["user"], told.data["tags"], told.data["finish_reason"]) == (
        "u",
        ["t"],
        "stop",
    )
    assert told.omitted == []


@pytest.mark.parametrize("hidden", ["hide_inputs", "hide_outputs"])
@pytest.mark.parametrize(
    ("error", "kept"),
    [
        ("ValueError: canary-in: and more", "ValueError"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("ValueError: \ncanary", "ValueError"),
    ],
)
def test_of_an_error_the_type_is_kept(hidden: str, error: str, kept: str) -> None:
    assert Told(failed_run(error), **{hidden: True}).data["error"] == kept


def test_what_is_hidden_of_an_inference() -> None:
    attributes = {
        "error": "canary",
        "tool_calls": calls(a="canary"),
        "output_tokens": ["canary"],
        "output_likelihoods": [{"canary": 1.0}],
        "input_tokens": ["canary"],
        "user": "mine",
    }
    capture = inference(input_text="canary", output_text="canary", attributes=attributes)
    told = Told(capture, hide_inputs=True, hide_outputs=True)
    assert "canary" not in told.wire
    assert told.data == {
        "input_text": HIDDEN,
        "output_text": HIDDEN,
        "error": HIDDEN,
        "tool_calls": HIDDEN,
        "outcome": "ok",
        "user": "mine",
    }


def test_hidden_texts_are_not_given_to_redactors_and_the_others_are() -> None:
    seen: list[str] = []

    def look(text: str) -> str:
        seen.append(text)
        return text

    attributes = {"user": "mine"}
    Told(
        inference(attributes=attributes),
        redact=look,
        hide_inputs=True,
        hide_outputs=True,
    )
    assert seen == ["mine"]


@given(st.text(max_size=400), st.integers(64, 600))
def test_texts_are_cut_on_a_character_border_and_marked(text: str, limit: int) -> None:
    told: str = Told(inference(input_text=text), max_text_bytes=limit).data["input_text"]
    sent = text.replace("\x00", "")
    if len(text.encode()) <= limit:
        assert told == sent
        return
    kept, note, rest = told.partition("… [cut by arthur-relay, ")
    assert note
    assert rest == f"{len(text.encode())} bytes before]"
    assert sent.startswith(kept)
    assert len(told.encode()) <= limit


def test_every_text_is_cut_after_it_is_redacted() -> None:
    long = "z" * 100 + MAIL
    run = failed_run(
        f"ValueError: {long}",
        prompt=long,
        generations=[generation(text=long, tool_calls=calls(a=long))],
        metadata={"user": long, "topics": [long], "note": [long]},
        tags=[long],
    )
    told = Told(run, max_text_bytes=120, redact=lambda text: text.replace("z", ""))
    assert told.data["input_text"] == told.data["user"] == MAIL
    cut = Told(run, max_text_bytes=100)
    for name in ("input_text", "output_text", "error", "tool_calls", "user", "note"):
        assert len(cut.data[name].encode()) <= 100, name
        assert "cut by arthur-relay" in cut.data[name], name
    for name in ("topics", "tags"):
        assert "cut by arthur-relay" in cut.data[name][0], name
