"""Rows' bytes are what protobuf writes, alone and joined."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from arthur_relay.destinations.engine.rows import (
    UnframedError,
    joined,
    length,
    row_body,
    row_body_with_urls,
    split,
)
from arthur_relay.destinations.engine.task import Task

from .spans import TRACE, row, span, value

pytestmark = pytest.mark.one_python

resources = st.sampled_from(["", "a", "b" * 200]).map(
    lambda name: Resource(attributes=[KeyValue(key="arthur.task", value=value(name))] * bool(name))
)
scopes = st.sampled_from(["", "x", "y" * 300]).map(lambda name: InstrumentationScope(name=name))
spans = st.builds(
    lambda number, text: span(number, input__value=text),
    st.integers(0, 2**64 - 1),
    st.one_of(st.text(max_size=20), st.sampled_from(["t" * 127, "t" * 20_000])),
)
parts = st.lists(st.tuples(resources, scopes, spans), max_size=30)


def whole(resource: Resource, scope: InstrumentationScope, *made: Span) -> ResourceSpans:
    found = ResourceSpans(scope_spans=[ScopeSpans(spans=made)])
    found.resource.CopyFrom(resource)
    found.scope_spans[0].scope.CopyFrom(scope)
    return found


def body_of(resource: Resource, scope: InstrumentationScope, made: Span) -> bytes:
    return row_body(
        resource.SerializeToString(), scope.SerializeToString(), made.SerializeToString()
    )


@given(resources, scopes, spans)
def test_a_row_is_a_request_as_protobuf_writes_it(
    resource: Resource, scope: InstrumentationScope, made: Span
) -> None:
    wanted = ExportTraceServiceRequest(resource_spans=[whole(resource, scope, made)])
    body = body_of(resource, scope, made)
    assert body == wanted.SerializeToString()
    assert split(body) == (
        resource.SerializeToString(),
        scope.SerializeToString(),
        made.SerializeToString(),
    )


@given(parts)
def test_joined_rows_are_a_request_with_equal_resources_once(
    given_: list[tuple[Resource, InstrumentationScope, Span]],
) -> None:
    wanted = ExportTraceServiceRequest()
    of_resource: dict[bytes, ResourceSpans] = {}
    of_scope: dict[tuple[bytes, bytes], ScopeSpans] = {}
    for resource, scope, made in given_:
        key = resource.SerializeToString()
        if key not in of_resource:
            of_resource[key] = wanted.resource_spans.add()
            of_resource[key].resource.CopyFrom(resource)
        pair = key, scope.SerializeToString()
        if pair not in of_scope:
            of_scope[pair] = of_resource[key].scope_spans.add()
            of_scope[pair].scope.CopyFrom(scope)
        of_scope[pair].spans.append(made)
    bodies = [body_of(*each) for each in given_]
    assert b"".join(joined(bodies)) == wanted.SerializeToString()


def test_equal_addresses_of_schemas_are_sent_once() -> None:
    def body(number: int, resource_url: str, scope_url: str) -> bytes:
        return row_body_with_urls(
            Task.named("t").resource(),
            InstrumentationScope(name="s").SerializeToString(),
            span(number).SerializeToString(),
            resource_url=resource_url.encode(),
            scope_url=scope_url.encode(),
        )

    bodies = [body(1, "r", "s"), body(2, "", "s"), body(3, "r", "s"), body(4, "r", "")]
    for resource_of in (None, Task("t", task_id="id", service_name="t").resolve):
        request = ExportTraceServiceRequest.FromString(b"".join(joined(bodies, resource_of)))
        assert [
            (group.schema_url, scope.schema_url, scope.scope.name, len(scope.spans))
            for group in request.resource_spans
            for scope in group.scope_spans
        ] == [("r", "s", "s", 2), ("r", "", "s", 1), ("", "s", "s", 1)]
        key = "service.name" if resource_of is None else "arthur.task"
        assert {each.resource.attributes[0].key for each in request.resource_spans} == {key}
    assert split(bodies[0]) == split(row_body(*split(bodies[0])))
    for end in range(len(bodies[0])):
        assert not is_framed(bodies[0][:end])


@given(st.lists(st.binary(max_size=60), max_size=5), parts)
def test_what_is_framed_otherwise_is_left_as_it_is(
    others: list[bytes], given_: list[tuple[Resource, InstrumentationScope, Span]]
) -> None:
    bodies = [body_of(*each) for each in given_]
    others = [each for each in others if not is_framed(each)]
    assert b"".join(joined([*others, *bodies])) == b"".join([*joined(bodies), *others])


def is_framed(body: bytes) -> bool:
    try:
        split(body)
    except UnframedError:
        return False
    return True


def test_a_cut_row_is_left_as_it_is() -> None:
    body = row(1, task="t", input__value="i" * 300).body
    for end in range(len(body)):
        assert not is_framed(body[:end])
        assert b"".join(joined([body[:end]])) == body[:end]


def test_a_request_of_two_spans_is_left_as_it_is() -> None:
    found = whole(Resource(), InstrumentationScope(), span(1), span(2))
    body = ExportTraceServiceRequest(resource_spans=[found]).SerializeToString()
    assert list(joined([body])) == [body]


@given(st.integers(0, 2**31 - 1))
def test_lengths(size: int) -> None:
    found = Span(dropped_links_count=size).SerializeToString()
    assert size == 0 or found.endswith(length(size))


@pytest.mark.parametrize(
    ("task", "key"),
    [("b0d9ad8e-6d2c-4a6e-9f39-7fe6bc9d6c39", "arthur.task"), ("my-chatbot", "service.name")],
)
def test_the_resource_of_a_task(task: str, key: str) -> None:
    found = Resource.FromString(Task.named(task, service_version="7").resource())
    texts = {each.key: each.value.string_value for each in found.attributes}
    assert texts.pop("telemetry.sdk.version")
    assert texts == {
        key: task,
        "service.version": "7",
        "telemetry.sdk.name": "arthur-relay",
        "telemetry.sdk.language": "python",
    }
    again = Resource.FromString(Task.named(task, service_version="7").resource())
    assert again.SerializeToString() == Task.named(task, service_version="7").resource()


def test_a_task_as_text() -> None:
    task = Task("bot", task_id="b0d9ad8e-6d2c-4a6e-9f39-7fe6bc9d6c39", service_version="7")
    assert Task.from_text("bot", task.to_text()) == task
    assert Task.from_text("other", task.to_text()) is None
    for text in ("", "[]", "{", '{"id": "bot"}', '{"id": "bot", "task_id": 7}'):
        assert Task.from_text("bot", text) is None


def test_a_task_id_is_a_uuid_in_any_case() -> None:
    assert Task.named("B0D9AD8E-6D2C-4A6E-9F39-7FE6BC9D6C39").task_id == (
        "b0d9ad8e-6d2c-4a6e-9f39-7fe6bc9d6c39"
    )
    assert Task.named(TRACE).task_id is None, "32 digits may be a name"
