"""What is written without care is what care would have written, or nothing is."""

from __future__ import annotations

import json
from collections import OrderedDict
from enum import StrEnum
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.prompt_values import ChatPromptValue

from arthur_relay.capture.states import snapshot_state
from arthur_relay.destinations.engine.attributes import SpanTexts
from arthur_relay.destinations.engine.direct_json import MAX_DEPTH, MAX_VALUES, direct_json
from arthur_relay.destinations.engine.hiding import Hiding
from arthur_relay.destinations.engine.message_forms import MessageForm
from arthur_relay.destinations.engine.span_json import JsonWriter
from arthur_relay.encoding.omissions import NoOmissions
from arthur_relay.inference import ObjectSnapshot

pytestmark = pytest.mark.one_python

TEXTS = st.text(st.characters(exclude_categories=())) | st.sampled_from(["a/b", "\\u0000", "\x00"])
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
MESSAGES = st.builds(HumanMessage, content=st.text()) | st.builds(
    AIMessage, content=st.text(), additional_kwargs=st.dictionaries(st.text(), st.floats())
)
OBJECTS = (
    MESSAGES
    | st.builds(Document, page_content=st.text())
    | st.builds(ChatGeneration, message=MESSAGES)
    | st.builds(ChatPromptValue, messages=st.lists(MESSAGES, max_size=3))
)
VALUES = st.recursive(
    ATOMS | OBJECTS,
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


class Careful(SpanTexts):
    """Texts that have to be looked at one by one."""

    def __init__(self) -> None:
        super().__init__(None, Hiding(), NoOmissions())
        self.redacts = True


def with_care(value: Any, form: MessageForm) -> tuple[str, bool]:
    found = JsonWriter(Careful(), "input.value").write(value, form)
    return found.text, found.is_harmless


@given(VALUES, st.permutations([*MessageForm, *MessageForm]))
def test_it_is_what_care_would_have_written(value: Any, forms: list[MessageForm]) -> None:
    kept, _ = snapshot_state(value)
    for form in forms:  # messages keep what was written of them
        direct = direct_json(kept, form)
        if direct is None:
            continue
        text, is_harmless = with_care(kept, form)
        assert json.loads(direct.text) == json.loads(text)
        assert direct.text == text
        assert is_harmless


@pytest.mark.parametrize("form", MessageForm)
def test_usual_values_need_no_care(form: MessageForm) -> None:
    calls = [{"name": "f", "args": {"a": 1.5, "b": [None, True]}, "id": "1", "type": "tool_call"}]
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    message = AIMessage(content="Grüße", tool_calls=calls, usage_metadata=usage)
    answered = ToolMessage("it", tool_call_id="1", artifact=[Document("d", metadata={"n": 1})])
    state = {
        "messages": [HumanMessage("hi"), message, answered],
        "generations": [[ChatGeneration(message=message), Generation(text="x")]],
        "documents": (Document("d"),),
    }
    kept, _ = snapshot_state(state)
    direct = direct_json(kept, form)
    assert direct is not None
    assert direct.text == with_care(kept, form)[0]
    assert direct.values >= 40


class Name(StrEnum):
    """An enum of texts."""

    KEY = "key"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        {"a": float("nan")},
        {"a": [float("-inf")]},
        {"a/b": 1},
        {"a.b": 1},
        {1: 1},
        {"a": {Name.KEY: Name.KEY}},
        {"a": 2**64},
        {"a": -(2**63) - 1},
        {"a": "\x00"},
        {"a\x00": 1},
        {"a": "\ud800"},
        {"a": {1, 2}},
        {"a": b"x"},
        {"a": object()},
        OrderedDict(a=1),
        ["data:image/png;base64,AAAA"],
        nested(MAX_DEPTH + 1),
        [0] * (MAX_VALUES + 1),
        ["x" * 600_000, "y" * 600_000],
        "x" * 1_000_001,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_needs_care_is_not_written(value: Any) -> None:
    assert direct_json(value, MessageForm.TYPED) is None


def test_a_circle_needs_care() -> None:
    value: dict[str, Any] = {}
    value["again"] = [value, value]
    assert direct_json(value, MessageForm.TYPED) is None


def test_a_message_within_itself_needs_care() -> None:
    message = ObjectSnapshot(HumanMessage, {"content": "a", "additional_kwargs": {}})
    message.fields["additional_kwargs"]["again"] = [message]
    for _ in range(2):
        assert direct_json([message], MessageForm.TYPED) is None


def test_a_message_that_needs_care_needs_it_again() -> None:
    kept, _ = snapshot_state([HumanMessage("a", additional_kwargs={"n": float("nan")})])
    for _ in range(2):
        assert direct_json(kept, MessageForm.TYPED) is None


@pytest.mark.parametrize("form", MessageForm)
def test_what_was_written_stands_for_its_value(form: MessageForm) -> None:
    value = {"name": "f", "parameters": [{"type": "object"}, "ü"]}
    part = direct_json(value, form)
    whole = direct_json({"n": 1, "tools": [value, value]}, form)
    assert direct_json({"n": 1, "tools": [part, value]}, form) == whole


def test_a_text_of_an_own_class_is_a_text() -> None:
    class Text(str):
        __slots__ = ()

    assert direct_json([Text("a")], MessageForm.TYPED) == ('["a"]', 1)


def test_a_value_that_raises_when_it_is_looked_at_needs_care() -> None:
    class Odd(dict[str, Any]):
        def __len__(self) -> int:
            raise RuntimeError

    assert direct_json({"a": Odd()}, MessageForm.TYPED) is None


def test_the_library_has_what_this_needs() -> None:
    assert orjson.dumps([orjson.Fragment(b"{}")]) == b"[{}]"
