"""The attributes of messages of every kind."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
)

from arthur_relay.capture.states import snapshot_state
from arthur_relay.destinations.engine.hiding import Hiding
from arthur_relay.inference import Run

from .stage import Span, span_of
from .test_encoder import encoded, encoder, run


class Own(HumanMessage):
    """A message of an application's class."""


class Strange:
    """No message."""


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # for langchain-core 0.3.0 it is in beta
    REMOVED = RemoveMessage(id="1")


def first(message: Any) -> Span:
    found: Run = run(inputs={"messages": [snapshot_state(message)[0]]})
    return encoded(found)


@pytest.mark.parametrize(
    ("message", "role"),
    [
        (HumanMessage("a"), "user"),
        (Own(content="a"), "user"),
        (AIMessageChunk(content="a"), "assistant"),
        (ToolMessage("a", tool_call_id="1"), "tool"),
        (FunctionMessage(content="a", name="f"), "function"),
        (ChatMessage(content="a", role="critic"), "critic"),
        (REMOVED, None),
        ({"role": "user", "content": "a"}, "user"),
        ({"type": "human", "content": "a"}, "user"),
        ({"type": "remove"}, None),
        ({"tool_calls": [1]}, "assistant"),
        (("user", "a"), "user"),
        ("text", None),
        (Strange(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_roles(message: Any, role: str | None) -> None:
    assert first(message).attributes.get("llm.input_messages.0.message.role") == role


def test_contents_in_blocks() -> None:
    blocks: list[Any] = [
        "plain",
        {"type": "text", "text": "a"},
        {"type": "text"},
        {"type": "image_url", "image_url": {"url": "http://a/b.png"}},
        {"type": "image_url", "image_url": "http://a/c.png"},
        {"type": "thinking", "thinking": "hm"},
        {"text": "untyped"},
    ]
    attributes = first(HumanMessage(blocks)).attributes
    place = "llm.input_messages.0.message.contents"
    assert {name: value for name, value in attributes.items() if name.startswith(place)} == {
        f"{place}.0.message_content.text": "plain",
        f"{place}.1.message_content.type": "text",
        f"{place}.1.message_content.text": "a",
        f"{place}.2.message_content.type": "text",
        f"{place}.3.message_content.type": "image",
        f"{place}.3.message_content.image.image.url": "http://a/b.png",
        f"{place}.4.message_content.type": "image",
        f"{place}.4.message_content.image.image.url": "http://a/c.png",
    }


def test_a_tools_answer_names_its_call() -> None:
    attributes = first(ToolMessage("a", tool_call_id="call-1", name="weather")).attributes
    assert attributes["llm.input_messages.0.message.tool_call_id"] == "call-1"
    assert attributes["llm.input_messages.0.message.name"] == "weather"


def test_calls_that_are_objects_of_a_package() -> None:
    """As litellm has them: LangChain's own list says what they are."""
    call: Any = {"name": "weather", "args": {"city": "Ulm"}, "id": "call-1"}
    message = AIMessage("", additional_kwargs={"tool_calls": [Strange()]}, tool_calls=[call])
    prefix = "llm.input_messages.0.message.tool_calls.0.tool_call."
    attributes = first(message).attributes
    assert attributes[f"{prefix}id"] == "call-1"
    assert attributes[f"{prefix}function.name"] == "weather"
    assert attributes[f"{prefix}function.arguments"] == '{"city":"Ulm"}'


def test_runs_that_share_a_message_have_its_attributes_and_what_was_omitted() -> None:
    calls: list[Any] = [{"name": "f", "args": {"x": 1}, "id": "1", "type": "tool_call"}]
    sent_as_text: Any = {"function": {"name": "g", "arguments": '{"a/b": 1}'}, "id": "2"}
    for message in (
        AIMessage([{"type": "text", "text": "ü"}], tool_calls=calls, name="n"),
        AIMessage("", tool_calls=calls, additional_kwargs={"tool_calls": [sent_as_text]}),
    ):
        (shared,), _ = snapshot_state([message])
        made, omitted = encoder()
        counts, spans = [], []
        for copy in (shared, shared, shared, snapshot_state(message)[0]):
            (row,) = made.encode(run(inputs={"messages": [copy]}), 0)
            spans.append(span_of(row).attributes)
            counts.append(len(omitted))
            omitted.clear()
        assert spans.count(spans[0]) == len(spans)
        assert counts.count(counts[0]) == len(counts)


def test_what_is_hidden_of_a_shared_message_stays_hidden() -> None:
    calls: list[Any] = [{"name": "f", "args": {"x": "secret"}, "id": "1", "type": "tool_call"}]
    image = {"type": "image_url", "image_url": "http://a/secret.png"}
    (shared,), _ = snapshot_state([AIMessage([{"text": "secret"}, image], tool_calls=calls)])
    encoded(run(inputs={"messages": [shared]}))
    for hiding in (Hiding(input_text=True), Hiding(input_images=True)):
        attributes = encoded(run(inputs={"messages": [shared]}), hiding=hiding).attributes
        anew = encoded(run(inputs={"messages": [snapshot_copy(shared)]}), hiding=hiding).attributes
        assert attributes == anew


def snapshot_copy(shared: Any) -> Any:
    return type(shared)(shared.cls, shared.fields)
