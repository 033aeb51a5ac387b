"""Spans of any exporter are read for people, with all that they say."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from arthur_relay.destinations.engine.span_reading import UnreadableSpanError, described_spans

from .spans import span


def body(*spans: Span) -> bytes:
    scopes = [ScopeSpans(spans=[each]) for each in spans]
    request = ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=scopes)])
    return bytes(request.SerializeToString())


def read(value: AnyValue) -> Any:
    found = span()
    found.attributes.append(KeyValue(key="given", value=value))
    (described,) = described_spans(body(found))
    assert orjson.dumps(described), "it can be shown"
    return described["attributes"]["given"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (AnyValue(string_value="a"), "a"),
        (AnyValue(string_value='{"a": [1]}'), {"a": [1]}),
        (AnyValue(string_value="[no JSON"), "[no JSON"),
        (AnyValue(string_value='{"a": "\\ud800"}'), '{"a": "\\ud800"}'),
        (AnyValue(int_value=-3), -3),
        (AnyValue(double_value=0.5), 0.5),
        (AnyValue(bool_value=False), False),
        (AnyValue(bytes_value=b"\xff\x00"), "/wA="),
        (AnyValue(), None),
        (
            AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue()])),
            [1, None],
        ),
        (
            AnyValue(
                kvlist_value=KeyValueList(
                    values=[KeyValue(key="k", value=AnyValue(string_value="v"))]
                )
            ),
            {"k": "v"},
        ),
    ],
)
def test_each_kind_of_value(value: AnyValue, shown: Any) -> None:
    assert read(value) == shown


def test_what_is_nested_deeply_is_shown() -> None:
    value = AnyValue(int_value=1)
    for _ in range(40):  # protobuf takes no more
        value = AnyValue(array_value=ArrayValue(values=[value]))
    found, depth = read(value), 0
    while isinstance(found, list):
        (found,) = found
        depth += 1
    assert (found, depth) == (1, 40)
    text = "[" * 600 + "]" * 600
    assert read(AnyValue(string_value=text)) == text


def test_status_events_and_times() -> None:
    given = span(2, parent=1, start=0, end=2**64 - 1)
    given.status.code = Status.STATUS_CODE_ERROR
    given.status.message = "it broke"
    event = given.events.add(name="exception", time_unix_nano=1_700_000_000_000_000_000)
    event.attributes.append(KeyValue(key="exception.type", value=AnyValue(string_value="E")))
    odd = span(3)
    odd.status.code = 7  # type: ignore[assignment] # of a later version
    first, second = described_spans(body(given, odd))
    assert first["parent_span_id"] == f"{1:016x}"
    assert (first["status"], first["status_message"]) == ("error", "it broke")
    assert first["events"] == [
        {
            "name": "exception",
            "at": "2023-11-14T22:13:20+00:00",
            "attributes": {"exception.type": "E"},
        }
    ]
    assert first["start"] is None
    assert first["end"].startswith("2554-")
    assert second["status"] == "7"


@pytest.mark.parametrize("given", [b"\x0a\xff", b"\x0a\x02\xff\xff", b"no request"])
def test_what_is_none_is_one_error(given: bytes) -> None:
    with pytest.raises(UnreadableSpanError, match="no request of OpenTelemetry"):
        described_spans(given)
