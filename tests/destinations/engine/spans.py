"""Spans and rows, made by the field's own library."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from arthur_relay.destinations.engine.rows import row_body
from arthur_relay.destinations.engine.task import Task
from arthur_relay.row import Batch, Row, RowKind

TRACE = "0af7651916cd43dd8448eb211c80319c"
SCOPE = InstrumentationScope(name="arthur-relay", version="1").SerializeToString()


def value(given: Any) -> AnyValue:
    match given:
        case bool():
            return AnyValue(bool_value=given)
        case int():
            return AnyValue(int_value=given)
        case float():
            return AnyValue(double_value=given)
        case _:
            return AnyValue(string_value=given)


def span(
    number: int = 1,
    *,
    trace: str = TRACE,
    parent: int = 0,
    name: str = "call",
    start: int = 1_700_000_000_000_000_000,
    end: int = 1_700_000_001_500_000_000,
    **attributes: Any,
) -> Span:
    """A span; underscores in the names of attributes stand for dots where they are doubled."""
    return Span(
        trace_id=bytes.fromhex(trace),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name,
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        attributes=[
            KeyValue(key=key.replace("__", "."), value=value(each))
            for key, each in {"openinference__span__kind": "LLM", **attributes}.items()
        ],
    )


def row_id(number: int = 1, trace: str = TRACE) -> str:
    return f"{trace}-{number:016x}"


def row(number: int = 1, *, task: str, **options: Any) -> Row:
    made = span(number, **options)
    body = row_body(Task.named(task).resource(), SCOPE, made.SerializeToString())
    return Row(row_id(number, options.get("trace", TRACE)), task, body)


def feedback(number: int = 1, *, task: str, trace: str = TRACE, body: bytes) -> Row:
    return Row(row_id(number, trace), task, body, kind=RowKind.GROUND_TRUTH)


def batch(*rows: Row) -> Batch:
    return Batch(rows[0].model_id, rows)


def request(*rows: Row) -> ExportTraceServiceRequest:
    """Rows as a request, one after the other."""
    found = ExportTraceServiceRequest()
    found.ParseFromString(b"".join(each.body for each in rows))
    return found
