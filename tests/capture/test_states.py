"""What is kept of inputs and outputs: shallow, bounded, and nothing raised."""

from __future__ import annotations

import time
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration
from langchain_core.runnables import RunnableLambda

from arthur_relay.capture import states
from arthur_relay.capture.results import snapshot_result
from arthur_relay.capture.states import (
    REDACTED,
    SHARED_BYTES,
    SHARED_COPIES,
    STATE_DEPTH,
    STATE_VISITS,
    MessageCopies,
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


def change(message: AIMessage, what: str) -> None:
    match what:
        case "field":
            message.content = "b"
        case "block":
            message.content[0]["text"] = "b"  # type: ignore[index] # its content is a list
        case "arguments":
            message.tool_calls[0]["args"]["x"].append(2)
        case "new key":
            message.response_metadata["late"] = True
        case "filled":
            message.additional_kwargs["late"] = 1
        case "no field":
            del message.__dict__["usage_metadata"]
        case _:
            message.id = Uncomparable()  # type: ignore[assignment] # as odd as it can be


class Uncomparable:
    """Raises when it is compared."""

    def __eq__(self, _other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize(
    "what", ["field", "block", "arguments", "new key", "filled", "no field", "uncomparable"]
)
def test_a_message_is_copied_again_only_when_it_has_changed(what: str) -> None:
    calls: list[Any] = [{"name": "f", "args": {"x": [1]}, "id": "1", "type": "tool_call"}]
    message = AIMessage([{"type": "text", "text": "a"}], tool_calls=calls, id="2")
    before = deepcopy(message.__dict__)
    copies = MessageCopies()
    first, size = snapshot_state([message], copies)
    again, same_size = snapshot_state({"messages": [message]}, copies)
    assert again["messages"][0] is first[0]
    assert same_size > size - 200  # a run counts it as if it were its own
    change(message, what)
    (changed,), _ = snapshot_state([message], copies)
    assert changed.fields == message.__dict__
    assert first[0].fields == before


def test_a_copy_that_has_more_than_copies_in_it_is_not_taken_again() -> None:
    deep: Any = {"leaf": []}
    for _ in range(STATE_DEPTH):
        deep = {"deep": deep}
    for kept_as_it_is in (deep, object(), {1, 2}, dict.fromkeys(range(STATE_VISITS + 1))):
        message = ToolMessage("a", tool_call_id="1", artifact=kept_as_it_is)
        copies = MessageCopies()
        (first,), _ = snapshot_state([message], copies)
        (second,), _ = snapshot_state([message], copies)
        assert first is not second


def test_a_copy_takes_the_room_of_its_values_again() -> None:
    message = HumanMessage("a", additional_kwargs={"n": list(range(STATE_VISITS // 2 + 1))})
    copies = MessageCopies()
    (first, _), _ = snapshot_state([message, message], copies)
    assert first.fields["additional_kwargs"]["n"] is not message.additional_kwargs["n"]
    (again, beyond), _ = snapshot_state([message, message], copies)
    assert again is first
    assert beyond.fields["additional_kwargs"]["n"] is message.additional_kwargs["n"]


def test_of_another_message_at_the_same_place_a_copy_is_made() -> None:
    copies = MessageCopies()
    message = HumanMessage("a")
    snapshot_state([message], copies)
    other = AIMessage("a", id=message.id)
    copies._copies[id(other)] = copies._copies[id(message)]
    assert copies.find(other) is None


def test_few_copies_are_remembered() -> None:
    copies = MessageCopies()
    messages = [HumanMessage("a") for _ in range(SHARED_COPIES + 10)]
    snapshot_state(messages, copies)
    for message in messages:
        snapshot_state(message, copies)
    assert len(copies._copies) <= SHARED_COPIES
    for size in (SHARED_BYTES, SHARED_BYTES // 4 - 2_000):
        large = [HumanMessage("a" * size) for _ in range(6)]
        snapshot_state(large, copies)
        assert sum(size for _, size, _ in copies._copies.values()) <= SHARED_BYTES


def test_no_copy_is_remembered_when_no_run_is_open() -> None:
    state = {"messages": [HumanMessage("hi")]}
    with traced() as stage:
        RunnableLambda(lambda x: x).invoke(state, config=stage.config)
        copies = stage.handler._copies
        assert copies is not None
        assert not copies._copies


def test_a_message_that_a_node_changes_is_shown_as_each_run_had_it() -> None:
    def change_it(state: dict[str, Any]) -> dict[str, Any]:
        state["messages"][0].content = "after"
        return state

    state = {"messages": [HumanMessage("before")]}
    chain = RunnableLambda(change_it).with_config(run_name="first") | RunnableLambda(
        lambda x: x
    ).with_config(run_name="second")
    with traced() as stage:
        chain.invoke(state, config=stage.config)
        spans = {span.name: span.attributes for span in stage.spans()}
    assert "before" in spans["first"]["input.value"]
    assert "after" in spans["first"]["output.value"]
    assert "after" in spans["second"]["input.value"]
    assert "before" in spans["RunnableSequence"]["input.value"]
    assert spans["second"]["llm.input_messages.0.message.content"] == "after"
    assert spans["first"]["llm.input_messages.0.message.content"] == "before"


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


def test_a_copy_of_a_result_keeps_no_response_from_other_runs() -> None:
    message = AIMessage("a", response_metadata={"headers": {"x": "1"}, "model": "m"})
    copies = MessageCopies()
    (of_node,), _ = snapshot_state([message], copies)
    kept, _ = snapshot_result([[ChatGeneration(message=message)]], None, copies)
    assert of_node.fields["response_metadata"] == message.response_metadata
    assert "headers" not in kept["generations"][0][0].fields["message"].fields["response_metadata"]


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
