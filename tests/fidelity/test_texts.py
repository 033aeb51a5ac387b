"""The whole text, on every langchain-core; and answers that are no text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

if TYPE_CHECKING:
    from collections.abc import Callable

    Answered = Callable[..., dict[str, Any]]


def text(words: Any) -> dict[str, Any]:
    return {"type": "text", "text": words}


THINKING = {"type": "thinking", "thinking": "Let me think.", "signature": "x"}

CONTENTS: list[tuple[Any, str]] = [
    ([text("\n\n"), THINKING, text("Hello! "), text("cited")], "\n\nHello! cited"),
    (["", THINKING, "Hello ", "there"], "Hello there"),
    ([THINKING], ""),
    ([{"type": "reasoning", "text": "no", "summary": []}, text("yes")], "yes"),
    ([{"type": "reasoning_content", "reasoning_content": {"text": "no"}}, text("yes")], "yes"),
    ([{"text": "without a type"}], "without a type"),
    ([text(None), text("yes"), {"type": "image", "base64": "AAAA"}], "yes"),
    ([], ""),
    ("plain", "plain"),
    ([{"type": "refusal", "refusal": "I can't."}], "I can't."),
    ([text("Well. "), {"type": "refusal", "refusal": "I can't."}], "Well. I can't."),
    ([text("I can't."), {"type": "refusal", "refusal": ""}], "I can't."),
    ([{"type": "non_standard", "value": {"type": "refusal", "refusal": "No."}}], "No."),
]


@pytest.mark.parametrize(("content", "expected"), CONTENTS)
def test_the_whole_text(answered: Answered, content: Any, expected: str) -> None:
    message = AIMessage(content)
    row = answered(message)
    assert row["output_text"] == expected
    said = getattr(message, "text", None)
    if isinstance(said, str) and "refusal" not in str(content) and content != [{"text": expected}]:
        assert row["output_text"] == str(said)  # langchain-core 1.0 and later say the same


def test_the_whole_text_of_a_stream(streamed: Answered) -> None:
    parts = [[text("\n\n")], [{"type": "thinking", "thinking": "hm"}], [text("Hello!")]]
    chunks = [AIMessageChunk(content=[{**part[0], "index": n}]) for n, part in enumerate(parts)]
    assert streamed(chunks)["output_text"] == "\n\nHello!"


@pytest.mark.parametrize(
    ("extras", "metadata", "expected"),
    [
        ({"refusal": "I can't."}, {}, "I can't."),
        ({"refusal": None}, {}, ""),
        ({}, {"stop_reason": "refusal", "stop_details": {"explanation": "Not this."}}, "Not this."),
        ({}, {"stop_reason": "refusal", "stop_details": {"explanation": None}}, ""),
        ({}, {"finish_reason": "SAFETY", "finish_message": "Unsafe."}, "Unsafe."),
        ({"audio": {"id": "1", "data": "UklGR", "transcript": "Spoken."}}, {}, "Spoken."),
    ],
)
def test_a_refusal_and_a_transcript_are_the_text(
    answered: Answered, extras: dict[str, Any], metadata: dict[str, Any], expected: str
) -> None:
    row = answered(AIMessage("", additional_kwargs=extras, response_metadata=metadata))
    assert row["output_text"] == expected
    refused = expected if expected and "audio" not in extras else None
    assert row.get("refusal") == refused
    assert "UklGR" not in json.dumps(row)


@pytest.mark.parametrize(
    ("content", "extras"),
    [
        ([THINKING, text("yes")], {}),
        ([{"type": "reasoning", "reasoning": "Let me think."}, text("yes")], {}),
        (
            [
                {
                    "type": "reasoning",
                    "summary": [{"text": "Let me "}, {"type": "summary_text", "text": "think."}],
                },
                text("yes"),
            ],
            {},
        ),
        (
            [
                {"type": "reasoning_content", "reasoning_content": {"text": "Let me think."}},
                text("yes"),
            ],
            {},
        ),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "Let me think."}]}, "yes"],
            {},
        ),
        ("yes", {"reasoning_content": "Let me think."}),
        ("yes", {"reasoning": {"summary": [{"type": "summary_text", "text": "Let me think."}]}}),
        ("yes", {"thinking_blocks": [{"type": "thinking", "thinking": "Let me think."}]}),
        ("yes", {"reasoning_details": [{"type": "reasoning.text", "text": "Let me think."}]}),
    ],
)
def test_reasoning_is_told_only_by_its_name(
    answered: Answered, content: Any, extras: dict[str, Any]
) -> None:
    row = answered(AIMessage(content, additional_kwargs=extras))
    assert row["output_text"] == "yes"
    assert row["reasoning_text"] == "Let me think."


def test_reasoning_is_not_even_kept_for_a_model_without_it(
    make_arthur: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from arthur_relay.capture.queue import CaptureQueue
    from tests.callback.arthur import TEXT_ONLY
    from tests.callback.fakes import ResultModel

    arthur = make_arthur(TEXT_ONLY)
    kept: list[Any] = []
    put = CaptureQueue.put

    def remember(queue: CaptureQueue, run: Any, **more: Any) -> bool:
        kept.append(run)
        return put(queue, run, **more)

    monkeypatch.setattr(CaptureQueue, "put", remember)
    from langchain_core.outputs import ChatGeneration

    message = AIMessage([THINKING, text("yes")], additional_kwargs={"reasoning_content": "hm"})
    model = ResultModel(generations=[ChatGeneration(message=message)])
    model.invoke("hi", {"callbacks": [arthur.handler]})
    assert arthur.only()["output_text"] == "yes"
    (run,) = kept
    assert "hm" not in repr(run.generations)
    assert "think" not in repr(run.generations)


def calls(row: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(row["tool_calls"])
    return found


def test_a_call_whose_arguments_are_no_json(answered: Answered) -> None:
    broken = {"name": "f", "args": '{"x": ', "id": "1", "error": None, "type": "invalid_tool_call"}
    good = {"name": "g", "args": {"x": 1}, "id": "2", "type": "tool_call"}
    told = AIMessage("", tool_calls=[good], invalid_tool_calls=[broken])
    first, second = calls(answered(told))
    assert first == good
    assert second == {**broken, "error": "the arguments are not a JSON object"}


def test_a_streamed_call_that_langchain_has_completed(streamed: Answered) -> None:
    pieces = [("f", "1", '{"city": '), (None, None, '"Ul')]
    chunks = [
        AIMessageChunk(
            content="", tool_call_chunks=[{"name": name, "args": args, "id": call_id, "index": 0}]
        )
        for name, call_id, args in pieces
    ]
    (call,) = calls(streamed(chunks))
    assert (call["name"], call["args"], call["id"]) == ("f", '{"city": "Ul', "1")
    assert call["type"] == "invalid_tool_call"
    assert call["error"]
    good = AIMessageChunk(
        content="", tool_call_chunks=[{"name": "g", "args": "", "id": "2", "index": 0}]
    )
    (call,) = calls(streamed([good]))
    assert call == {"name": "g", "args": {}, "id": "2", "type": "tool_call"}


def test_the_old_function_call(answered: Answered) -> None:
    function = {"name": "f", "arguments": '{"x": 1}'}
    (call,) = calls(answered(AIMessage("", additional_kwargs={"function_call": function})))
    assert call == {"name": "f", "args": '{"x": 1}', "id": None, "type": "function_call"}
    function = {"name": "f", "arguments": '{"x": '}
    (call,) = calls(answered(AIMessage("", additional_kwargs={"function_call": function})))
    assert call["args"] == '{"x": '
    assert "error" in call


@pytest.mark.parametrize(
    ("block", "name", "args"),
    [
        (
            {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {"query": "q"}},
            "web_search",
            {"query": "q"},
        ),
        (
            {
                "type": "server_tool_use",
                "id": "1",
                "name": "web_search",
                "input": {},
                "partial_json": '{"query": "q"}',
            },
            "web_search",
            {"query": "q"},
        ),
        (
            {"type": "web_search_call", "id": "1", "action": {"type": "search", "query": "q"}},
            "web_search_call",
            {"type": "search", "query": "q"},
        ),
        ({"type": "code_interpreter_call", "id": "1", "code": "1"}, "code_interpreter_call", "1"),
        (
            {"type": "server_tool_call", "id": "1", "name": "web_search", "args": {"query": "q"}},
            "web_search",
            {"query": "q"},
        ),
        ({"type": "executable_code", "id": "1", "executable_code": "1"}, "executable_code", "1"),
    ],
)
def test_calls_that_the_provider_runs_itself(
    answered: Answered, block: dict[str, Any], name: str, args: Any
) -> None:
    found: dict[str, Any] = {
        "type": "web_search_tool_result",
        "content": [{"encrypted_content": "x" * 100}],
    }
    row = answered(AIMessage([block, found, text("done")]))
    assert calls(row) == [{"name": name, "args": args, "id": "1", "type": "server_tool_call"}]
    assert row["output_text"] == "done"


def test_a_call_that_is_told_twice_is_one_call(answered: Answered) -> None:
    call = {"name": "f", "args": {"x": 1}, "id": "1", "type": "tool_call"}
    extras = {"function_call": {"name": "f", "arguments": '{"x": 1}'}}  # Gemini's client does so
    content: Any = [{"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}}]
    message = AIMessage(content, tool_calls=[call], additional_kwargs=extras)
    assert calls(answered(message)) == [call]


def test_calls_that_a_client_has_torn_apart(answered: Answered) -> None:
    raw = [{"id": "1", "function": {"name": "f", "arguments": '{"x": 1}'}, "type": "function"}]
    torn = [
        {"name": "f", "args": {}, "id": "a", "type": "tool_call"},
        {"name": "", "args": {"x": 1}, "id": "b", "type": "tool_call"},
    ]
    message = AIMessage("", tool_calls=torn, additional_kwargs={"tool_calls": raw})
    assert calls(answered(message)) == [
        {"name": "f", "args": {"x": 1}, "id": "1", "type": "tool_call"}
    ]
