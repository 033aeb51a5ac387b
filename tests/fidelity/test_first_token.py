"""When the first token came: a chunk that only says that some will come is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult

if TYPE_CHECKING:
    from tests.fidelity.judged import Judged

EMPTY: list[Any] = [
    "",
    [],
    [{"type": "reasoning", "summary": []}],
    [{"type": "reasoning", "id": "rs_1", "summary": [{"index": 0, "text": ""}], "index": 0}],
    [{"type": "text", "text": "", "annotations": [], "id": "msg_1", "index": 0}],
    [{"type": "thinking", "thinking": "", "signature": "abc"}],
    [{"type": "refusal", "refusal": "", "extras": {"category": "x"}}],
    [{"type": "web_search_call", "id": "ws_1", "status": "in_progress"}],
]
FULL: list[Any] = [
    "x",
    "\n\n",
    [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}],
    [{"type": "text", "text": "x"}],
    [{"type": "thinking", "thinking": "hm"}],
    [{"type": "refusal", "refusal": "No"}],
    ["x"],
    [{"type": "tool_use", "name": "f", "input": {}}],
]


class Call:
    """A streamed call, event by event."""

    def __init__(self, arthur: Judged) -> None:
        self.arthur, self.run_id = arthur, uuid4()
        arthur.handler.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=self.run_id)

    def token(self, content: Any, **message: Any) -> None:
        chunk = ChatGenerationChunk(message=AIMessageChunk(content=content, **message))
        self.arthur.handler.on_llm_new_token(content, chunk=chunk, run_id=self.run_id)

    def event(self, event: dict[str, Any]) -> None:
        self.arthur.handler.on_stream_event(event, run_id=self.run_id)

    def row(self) -> dict[str, Any]:
        result = LLMResult(generations=[[ChatGeneration(message=AIMessage("answer"))]])
        self.arthur.handler.on_llm_end(result, run_id=self.run_id)
        return self.arthur.only()


@pytest.mark.parametrize("content", EMPTY, ids=repr)
def test_blocks_that_are_empty_are_no_token(arthur: Judged, content: Any) -> None:
    call = Call(arthur)
    call.token(content)
    call.token("", additional_kwargs={"reasoning_content": ""})
    assert "time_to_first_token" not in call.row()


@pytest.mark.parametrize("content", FULL, ids=repr)
def test_blocks_with_anything_in_them_are_one(arthur: Judged, content: Any) -> None:
    call = Call(arthur)
    call.token(content)
    assert call.row()["time_to_first_token"] > 0.0


@pytest.mark.parametrize(
    "message",
    [
        {"additional_kwargs": {"reasoning_content": "hm"}},
        {"tool_call_chunks": [{"name": "f", "args": "", "id": "1", "index": 0}]},
    ],
    ids=repr,
)
def test_what_stands_beside_an_empty_text(arthur: Judged, message: dict[str, Any]) -> None:
    call = Call(arthur)
    call.token("", **message)
    assert "time_to_first_token" in call.row()


@pytest.mark.parametrize(
    ("event", "is_token"),
    [
        ({"event": "message-start"}, False),
        ({"event": "content-block-start", "content": {"type": "text", "text": ""}}, False),
        (
            {"event": "content-block-start", "content": {"type": "reasoning", "reasoning": ""}},
            False,
        ),
        ({"event": "content-block-start", "content": {"type": "text", "text": "x"}}, True),
        ({"event": "content-block-delta", "delta": {"type": "text-delta", "text": ""}}, False),
        ({"event": "content-block-delta", "delta": {"type": "text-delta", "text": "x"}}, True),
        (
            {
                "event": "content-block-delta",
                "delta": {"type": "reasoning-delta", "reasoning": "h"},
            },
            True,
        ),
    ],
    ids=repr,
)
def test_events_of_v3_streams(arthur: Judged, event: dict[str, Any], *, is_token: bool) -> None:
    call = Call(arthur)
    call.event(event)
    assert ("time_to_first_token" in call.row()) == is_token
