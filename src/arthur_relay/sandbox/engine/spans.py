"""Spans: read from a request of OTLP, in protobuf."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class NotProtobufError(ValueError):
    """A request's body that is no `ExportTraceServiceRequest`."""


class NoLibraryError(RuntimeError):
    """The library that reads spans is not installed."""


@dataclass(frozen=True, slots=True)
class Span:
    """One span of a request.

    Attributes:
        trace_id: In hex.
        span_id: In hex.
        parent_id: In hex; empty where there is none.
        name: Its name.
        start_ns: Nanoseconds since 1970; 0 where it is missing.
        end_ns: The same for its end.
        attributes: As sent, by their dotted names.
        events: Each with name, time and attributes.
        status_code: 0 unset, 1 ok, 2 error.
        status_message: What was said of the status.
        resource: The attributes of its resource.
        size: Bytes of its message.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: list[dict[str, Any]] = field(default_factory=list)
    status_code: int = 0
    status_message: str = ""
    resource: dict[str, Any] = field(default_factory=dict)
    size: int = 0


def read_request(body: bytes) -> list[Span]:
    """Return the spans of a request, in order; may be empty.

    Raises:
        NotProtobufError: The body is empty, or no such request.
        NoLibraryError: The extra `engine` is not installed.
    """
    try:
        # Imported here: who plays Arthur Scope alone needs none of it.
        from google.protobuf.message import DecodeError  # noqa: PLC0415 - see above
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - see above
            ExportTraceServiceRequest,
        )
    except ImportError as error:
        raise NoLibraryError(
            "the sandbox reads spans with opentelemetry-proto: pip install 'arthur-relay[engine]'"
        ) from error
    if not body:
        raise NotProtobufError("the body is empty")
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise NotProtobufError("Invalid protobuf message format") from error
    return [
        _read(span, resource)
        for group in request.resource_spans
        for resource in [_attributes(group.resource.attributes)]
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _read(span: Any, resource: dict[str, Any]) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=[
            {
                "name": event.name,
                "timestamp": event.time_unix_nano / 1e9,
                "attributes": _attributes(event.attributes),
            }
            for event in span.events
        ],
        status_code=span.status.code,
        status_message=span.status.message,
        resource=resource,
        size=span.ByteSize(),
    )


def _attributes(given: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in given}


def _value(given: Any) -> Any:
    kind = given.WhichOneof("value")
    match kind:
        case None:
            return None
        case "array_value":
            return [_value(each) for each in given.array_value.values]
        case "kvlist_value":
            return _attributes(given.kvlist_value.values)
        case "bytes_value":
            return given.bytes_value.hex()
        case _:
            return getattr(given, kind)
