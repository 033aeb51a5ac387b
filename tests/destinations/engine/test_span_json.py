"""Any value becomes JSON that the Engine takes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompt_values import ChatPromptValue
from pydantic import BaseModel, SecretStr

from arthur_relay.capture.states import snapshot_state
from arthur_relay.destinations.engine.attributes import SpanTexts
from arthur_relay.destinations.engine.hiding import Hiding
from arthur_relay.destinations.engine.message_forms import MessageForm
from arthur_relay.destinations.engine.span_json import JsonWriter
from arthur_relay.encoding.omissions import NoOmissions
from arthur_relay.inference import ObjectSnapshot

pytestmark = pytest.mark.one_python

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.dates()
    | st.uuids()
    | st.decimals()
    | st.complex_numbers()
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=())) | st.integers(), inner)
    ),
)


IMAGE = "m.0.message.contents.0.message_content.image.image.url"


def writer() -> JsonWriter:
    return JsonWriter(SpanTexts(None, Hiding(), NoOmissions()), "input.value")


def told(value: Any, form: MessageForm = MessageForm.TYPED) -> Any:
    return json.loads(writer().write(value, form).text)


def chokes(value: Any, *, odd_keys: bool) -> bool:
    """Whether the Engine would reject a parsed value, or lose the request for it."""
    match value:
        case str():
            return "\x00" in value or value != value.encode("utf-8", "replace").decode()
        case float():
            return value != value or value in (float("inf"), float("-inf"))  # noqa: PLR0124 - NaN
        case dict():
            return any(
                chokes(key, odd_keys=odd_keys)
                or (odd_keys and ("/" in key or "." in key))
                or chokes(item, odd_keys=odd_keys)
                for key, item in value.items()
            )
        case list():
            return any(chokes(item, odd_keys=odd_keys) for item in value)
        case _:
            return False


@given(VALUES)
def test_any_value_is_json_without_what_the_engine_chokes_on(value: Any) -> None:
    found = writer().write(value)
    assert not chokes(json.loads(found.text), odd_keys=found.is_harmless)
    if found.is_harmless and found.text[:1] in ("{", "["):
        assert writer().is_json(found.text)


@given(VALUES)
def test_what_is_always_read_has_no_odd_keys(value: Any) -> None:
    assert not chokes(json.loads(writer().write_for_reader(value)), odd_keys=True)


TEXTS = st.text(st.characters(exclude_categories=()))


@given(TEXTS | VALUES.map(lambda value: json.dumps(value, default=str)))
def test_texts_that_are_always_read(text: str) -> None:
    sent = writer().json_text(text)
    try:
        found = json.loads(sent)
    except ValueError:
        return
    assert not chokes(found, odd_keys=True)


class Colour(Enum):
    """An enum of texts."""

    RED = "red"


class Level(IntEnum):
    """An enum of numbers."""

    LOW = 1


@dataclasses.dataclass
class Point:
    """A dataclass with a message in it."""

    x: int
    said: Any = None


class Model(BaseModel):
    """A model with a secret."""

    key: SecretStr
    said: Any = None


HUMAN: dict[str, Any] = {
    "content": "hi",
    "additional_kwargs": {},
    "response_metadata": {},
    "type": "human",
    "name": None,
    "id": None,
}


def without_example(value: Any) -> Any:
    """Leave out the one field that messages of older LangChains have more."""
    if isinstance(value, dict):
        return {name: without_example(each) for name, each in value.items() if name != "example"}
    return [without_example(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, "red"),
        (Level.LOW, 1),
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02T00:00:00+00:00"),
        (dt.timedelta(minutes=1), 60.0),
        (UUID(int=1), str(UUID(int=1))),
        (Decimal("1.50"), "1.50"),
        (Path("a") / "b", "a/b"),
        (frozenset({1}), [1]),
        (b"123", "[3 bytes]"),
        (np.float64(0.5), 0.5),
        (Point(1, HumanMessage("hi")), {"x": 1, "said": {"type": "human", "data": HUMAN}}),
        (Model(key=SecretStr("x"), said=HumanMessage("hi")), {"key": "**********", "said": HUMAN}),
        (HumanMessage("hi"), {"type": "human", "data": HUMAN}),
        (ChatPromptValue(messages=[HumanMessage("hi")]), {"messages": [HUMAN]}),
        (ValueError("no"), "no"),
        (10**5000, hex(10**5000)),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("captured", [True, False])
def test_values_of_other_classes(value: Any, expected: Any, captured: bool) -> None:
    found = told([snapshot_state(value)[0] if captured else value])[0]
    if isinstance(found, dict):
        found.pop("type", None) if "messages" in found else None
    assert without_example(found) == expected


def test_a_message_as_its_constructor() -> None:
    kept, _ = snapshot_state([AIMessage("hi", id="1")])
    assert told(kept, MessageForm.CONSTRUCTOR) == [
        {
            "lc": 1,
            "type": "constructor",
            "id": ["langchain", "schema", "messages", "AIMessage"],
            "kwargs": {
                "content": "hi",
                "type": "ai",
                "id": "1",
                "tool_calls": [],
                "invalid_tool_calls": [],
            },
        }
    ]


def test_a_large_image_is_left_out() -> None:
    image = "data:image/png;base64," + "A" * 100_000
    assert told({"url": image}) == {"url": "__REDACTED__"}


@pytest.mark.parametrize(("given_text", "most"), [("200000", 200_000), ("no number", 32_000)])
def test_how_large_images_may_be_is_said_by_openinferences_variable(
    given_text: str, most: int
) -> None:
    hiding = Hiding.of({"OPENINFERENCE_BASE64_IMAGE_MAX_LENGTH": given_text})
    texts = SpanTexts(None, hiding, NoOmissions())
    start = "data:image/png;base64,"
    longest = start + "A" * (most - len(start))
    for image, expected in ((longest, longest), (longest + "A", "__REDACTED__")):
        found = json.loads(JsonWriter(texts, "input.value").write({"url": image}).text)
        assert found == {"url": expected}
        message = ObjectSnapshot(
            HumanMessage, {"content": [{"type": "image_url", "image_url": {"url": image}}]}
        )
        writer = texts.messages("m", of_model=False)
        assert dict(writer.attributes("m", [message]))[IMAGE] == expected


class Changing(dict[str, int]):
    """A state that another thread changes whenever it is looked at."""

    def items(self) -> Any:
        raise RuntimeError("dictionary changed size during iteration")


def test_what_changes_while_it_is_read_costs_itself() -> None:
    assert told({"a": 1, "b": Changing()}) == {"a": 1, "b": "<Changing>"}
