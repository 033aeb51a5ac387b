"""Splitting a request of OTLP: every span as it was sent. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from arthur_relay.daemon.refusals import NotRowsError, TooManyRowsError
from arthur_relay.daemon.span_splitter import (
    NO_NAME,
    NO_SPAN_ID,
    NO_TASK_ID,
    NO_TRACE_ID,
    NOT_OTLP,
    UNMAPPED,
    SplitSpans,
    split_spans,
)
from arthur_relay.destinations.engine.rows import joined, length, row_body
from tests.daemon.traces import request, resource
from tests.destinations.engine.spans import TRACE, row_id, span

TASK = "b0d9ad8e-6d2c-4a6e-9f39-7fe6bc9d6c39"
NOW = 1_800_000_000_000_000_000


def read(body: bytes, **limits: Any) -> SplitSpans:
    bounds = {"max_rows": 1000, "max_row_bytes": 100_000, "max_bytes": 1_000_000, **limits}
    return split_spans(body, now_ns=NOW, **bounds)


def parsed(body: bytes) -> ExportTraceServiceRequest:
    found = ExportTraceServiceRequest()
    found.ParseFromString(body)
    return found


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
some_spans = st.builds(
    lambda number, parent, text, count: span(number, parent=parent, name=text, x=text, y=count),
    st.integers(1, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=50),
    st.integers(-(2**63), 2**63 - 1),
)
urls = st.sampled_from(["", "https://opentelemetry.io/schemas/1.30.0", "x" * 200])
scopes = st.builds(
    lambda name, url, spans: ScopeSpans(
        scope=InstrumentationScope(name=name), schema_url=url, spans=spans
    ),
    names,
    urls,
    st.lists(some_spans, max_size=3),
)
groups = st.builds(
    lambda name, url, found: ResourceSpans(
        resource=resource(service__name=name), schema_url=url, scope_spans=found
    ),
    names,
    urls,
    st.lists(scopes, max_size=3),
)


def everything(body: bytes) -> list[tuple[Any, ...]]:
    """Each span of a request, with its resource and scope and the addresses of their schemas."""
    return [
        (group.resource, group.schema_url, scope.scope, scope.schema_url, each)
        for group in parsed(body).resource_spans
        for scope in group.scope_spans
        for each in scope.spans
    ]


@given(st.lists(groups, max_size=3))
def test_every_span_goes_on_as_it_was_sent(sent: list[ResourceSpans]) -> None:
    body = ExportTraceServiceRequest(resource_spans=sent).SerializeToString()
    found = read(body)
    expected = everything(body)
    assert [each for row in found.rows for each in everything(row.body)] == expected
    assert [row.id for row in found.rows] == [
        f"{each.trace_id.hex()}-{each.span_id.hex()}" for *_, each in expected
    ]
    assert [row in found.roots for row in found.rows] == [
        not each.parent_span_id for *_, each in expected
    ]
    assert (found.total, found.refused, found.repaired) == (len(expected), [], 0)
    again = everything(b"".join(joined(row.body for row in found.rows)))
    assert len(again) == len(expected)
    assert all(each in again for each in expected)


@given(st.binary(max_size=200))
def test_no_body_does_harm(body: bytes) -> None:
    try:
        found = read(body)
    except NotRowsError:
        return
    assert len(found.rows) + len(found.refused) == found.total


@given(st.lists(groups, min_size=1, max_size=2), st.data())
def test_a_cut_body_is_refused_or_shorter(sent: list[ResourceSpans], data: st.DataObject) -> None:
    body = ExportTraceServiceRequest(resource_spans=sent).SerializeToString()
    cut = body[: data.draw(st.integers(0, len(body)))]
    try:
        found = read(cut)
    except NotRowsError:
        return
    assert found.total <= read(body).total


def only(**ids: bytes) -> Span:
    made = span(1)
    for name, each in ids.items():
        setattr(made, name, each)
    return made


@pytest.mark.parametrize(
    ("made", "attributes", "reason"),
    [
        (only(trace_id=b""), {}, NO_TRACE_ID),
        (only(trace_id=bytes(16)), {}, NO_TRACE_ID),
        (only(trace_id=b"1" * 17), {}, NO_TRACE_ID),
        (only(span_id=b""), {}, NO_SPAN_ID),
        (only(span_id=bytes(8)), {}, NO_SPAN_ID),
        (span(1), {"arthur__task": "a name"}, NO_TASK_ID),
        (span(1), {"arthur__task": 7}, NO_TASK_ID),
        (span(1), {"service__name": "a\0b"}, NO_NAME),
        (span(1), {"service__name": "x" * 256}, NO_NAME),
        (span(1, text="x" * 100_000), {}, "the span has 100"),
    ],
)
def test_spans_that_are_refused(made: Span, attributes: dict[str, Any], reason: str) -> None:
    found = read(request(made, span(2), **attributes).SerializeToString())
    assert found.refused[0].startswith(reason)
    assert len(found.rows) == (0 if attributes else 1)


@pytest.mark.parametrize(
    ("attributes", "task"),
    [
        ({"arthur__task": TASK, "service__name": "a bot"}, TASK),
        ({"service__name": "Grüße"}, "Grüße"),
        ({"service__name": ""}, UNMAPPED),
        ({"service__name": 3}, UNMAPPED),
        ({}, UNMAPPED),
    ],
)
def test_tasks(attributes: dict[str, Any], task: str) -> None:
    (row,) = read(request(span(1), **attributes).SerializeToString()).rows
    assert row.model_id == task


@pytest.mark.parametrize(
    ("start", "end", "times"),
    [
        (5, 7, (5, 7)),
        (5, 0, (5, 5)),
        (0, 7, (7, 7)),
        (0, 0, (NOW, NOW)),
    ],
)
def test_missing_times_are_added(start: int, end: int, times: tuple[int, int]) -> None:
    found = read(request(span(1, start=start, end=end)).SerializeToString())
    (row,) = found.rows
    made = parsed(row.body).resource_spans[0].scope_spans[0].spans[0]
    assert (made.start_time_unix_nano, made.end_time_unix_nano) == times
    assert found.repaired == (0 in (start, end))


def test_bounds() -> None:
    body = request(*[span(number) for number in range(1, 5)]).SerializeToString()
    assert len(read(body, max_rows=4).rows) == 4
    with pytest.raises(TooManyRowsError, match="more than the 3 spans"):
        read(body, max_rows=3)
    # A large resource with many small spans would take much more than the body has.
    many = [span(number) for number in range(1, 51)]
    large = request(*many, service__version="x" * 50_000).SerializeToString()
    with pytest.raises(TooManyRowsError, match="too many bytes"):
        read(large)


def test_unknown_fields_are_left_out_and_a_field_may_come_twice() -> None:
    made = span(1).SerializeToString()
    twice = made + b"\x12\x08" + (2).to_bytes(8, "big")  # of an id, the last one counts
    scope = b"\x12" + bytes((len(twice),)) + twice + b"\x1a\x03url" + b"\xfa\x01\x01x"
    group = b"\x12" + bytes((len(scope),)) + scope + b"\x1a\x03url"
    (row,) = read(b"\x0a" + bytes((len(group),)) + group + b"\x28\x01\x35abcd").rows
    assert row.id == row_id(2, TRACE)
    assert parsed(row.body).resource_spans[0].schema_url == "url"
    with pytest.raises(NotRowsError):
        read(b"\x0b\x0c")  # a group, which protobuf has given up


def test_an_address_that_is_no_text_costs_no_span() -> None:
    scope = row_body(b"", b"", span(1).SerializeToString())[2:]
    group = scope + b"\x1a\x04a\0\xffb"
    found = read(b"\x0a" + length(len(group)) + group)
    (row,) = found.rows
    assert parsed(row.body).resource_spans[0].schema_url == "a\ufffdb"
    assert found.repaired == 1


def nested(levels: int, *, in_objects: bool = False) -> AnyValue:
    """A value in lists, or in objects."""
    found = AnyValue(string_value="inside")
    for _ in range(levels):
        outer = AnyValue()
        if in_objects:
            outer.kvlist_value.values.add(key="k").value.CopyFrom(found)
        else:
            outer.array_value.values.append(found)
        found = outer
    return found


def with_value(given: bytes) -> bytes:
    """The bytes of a span with an attribute `x`, whose value is given in bytes."""
    attribute = b"\x0a\x01x\x12" + length(len(given)) + given
    good: bytes = span(1).SerializeToString()
    return good + b"\x4a" + length(len(attribute)) + attribute


def deep(levels: int) -> bytes:
    """The bytes of a value in lists, however many: no library makes more than a hundred."""
    found = b"\x0a\x06inside"
    for _ in range(levels):
        inside = b"\x0a" + length(len(found)) + found
        found = b"\x2a" + length(len(inside)) + inside
    return found


def in_request(*contents: bytes) -> bytes:
    """The bytes of a request with spans that are given in bytes."""
    spans = b"".join(b"\x12" + length(len(each)) + each for each in contents)
    group = b"\x12" + length(len(spans)) + spans
    return b"\x0a" + length(len(group)) + group


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(with_value(deep(48)), id="deeper than a request may be"),
        pytest.param(with_value(deep(90)), id="deeper than a span may be"),
        pytest.param(with_value(deep(3000)), id="deeper than Python may be"),
        pytest.param(with_value(nested(40, in_objects=True).SerializeToString()), id="in objects"),
        pytest.param(with_value(b"\x0a\x02\xff\x00"), id="not UTF-8"),
        pytest.param(with_value(b"\x2a\x02\x0a\x7f"), id="a value that is cut"),
        pytest.param(span(1).SerializeToString() + b"\x2a\x01\xff", id="a name that is not UTF-8"),
        pytest.param(span(1).SerializeToString() + b"\x5a\x01\x0a", id="an event that is cut"),
    ],
)
def test_what_can_t_be_decoded_of_a_span_is_left_out(given: bytes) -> None:
    found = read(in_request(span(2).SerializeToString(), given, span(3).SerializeToString()))
    assert [row.id for row in found.rows] == [row_id(2, TRACE), row_id(1, TRACE), row_id(3, TRACE)]
    assert (found.refused, found.repaired) == ([], 1)
    together = parsed(b"".join(joined(row.body for row in found.rows)))
    assert "\0" not in str(together)


def test_what_is_nested_too_deeply_becomes_a_text() -> None:
    (row,) = read(in_request(with_value(deep(60)))).rows
    value = parsed(row.body).resource_spans[0].scope_spans[0].spans[0].attributes[-1].value
    levels = 0
    while value.WhichOneof("value") == "array_value":
        value, levels = value.array_value.values[0], levels + 1
    assert (value.string_value, levels) == ("[nested too deeply]", 44)


@pytest.mark.parametrize("levels", [1, 20, 44])
def test_what_is_not_nested_too_deeply_stays_as_it_is(levels: int) -> None:
    sent = with_value(nested(levels).SerializeToString())
    found = read(in_request(sent))
    assert sent in found.rows[0].body
    assert found.repaired == 0


@pytest.mark.parametrize("given", [b"\x0a", b"\xff\xff", b"\x0b", b"\x0a\x7fshort"])
def test_a_span_that_is_no_message_is_refused_alone(given: bytes) -> None:
    found = read(in_request(span(1).SerializeToString(), given, span(2).SerializeToString()))
    assert [row.id for row in found.rows] == [row_id(1, TRACE), row_id(2, TRACE)]
    assert (found.refused, found.total) == ([NOT_OTLP], 3)


def test_a_resource_or_scope_that_can_t_be_decoded_costs_no_other() -> None:
    good = request(span(1), arthur__task=TASK).SerializeToString()
    no_text = b"\x0a\x09\x0a\x01y\x12\x04\x0a\x02\xff\xff"
    made: bytes = span(2).SerializeToString()
    scope = b"\x0a\x03\x0a\x01\xff" + b"\x12" + length(len(made)) + made
    for sent, refused in ((no_text, []), (b"\x0a\x7f", [NOT_OTLP])):
        group = b"\x0a" + length(len(sent)) + sent + b"\x12" + length(len(scope)) + scope
        found = read(good + b"\x0a" + length(len(group)) + group)
        assert found.refused == refused
        again = parsed(b"".join(joined(row.body for row in found.rows)))
        assert len(again.resource_spans) == len(found.rows) == 2 - len(refused)
