"""What is kept of LangChain's objects, and the input text that is made of it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
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

from arthur_relay.capture.generation_snapshots import snapshot_generation, snapshot_partial
from arthur_relay.capture.snapshots import snapshot_messages
from arthur_relay.encoding.messages import PLAIN_ROLES
from arthur_relay.encoding.text import input_text
from tests.encoding.runs import COMPLETION

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


@pytest.mark.filterwarnings("ignore:The class `RemoveMessage` is in beta")  # langchain-core 0.3.0
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
    assert snapshot.usage == {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    assert size > 2_000
    chunk = ChatGenerationChunk(message=AIMessageChunk(content="x"))
    assert snapshot_generation(chunk)[0].streamed
    assert snapshot_generation(Generation(text="x"))[0].usage is None


def test_an_answer_of_another_message_class_is_kept_as_far_as_it_has_fields() -> None:
    message = ChatMessage(
        role="narrator",
        content="text",
        id="run-1",
        response_metadata={"finish_reason": "length", "logprobs": COMPLETION},
        additional_kwargs={"refusal": "no"},
    )
    snapshot, _ = snapshot_generation(ChatGeneration(message=message))
    assert (snapshot.message_id, snapshot.unread) == ("run-1", 0)
    assert {"finish_reason": "length"} in snapshot.facts
    assert {"refusal": "no"} in snapshot.facts
    assert snapshot.logprobs is COMPLETION


@pytest.mark.parametrize("last", [False, True])
def test_whether_the_last_chunk_was_marked_is_kept_of_what_ended_early(last: bool) -> None:
    message = AIMessageChunk(content="x")
    vars(message)["chunk_position"] = "last" if last else None  # which 0.3 has no field for
    snapshot, _ = snapshot_partial(ChatGenerationChunk(message=message), None, reasoning=False)
    assert snapshot.is_last is last
    assert snapshot_partial(Generation(text="x"), None, reasoning=False)[0].is_last is False
