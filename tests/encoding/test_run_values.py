"""What a run tells beside its texts, in the words of whichever provider it came from."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration

from arthur_relay.capture.generation_snapshots import snapshot_generation
from arthur_relay.destinations.scope.encoder import Encoder
from arthur_relay.encoding import run_fields
from arthur_relay.encoding.logprobs import token_likelihoods
from arthur_relay.encoding.tool_calls import tool_calls
from arthur_relay.inference import GenerationSnapshot
from tests.encoding.runs import CHAT, COMPLETION, SCHEMA, data, generation, make_run
from tests.omissions import Omitted


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
            run_fields.prompt_tokens(run, generation),
            run_fields.completion_tokens(run, generation),
            run_fields.total_tokens(run, generation),
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
    found = run_fields.finish_reason(make_run(), generation(finish_reason=told, streamed=streamed))
    assert found == expected


def test_where_the_model_name_and_the_finish_reason_come_from() -> None:
    response = {"model_name": "gpt-4ogpt-4o", "stop_reason": "end_turn"}
    streamed = snapshot(response_metadata=response)
    streamed.streamed = True
    assert run_fields.model_name(make_run(asked_for="asked"), streamed) == "gpt-4o"
    assert run_fields.finish_reason(make_run(), streamed) == "end_turn"
    assert (
        run_fields.finish_reason(make_run(), snapshot(info={"finish_reason": "first"})) == "first"
    )
    assert (
        run_fields.model_name(make_run(), snapshot({"model_name": "b"}, {"model_name": "a"})) == "a"
    )
    # LangChain's own rule (`_gen_info_and_msg_metadata`).
    assert snapshot(info={"logprobs": 1}, response_metadata={"logprobs": 2}).logprobs == 2
    assert snapshot(info={"logprobs": 1}).logprobs == 1
    assert snapshot(response_metadata={"logprobs": 2, "model": "c"}).logprobs == 2
    assert run_fields.model_name(make_run(), snapshot({"model_name": "b"})) == "b"
    assert run_fields.model_name(make_run(asked_for="asked"), generation()) == "asked"
    assert run_fields.model_name(make_run(), generation()) is None


def test_tool_calls_are_json() -> None:
    calls = [{"name": "f", "args": {"x": {1, 2}}, "id": "1", "type": "tool_call"}]
    found = tool_calls(generation(tool_calls=calls))
    assert found is not None
    assert json.loads(found)[0]["name"] == "f"
    assert tool_calls(snapshot(tool_calls=[])) is None


def call_with(argument: Any) -> list[dict[str, Any]]:
    return [{"name": "f", "args": {"x": argument}, "id": "1", "type": "tool_call"}]


class Odd:
    """An argument that is no JSON, and whose text has no UTF-8."""

    def __str__(self) -> str:
        return "odd \ud800"


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("lone \ud800", "lone \ufffd"),
        ("a NUL\x00 beside \udfff", "a NUL beside \ufffd"),
        (2**70, float(2**70)),
        (-(2**70), -float(2**70)),
        (10**5000, None),
        (Odd(), "odd \ufffd"),
        ({"\ud800": 1, 7: 2**70}, {"\ufffd": 1, "7": float(2**70)}),
        ((1, ["\ud800"]), [1, ["\ufffd"]]),
    ],
    ids=["surrogate", "NUL", "large", "small", "huge", "object", "key", "nested"],
)
def test_tool_calls_that_json_can_not_hold_as_they_are(argument: Any, told: Any) -> None:
    found = data(make_run(generations=[generation(tool_calls=call_with(argument))]))
    assert json.loads(found["tool_calls"])[0]["args"] == {"x": told}
    assert found["output_text"] == "answer"


def nested(depth: int) -> Any:
    value: Any = "end"
    for _ in range(depth):
        value = {"in": value}
    return value


def in_a_circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


class Silent:
    """An argument that can't be told at all."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "argument",
    [nested(300), nested(5000), in_a_circle(), {10**5000: 1}, Silent()],
    ids=["deep", "deeper than the stack", "a circle", "a huge key", "silent"],
)
def test_tool_calls_that_json_can_not_hold_at_all_cost_no_more_than_themselves(
    argument: Any,
) -> None:
    omitted = Omitted()
    run = make_run(generations=[generation(tool_calls=call_with(argument), finish_reason="stop")])
    (row,) = Encoder(SCHEMA, omitted).encode(run, 0)
    found = json.loads(row.body)["inference_data"]
    assert (found["output_text"], found["finish_reason"]) == ("answer", "stop")
    assert "tool_calls" not in found
    assert omitted == ["tool_calls"]
