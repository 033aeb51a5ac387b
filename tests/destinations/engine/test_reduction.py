"""A span that the Engine refuses for its content is sent once more, in a form that it takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from arthur_relay.destinations.engine.encoder import EngineRowFormat
from arthur_relay.destinations.engine.hiding import Hiding
from arthur_relay.destinations.engine.reduction import (
    DROPPED,
    MAX_NAMES,
    MAX_TEXT_BYTES,
    reduced_body,
)
from arthur_relay.destinations.engine.rows import row_body
from arthur_relay.encoding.omissions import NoOmissions
from arthur_relay.row import Row, RowKind
from arthur_relay.sandbox.engine.spans import Span as SandboxSpan
from arthur_relay.sandbox.engine.spans import read_request
from arthur_relay.sandbox.engine.validation import breakage, rejection

from .conftest import TASK
from .spans import SCOPE, feedback, row, row_id, span
from .test_pipeline import FULL_BATCHES, stored, submit

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay import Relay
    from arthur_relay.sandbox import ArthurSandbox

POISON: dict[str, dict[str, Any]] = {
    "a NUL in the input": {"input__value": "ask\0ed"},
    "a NUL as an escape": {
        "input__value": '{"a": "\\u0000"}',
        "input__mime_type": "application/json",
    },
    "a NUL elsewhere": {"my__own": "\0"},
    "a NUL in the name": {"name": "a\0b"},
    "no number": {"my__score": math.nan},
    "no times": {"start": 0, "end": 0},
    "no start": {"start": 0},
    "a count beyond 32 bits": {"llm__token_count__total": 2**40},
    "a count that is a text": {"llm__token_count__total": "many"},
    "a key with a slash": {"metadata": '{"a/b": 1}'},
    "deep JSON": {"metadata": "[" * 5_000 + "]" * 5_000},
}


def read(body: bytes) -> SandboxSpan:
    (found,) = read_request(body)
    return found


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_a_poisoned_span_arrives_without_its_poison(
    poison: dict[str, Any], sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(**FULL_BATCHES)
    facts = {"output__value": "told", "llm__model_name": "gpt-5", "llm__token_count__prompt": 7}
    submit(relay, row(1, task=TASK, **{**facts, **poison}), *[row(n, task=TASK) for n in (2, 3)])
    result = relay.flush(30)
    assert (result.delivered, result.rejected) == (3, 0)
    assert stored(sandbox) == {row_id(1): 1, row_id(2): 1, row_id(3): 1}
    assert relay.dead_letters() == []
    (found,) = [each for each in sandbox.spans if each["span_id"].endswith("1")]
    attributes = found["raw_data"]["attributes"]
    assert attributes["output.value"] == "told"
    assert attributes["llm.model_name"] == "gpt-5"
    assert attributes["llm.token_count.prompt"] == 7
    left_out = {key.replace("__", ".") for key in poison} - {
        *("start", "end", "name", "input.value", "input.mime_type")
    }
    assert set(attributes[DROPPED]) == left_out
    assert relay.stats().attributes_omitted == len(left_out)


def test_what_is_refused_in_this_form_too_is_kept_as_it_was(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    sandbox.faults.status(422, times=None, routes=["traces"])
    relay = make_relay()
    bad = row(1, task=TASK, metadata='{"a/b": 1}')
    submit(relay, bad)
    assert relay.flush(30).rejected == 1
    (letter,) = relay.dead_letters()
    assert letter.body == bad.body


def test_facts_stay() -> None:
    body = row(
        1,
        task=TASK,
        session__id="s",
        user__id="u",
        llm__input_messages__0__message__role="user",
        llm__input_messages__0__message__content="hello",
        llm__input_messages__0__message__tool_call_id="1",
        parent=5,
        **{f"other{number}": number for number in range(200)},
    ).body
    found = reduced_body(body)
    assert found is not None
    before, after = read(body), read(found.body)
    for name in ("trace_id", "span_id", "parent_id", "name", "start_ns", "end_ns", "resource"):
        assert getattr(after, name) == getattr(before, name)
    assert {name: value for name, value in after.attributes.items() if name != DROPPED} == {
        "openinference.span.kind": "LLM",
        "session.id": "s",
        "user.id": "u",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "hello",
    }
    assert len(found.dropped) == 201
    assert len(after.attributes[DROPPED]) == MAX_NAMES
    assert reduced_body(found.body) is None, "once"


def test_long_texts_are_cut() -> None:
    made = row(1, task=TASK, input__value="ä" * MAX_TEXT_BYTES)
    found = reduced_body(made.body)
    assert found is not None
    after = read(found.body)
    assert len(after.attributes["input.value"].encode()) <= MAX_TEXT_BYTES


@pytest.mark.parametrize("body", [b"", b"no protobuf", row(1, task=TASK).body * 2])
def test_what_is_no_row_of_one_span_stays(body: bytes) -> None:
    rows = EngineRowFormat(Hiding())
    assert rows.reduced(Row("id", TASK, body), NoOmissions()) is None


def test_feedback_stays() -> None:
    rows = EngineRowFormat(Hiding())
    given_one = feedback(1, task=TASK, body=b"{}")
    assert given_one.kind is RowKind.GROUND_TRUTH
    assert rows.reduced(given_one, NoOmissions()) is None


TEXTS = st.text(max_size=8) | st.sampled_from(["\0", '{"a/b":"\\u0000"}', "[" * 2_000])
VALUES = st.recursive(
    st.builds(lambda text: AnyValue(string_value=text), TEXTS.filter(lambda t: t.isascii()))
    | st.builds(lambda n: AnyValue(int_value=n), st.integers(-(2**63), 2**63 - 1))
    | st.builds(lambda n: AnyValue(double_value=n), st.floats())
    | st.builds(lambda n: AnyValue(bool_value=n), st.booleans())
    | st.builds(lambda n: AnyValue(bytes_value=n), st.binary(max_size=4)),
    lambda inner: st.builds(
        lambda key, value: AnyValue(
            kvlist_value=KeyValueList(values=[KeyValue(key=key, value=value)])
        ),
        st.sampled_from(["a", "a/b", "\0"]),
        inner,
    ),
    max_leaves=4,
)
NAMES = st.sampled_from(
    [
        *("input.value", "input.mime_type", "output.value", "metadata", "session.id", "a/b", "\0"),
        *("llm.token_count.prompt", "llm.token_count.prompt_details.audio", "llm.cost.total"),
        *("llm.input_messages.0.message.content", "llm.input_messages.0.message.contents.0"),
        *("llm.output_messages.99999.message.role", "tool.parameters", "llm.model_name"),
    ]
)


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=12, unique_by=lambda pair: pair[0]),
    st.sampled_from(["", "a\0", "a/b"]),
    st.integers(0, 2**64 - 1),
)
def test_the_engine_takes_it_whatever_it_was(
    attributes: list[tuple[str, AnyValue]], name: str, start: int
) -> None:
    made = span(1, name=name, start=start, end=0)
    made.attributes.extend(KeyValue(key=key, value=value) for key, value in attributes)
    made.events.add(name="\0").attributes.add(key="a/b").value.double_value = math.nan
    made.links.add(trace_id=b"1")
    made.status.message = name
    resource = Resource(attributes=[KeyValue(key="my\0own", value=AnyValue(string_value="\0"))])
    body = row_body(resource.SerializeToString(), SCOPE, made.SerializeToString())
    found = reduced_body(body)
    assert found is not None
    after = read(found.body)
    assert rejection(after) is None
    assert breakage(after) is None
    assert after.resource == {}
    request = ExportTraceServiceRequest.FromString(found.body)
    (kept,) = request.resource_spans[0].scope_spans[0].spans
    assert isinstance(kept, Span)
    assert not kept.events
    assert not kept.links
