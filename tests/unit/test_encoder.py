"""Encoding: whatever a run holds, its rows are ones that Arthur takes."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    get_buffer_string,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation

from arthur_relay.encoding import values
from arthur_relay.encoding.encoder import Encoder
from arthur_relay.encoding.likelihoods import token_likelihoods
from arthur_relay.encoding.text import PLAIN_ROLES, clean_text, input_text, sendable, truncate_text
from arthur_relay.inference import (
    CapturedInference,
    GenerationSnapshot,
    Inference,
    Run,
    RunOutcome,
)
from arthur_relay.sandbox import demo_attributes
from arthur_relay.sandbox.validation import Schema, check_inference
from arthur_relay.schema import Attribute, ModelSchema
from arthur_relay.snapshots import snapshot_generation, snapshot_messages

RUN_ID = UUID("01a2045c-a970-7254-95c8-6185761cc1f4")
MODEL = {"id": "m", "attributes": demo_attributes()}
SCHEMA = ModelSchema.from_json(MODEL)
JUDGE = Schema.of(MODEL)


def generation(**fields: Any) -> GenerationSnapshot:
    return GenerationSnapshot(**{"text": "answer", **fields})


def make_run(**fields: Any) -> Run:
    run = Run(key=1, run_id=RUN_ID, model_id="m", prompt="prompt", size=0, started_at=10.0)
    run.duration = 1.5
    run.ended_at = 1_800_000_000.0
    for name, value in fields.items():
        setattr(run, name, value)
    run.rows = len(run.generations) or 1
    return run


def encode(capture: Any, schema: ModelSchema = SCHEMA) -> list[dict[str, Any]]:
    """Encode, have each row judged by the sandbox's validation, and return the rows."""
    omitted: list[str] = []
    rows = Encoder(schema, omitted.append).encode(capture, 0)
    documents = [json.loads(row.body) for row in rows]
    for row, document in zip(rows, documents, strict=True):
        assert row.id == document["partner_inference_id"]
        if schema is SCHEMA:
            check_inference(JUDGE, document)
    return documents


def data(capture: Any) -> dict[str, Any]:
    (row,) = encode(capture)
    found: dict[str, Any] = row["inference_data"]
    return found


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


COMPLETION = {
    "tokens": ["a", "b"],
    "token_logprobs": [-0.1, -0.2],
    "top_logprobs": [{"a": 0.0, "x": -1.0}, {"b": -0.2}],
}
CHAT = {
    "content": [
        {
            "token": "a",
            "logprob": 0.0,
            "top_logprobs": [{"token": chr(97 + n), "logprob": -float(n)} for n in range(8)],
        },
        {"token": "b", "logprob": -9999.0, "top_logprobs": []},
    ]
}


def test_log_probabilities_of_the_completion_form() -> None:
    found = data(make_run(generations=[generation(logprobs=COMPLETION)]))
    assert found["output_tokens"] == ["a", "b"]
    assert found["output_likelihoods"] == [
        {"a": 1.0, "x": pytest.approx(0.36787944)},
        {"b": pytest.approx(0.81873075)},
    ]


def test_log_probabilities_of_the_chat_form_keep_the_five_most_likely() -> None:
    found = data(make_run(generations=[generation(logprobs=CHAT)]))
    assert found["output_tokens"] == ["a", "b"]
    assert list(found["output_likelihoods"][0]) == ["a", "b", "c", "d", "e"]
    assert found["output_likelihoods"][1] == {"b": 0.0}


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        5,
        {},
        {"content": None},
        {"content": []},
        {"content": ["x"]},
        {"top_logprobs": []},
        {"top_logprobs": None},
    ],
)
def test_log_probabilities_that_say_nothing(logprobs: Any) -> None:
    assert token_likelihoods(logprobs) is None


def test_log_probabilities_that_are_odd() -> None:
    found = token_likelihoods(
        {
            "tokens": ["only one"],
            "top_logprobs": [
                {"a": float("nan"), "b": 3.0, "c": None},
                None,
                {"x": float("-inf")},
            ],
        }
    )
    assert found == (["b", "", "x"], [{"b": 1.0}, {}, {"x": 0.0}])


def snapshot(output: Any = None, info: Any = None, **fields: Any) -> GenerationSnapshot:
    """What is kept of a chat model's answer."""
    message = AIMessage("answer", **fields)
    return snapshot_generation(ChatGeneration(message=message, generation_info=info), output)[0]


def test_usage_prefers_usage_metadata() -> None:
    told = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    output = {"token_usage": {"prompt_tokens": 10, "completion_tokens": 20}}

    def counts(generation: GenerationSnapshot) -> tuple[int | None, ...]:
        run = make_run()
        return (
            values.prompt_tokens(run, generation),
            values.completion_tokens(run, generation),
            values.total_tokens(run, generation),
        )

    assert counts(snapshot(output, usage_metadata=told)) == (1, 2, 3)
    assert counts(snapshot(output)) == (10, 20, 30)
    assert counts(snapshot({"token_usage": {"prompt_tokens": True}})) == (None,) * 3
    assert counts(snapshot({"token_usage": None})) == (None,) * 3
    assert counts(snapshot()) == (None,) * 3


@pytest.mark.parametrize(
    ("told", "streamed", "expected"),
    [
        ("stop", True, "stop"),
        ("stopstop", True, "stop"),
        ("stopstopstop", True, "stop"),
        ("tool_callstool_calls", True, "tool_calls"),
        ("stopstop", False, "stopstop"),
        ("aa", True, "aa"),  # too short to be a repeat of a word
        ("stopStop", True, "stopStop"),
        (None, True, None),
        (5, True, None),
    ],
)
def test_doubled_finish_reasons(told: Any, streamed: bool, expected: str | None) -> None:
    found = values.finish_reason(make_run(), generation(finish_reason=told, streamed=streamed))
    assert found == expected


def test_where_the_model_name_and_the_finish_reason_come_from() -> None:
    response = {"model_name": "gpt-4ogpt-4o", "stop_reason": "end_turn"}
    streamed = snapshot(response_metadata=response)
    streamed.streamed = True
    assert values.model_name(make_run(asked_for="asked"), streamed) == "gpt-4o"
    assert values.finish_reason(make_run(), streamed) == "end_turn"
    assert values.finish_reason(make_run(), snapshot(info={"finish_reason": "first"})) == "first"
    assert snapshot({"model_name": "b"}, {"model_name": "a"}).model_name == "a"
    assert snapshot(info={"logprobs": 1}, response_metadata={"logprobs": 2}).logprobs == 1
    assert snapshot(response_metadata={"logprobs": 2, "model": "c"}).logprobs == 2
    assert values.model_name(make_run(), snapshot({"model_name": "b"})) == "b"
    assert values.model_name(make_run(asked_for="asked"), generation()) == "asked"
    assert values.model_name(make_run(), generation()) is None


def test_tool_calls_are_json() -> None:
    calls = [{"name": "f", "args": {"x": {1, 2}}, "id": "1", "type": "tool_call"}]
    found = values.tool_calls(make_run(), generation(tool_calls=calls))
    assert found is not None
    assert json.loads(found)[0]["name"] == "f"
    assert values.tool_calls(make_run(), snapshot(tool_calls=[])) is None


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


def test_what_can_not_be_coerced_is_left_out_and_told() -> None:
    omitted: list[str] = []
    Encoder(SCHEMA, omitted.append).encode(
        make_run(generations=[generation()], metadata={"user_id": object()}), 0
    )
    assert omitted == ["user_id"]


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


MESSAGES: list[BaseMessage] = [
    SystemMessage("be kind"),
    HumanMessage("hello"),
    HumanMessage(
        [
            {"type": "text", "text": "look: "},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            "plain",
        ]
    ),
    AIMessage(
        "calling", tool_calls=[{"name": "f", "args": {"x": 1}, "id": "1", "type": "tool_call"}]
    ),
    AIMessage("old", additional_kwargs={"function_call": {"name": "g", "arguments": "{}"}}),
    AIMessageChunk(content="chunk"),
    ToolMessage("result", tool_call_id="1"),
    FunctionMessage(content="result", name="g"),
    ChatMessage(content="as they say", role="narrator"),
]


@pytest.mark.parametrize("plain", [PLAIN_ROLES, {}])
def test_input_text_is_what_langchain_makes_of_the_messages(plain: dict[type, str]) -> None:
    snapshots, size = snapshot_messages(MESSAGES, plain)
    found = input_text(snapshots)
    assert size > 0
    if version("langchain-core").startswith("0."):  # it prints the repr of blocks, images and all
        assert "base64" not in found
        assert "look: " in found
        return
    assert found == get_buffer_string(MESSAGES)
    for message in MESSAGES:
        assert input_text(snapshot_messages([message], plain)[0]) == get_buffer_string([message])


def test_a_later_mutation_changes_nothing() -> None:
    messages = [HumanMessage("before"), HumanMessage([{"type": "text", "text": "before"}])]
    expected = get_buffer_string(messages)
    snapshots, _ = snapshot_messages(messages, PLAIN_ROLES)
    messages[0].content = "after"
    messages[1].content[0]["text"] = "after"  # type: ignore[index]  # a block
    messages.append(HumanMessage("more"))
    assert input_text(snapshots) == expected


def test_one_message_that_langchain_can_not_print_costs_no_other() -> None:
    messages = [HumanMessage("hello"), RemoveMessage(id="1"), AIMessage("hi")]
    text = input_text(snapshot_messages(messages, PLAIN_ROLES)[0])
    assert "Human: hello" in text
    assert "AI: hi" in text
    assert input_text(None) == ""


def test_the_size_of_a_snapshot_follows_the_texts_and_not_the_images() -> None:
    def size(content: Any) -> int:
        return snapshot_messages([HumanMessage(content)], PLAIN_ROLES)[1]

    assert size("x" * 10_000) - size("") == 10_000
    image = {"type": "image_url", "image_url": {"url": "x" * 50_000}}
    assert size([image]) < 2_000  # it is not sent, so it is not kept
    assert size([{"type": "text", "text": "x" * 50_000}, image]) > 50_000
    assert size(["x" * 10_000]) > 10_000


def test_a_generation_keeps_what_is_read_and_no_headers() -> None:
    message = AIMessage(
        "text",
        response_metadata={"finish_reason": "stop", "headers": {"set-cookie": "secret"}},
        usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
    )
    info = {"finish_reason": "stop", "logprobs": COMPLETION, "headers": "secret"}
    snapshot, size = snapshot_generation(ChatGeneration(message=message, generation_info=info))
    assert "secret" not in repr(snapshot)
    assert snapshot.usage == (1, 1, 2)
    assert size > 2_000
    chunk = ChatGenerationChunk(message=AIMessageChunk(content="x"))
    assert snapshot_generation(chunk)[0].streamed
    assert snapshot_generation(Generation(text="x"))[0].usage is None


def test_shrinking_cuts_the_texts_and_ends_somewhere() -> None:
    encoder = Encoder(SCHEMA, lambda _name: None)
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
