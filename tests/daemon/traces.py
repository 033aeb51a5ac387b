"""Requests of OTLP as exporters send them, made by the field's own library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from tests.destinations.engine.spans import TRACE, span, value

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox

TRACES = "/api/v1/traces"
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def resource(**attributes: Any) -> Resource:
    """A resource; underscores in the names of attributes stand for dots where they are doubled."""
    return Resource(
        attributes=[
            KeyValue(key=key.replace("__", "."), value=value(each))
            for key, each in attributes.items()
        ]
    )


def request(*spans: Span, **attributes: Any) -> ExportTraceServiceRequest:
    """A request with spans of one resource."""
    scope = ScopeSpans(scope=InstrumentationScope(name="a scope", version="1"), spans=spans)
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource(**attributes), scope_spans=[scope])]
    )


def body(*numbers: int, task: str, **options: Any) -> bytes:
    """The bytes of a request with spans of some numbers, of a task that there is."""
    spans = [span(number, **options) for number in numbers]
    found: bytes = request(*spans, arthur__task=task).SerializeToString()
    return found


def stored(sandbox: ArthurSandbox) -> list[str]:
    """The ids of the spans that a sandbox has, in order of arrival."""
    return [each["span_id"] for each in sandbox.spans]


def hex_id(number: int) -> str:
    """A span's id, as the Engine shows it."""
    return f"{number:016x}"


__all__ = ["PROTOBUF", "TRACE", "TRACES", "body", "hex_id", "request", "span", "stored"]
