"""What is kept of inputs and outputs: shallow, bounded, and nothing raised."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration
from langchain_core.runnables import RunnableLambda

from arthur_relay.capture import states
from arthur_relay.capture.results import snapshot_result
from arthur_relay.capture.states import (
    REDACTED,
    STATE_DEPTH,
    STATE_VISITS,
    snapshot_parameters,
    snapshot_state,
)
from arthur_relay.encoding.images import MAX_IMAGE_CHARACTERS, VARIABLE
from arthur_relay.inference import ObjectSnapshot
from tests.destinations.engine.stage import traced

if TYPE_CHECKING:
    from collections.abc import Callable


def test_containers_are_copied() -> None:
    state: dict[str, Any] = {"list": [1, {"inner": [2]}], "pair": (1, [2]), "set": {1}}
    kept, _ = snapshot_state(state)
    state["list"][1]["inner"].append(3)
    state["pair"][1].append(3)
    state["set"].add(2)
    assert kept == {"list": [1, {"inner": [2]}], "pair": (1, [2]), "set": {1}}


VALUES = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_a_copy_is_equal(value: Any) -> None:
    kept, size = snapshot_state(value)
    assert kept == value
    assert size >= 0


def test_a_message_is_copied_with_its_fields() -> None:
    message = AIMessage(
        [{"type": "text", "text": "a"}], tool_calls=[{"name": "f", "args": {"x": [1]}, "id": "1"}]
    )
    kept, _ = snapshot_state([message])
    message.content[0]["text"] = "b"  # type: ignore[index] # its content is a list
    message.tool_calls[0]["args"]["x"].append(2)
    message.response_metadata["late"] = True
    (snapshot,) = kept
    assert isinstance(snapshot, ObjectSnapshot)
    assert snapshot.cls is AIMessage
    assert snapshot.fields["content"] == [{"type": "text", "text": "a"}]
    assert snapshot.fields["tool_calls"][0]["args"] == {"x": [1]}
    assert snapshot.fields["response_metadata"] == {}


def test_a_document_is_copied() -> None:
    document = Document("text", metadata={"source": "a"})
    kept, _ = snapshot_state({"documents": [document]})
    document.metadata["source"] = "b"
    assert kept["documents"][0].fields["metadata"] == {"source": "a"}


def test_what_is_beyond_the_bounds_is_kept_as_it_is() -> None:
    leaf: list[int] = []
    deep: Any = leaf
    for _ in range(STATE_DEPTH + 2):
        deep = [deep]
    kept, _ = snapshot_state(deep)
    leaf.append(1)
    while isinstance(kept, list):
        kept = kept[0]
    assert kept == 1  # a later change is seen
    wide = [[each] for each in range(STATE_VISITS + 1)]
    assert snapshot_state({"wide": wide})[0]["wide"] is wide


def test_other_objects_are_kept_as_they_are() -> None:
    thing = object()
    assert snapshot_state({"thing": thing})[0]["thing"] is thing


def test_long_texts_are_not_copied_and_images_are_not_kept() -> None:
    text = "x" * 10_000_000
    kept, size = snapshot_state({"text": text})
    assert kept["text"] is text
    assert size > len(text)
    image = "data:image/png;base64," + "A" * MAX_IMAGE_CHARACTERS
    kept, size = snapshot_state({"url": image})
    assert kept["url"] == REDACTED
    assert size < 1_000


@pytest.mark.parametrize(
    "make",  # for every test that is run meanwhile they would be in memory
    [
        lambda: list(range(1_000_000)),
        lambda: {str(each): [each] for each in range(100_000)},
        lambda: [[[[[[[[[[[[list(range(100_000))]]]]]]]]]]]],
    ],
    ids=["list", "dict", "deep"],
)
def test_huge_values_take_no_time(make: Callable[[], Any]) -> None:
    value = make()
    best = min(_seconds(value) for _ in range(5))
    assert best < 0.01


def _seconds(value: Any) -> float:
    began = time.thread_time()
    snapshot_state(value)
    return time.thread_time() - began


class Raising(dict[str, Any]):
    """A state that raises whenever it is looked at."""

    def __len__(self) -> int:
        raise RuntimeError("don't")


def test_what_raises_costs_itself_only() -> None:
    with traced() as stage:
        step: RunnableLambda[str, Any] = RunnableLambda(lambda _: Raising(a=1))
        step.invoke("x", config=stage.config)
        span = stage.span()
        assert stage.relay.stats().attributes_omitted == 1
    assert span.attributes["input.value"] == "x"
    assert "output.value" not in span.attributes


def test_cycles_end() -> None:
    state: dict[str, Any] = {"messages": [HumanMessage("hi")]}
    state["self"] = state
    with traced() as stage:
        RunnableLambda(lambda x: x).invoke(state, config=stage.config)
        span = stage.span()
    assert len(span.attributes["input.value"]) < 20_000
    assert "left out by arthur-relay" in span.attributes["input.value"]


def test_of_a_result_no_response_of_the_provider_is_kept() -> None:
    message = AIMessage("a", response_metadata={"headers": {"secret": "1"}, "model": "m"})
    generation = ChatGeneration(message=message, generation_info={"body": "secret", "n": 1})
    kept, size = snapshot_result([[generation]], {"headers": "secret", "model_name": "m"})
    assert size > 0
    fields = kept["generations"][0][0].fields
    assert fields["generation_info"] == {"n": 1}
    assert fields["message"].fields["response_metadata"] == {"model": "m"}
    assert kept["llm_output"] == {"model_name": "m"}
    assert message.response_metadata["headers"]  # the application's own is as it was


def test_parameters_are_copied_without_the_values_in_them() -> None:
    tools = [{"name": "f"}]
    params = {"model": "m", "tools": tools}
    kept, size = snapshot_parameters(params)
    tools.append({"name": "g"})
    params["model"] = "n"
    assert kept == {"model": "m", "tools": [{"name": "f"}]}
    assert size > 0
    assert snapshot_parameters({}) == (None, 0)


def test_how_long_images_may_be_is_said_by_openinferences_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states._longest_image.cache_clear()
    monkeypatch.setenv(VARIABLE, "50000")
    try:
        kept, _ = snapshot_state({"a": f"data:image/png;base64,{'A' * 40_000}"})
        assert len(kept["a"]) > 40_000
        kept, _ = snapshot_state({"a": f"data:image/png;base64,{'A' * 50_000}"})
        assert kept["a"] == REDACTED
    finally:
        states._longest_image.cache_clear()
