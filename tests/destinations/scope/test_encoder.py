"""Encoding: whatever a run holds, its rows are ones that Arthur takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arthur_relay.destinations.scope.encoder import Encoder
from arthur_relay.destinations.scope.schema import Attribute, ModelSchema
from arthur_relay.encoding.omissions import NoOmissions
from arthur_relay.encoding.plain_values import clean_text
from arthur_relay.encoding.text import sendable, truncate_text
from arthur_relay.inference import CapturedInference, Inference, RunOutcome
from arthur_relay.sandbox.validation import check_inference
from tests.encoding.runs import (
    CHAT,
    COMPLETION,
    JUDGE,
    RUN_ID,
    SCHEMA,
    data,
    encode,
    generation,
    make_run,
)
from tests.omissions import Omitted


def test_a_run_of_one_generation() -> None:
    (row,) = encode(make_run(generations=[generation()], first_token_at=10.25))
    assert row == {
        "inference_timestamp": "2027-01-15T08:00:00+00:00",
        "partner_inference_id": str(RUN_ID),
        "inference_data": {
            "input_text": "prompt",
            "output_text": "answer",
            "duration": 1.5,
            "time_to_first_token": 0.25,
            "outcome": "ok",
        },
    }


def test_an_answer_that_is_no_text_is_told_as_one() -> None:
    def told(value: Any) -> Any:
        given = Inference(input_text="in", output_text=value)
        (row,) = encode(CapturedInference(given, "id", "m", captured_at=0.0))
        return row["inference_data"]["output_text"]

    assert [told(value) for value in (None, 5, 1.5, ["a"])] == ["", "5", "1.5", "['a']"]
    # Of more than 4,300 digits, which Python refuses to write.
    assert told(16**5_000) == "0x1" + 5_000 * "0"


def test_several_generations_have_ids_of_their_own() -> None:
    rows = encode(make_run(generations=[generation(text=text) for text in "abc"]))
    assert [row["partner_inference_id"] for row in rows] == [
        str(RUN_ID),
        f"{RUN_ID}-1",
        f"{RUN_ID}-2",
    ]
    assert [row["inference_data"]["output_text"] for row in rows] == ["a", "b", "c"]


def test_only_registered_attributes_are_sent() -> None:
    small = ModelSchema(
        "m",
        [
            Attribute("in", "UNSTRUCTURED_TEXT", "PIPELINE_INPUT"),
            Attribute("out", "UNSTRUCTURED_TEXT", "PREDICTED_VALUE"),
            Attribute("session_id", "STRING", "NON_INPUT_DATA"),
        ],
    )
    run = make_run(
        generations=[generation(finish_reason="stop", logprobs=CHAT)],
        metadata={"session_id": "s", "secret": "x"},
    )
    (row,) = encode(run, small)
    assert row["inference_data"] == {"in": "prompt", "out": "answer", "session_id": "s"}


def test_metadata_never_stands_in_for_what_the_run_itself_says() -> None:
    run = make_run(
        generations=[generation()],
        metadata={"duration": 99.0, "input_text": "no", "output_tokens": ["no"], "user_id": "u"},
    )
    found = data(run)
    assert found["duration"] == 1.5
    assert found["input_text"] == "prompt"
    assert "output_tokens" not in found
    assert found["user_id"] == "u"


def test_metadata_tells_what_the_run_itself_does_not() -> None:
    run = make_run(generations=[generation()], metadata={"model_name": "mine"})
    assert data(run)["model_name"] == "mine"
    assert "finish_reason" not in data(make_run(generations=[generation(finish_reason="")]))


@pytest.mark.parametrize("outcome", ["error", "cancelled", "disconnected", "abandoned"])
def test_a_failed_run_is_one_row_with_its_partial_text(outcome: str) -> None:
    run = make_run(
        generations=[generation(text="part")], outcome=RunOutcome(outcome), error="E: no"
    )
    found = data(run)
    assert (found["outcome"], found["error"], found["output_text"]) == (outcome, "E: no", "part")
    assert data(make_run(outcome=RunOutcome(outcome)))["output_text"] == ""


def test_a_failed_run_is_not_sent_to_a_model_that_can_not_tell() -> None:
    plain = ModelSchema(
        "m",
        [
            Attribute("in", "UNSTRUCTURED_TEXT", "PIPELINE_INPUT"),
            Attribute("out", "UNSTRUCTURED_TEXT", "PREDICTED_VALUE"),
        ],
    )
    assert encode(make_run(outcome=RunOutcome.ERROR), plain) == []


@pytest.mark.parametrize("outcome", [RunOutcome.DISCONNECTED, RunOutcome.CANCELLED])
def test_a_stream_closed_after_its_finish_reason_is_ok(outcome: RunOutcome) -> None:
    complete = generation(finish_reason="stop", streamed=True)
    found = data(make_run(generations=[complete], outcome=outcome, error="GeneratorExit"))
    assert found["outcome"] == "ok"
    assert "error" not in found


def test_an_error_after_the_finish_reason_stays_one() -> None:
    complete = generation(finish_reason="stop")
    assert data(make_run(generations=[complete], outcome=RunOutcome.ERROR))["outcome"] == "error"


def inference(**fields: Any) -> CapturedInference:
    found = Inference(**{"input_text": "in", "output_text": "out", **fields})
    capture = CapturedInference(found, inference_id="id", model_id="m", captured_at=1_800_000_000.0)
    capture.attributes = dict(found.attributes)
    return capture


def test_an_inference_of_plain_code() -> None:
    from datetime import UTC, datetime

    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    (row,) = encode(
        inference(
            timestamp=moment,
            duration=2.5,
            attributes={"user_id": 7, "output_tokens": ["a"], "nobody": "x", "input_text": "no"},
        )
    )
    assert row["inference_timestamp"] == "2026-01-02T03:04:05+00:00"
    assert row["inference_data"] == {
        "input_text": "in",
        "output_text": "out",
        "duration": 2.5,
        "outcome": "ok",
        "user_id": "7",
        "output_tokens": ["a"],
    }
    naive = encode(inference(timestamp=datetime(2026, 1, 1)))[0]  # noqa: DTZ001 - the point
    assert naive["inference_timestamp"] == "2027-01-15T08:00:00+00:00"


@pytest.mark.parametrize("odd", [None, 5, ["list"]])
def test_an_inference_with_texts_that_are_none(odd: Any) -> None:
    found = data(inference(input_text=odd, output_text=odd))
    assert found["output_text"] == ("" if odd is None else str(odd))


@pytest.mark.parametrize("value", [object(), 10**5000, -(10**5000)], ids=["object", "+", "-"])
def test_what_can_not_be_coerced_is_left_out_and_told(value: Any) -> None:
    omitted = Omitted()
    (row,) = Encoder(SCHEMA, omitted).encode(
        make_run(generations=[generation()], metadata={"user_id": value}), 0
    )
    assert omitted == ["user_id"]
    found = json.loads(row.body)["inference_data"]
    assert found["output_text"] == "answer"
    assert "user_id" not in found


TEXTS = st.text(st.characters(), max_size=30)  # lone surrogates and NUL among them


@settings(max_examples=200)
@given(TEXTS, TEXTS, st.dictionaries(st.sampled_from(["user_id", "tags", "odd"]), TEXTS))
def test_any_text_becomes_a_row_that_arthur_takes(
    prompt: str, answer: str, metadata: dict[str, Any]
) -> None:
    found = data(make_run(prompt=prompt, generations=[generation(text=answer)], metadata=metadata))
    assert "\x00" not in found["input_text"] + found["output_text"]
    if prompt.isascii() and "\x00" not in prompt:
        assert found["input_text"] == prompt


def test_texts_are_made_sendable() -> None:
    assert clean_text("a\x00b") == "ab"
    assert clean_text("x\ud83d") == "x\ufffd"
    assert clean_text("\ud83d\ude00") == "\U0001f600"
    assert sendable({"a\x00": [1, True, 2**70, 2**2000, (1.5, None)]}) == {
        "a": [1, True, float(2**70), None, [1.5, None]]
    }


def test_a_text_that_spells_out_the_escape_of_nul_stays() -> None:
    assert data(make_run(prompt="\\u0000", generations=[generation()]))["input_text"] == "\\u0000"


@given(st.text(max_size=200), st.integers(0, 300))
def test_truncation_is_on_a_character_border_and_marked(text: str, limit: int) -> None:
    cut = truncate_text(text, limit, note="…")
    if len(text.encode()) <= limit:
        assert cut == text
    else:
        assert cut.endswith("…")
        assert text.startswith(cut[:-1])
        assert len(cut.encode()) <= max(limit, len("…".encode()))


def test_shrinking_cuts_the_texts_and_ends_somewhere() -> None:
    encoder = Encoder(SCHEMA, NoOmissions())
    run = make_run(prompt="ä" * 50_000, generations=[generation(logprobs=COMPLETION)])
    (row,) = encoder.encode(run, 3)
    sizes = [row.size]
    while (smaller := encoder.shrink(row)) is not None:
        assert (smaller.id, smaller.epoch) == (row.id, 3)
        assert smaller.shrunk == row.shrunk + 1
        check_inference(JUDGE, json.loads(smaller.body))
        sizes.append(smaller.size)
        row = smaller
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) < 12
    final = json.loads(row.body)["inference_data"]
    assert "output_likelihoods" not in final
    assert final["output_text"] == "answer"
