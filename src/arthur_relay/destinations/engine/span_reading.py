"""Reads spans for people. Imported where one is shown only: it takes 0.1 s."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

_KIND = "openinference.span.kind"
_EPOCH = datetime.fromtimestamp(0, UTC)


class UnreadableSpanError(ValueError):
    """A body is no request of OpenTelemetry."""


def described_spans(body: bytes) -> list[dict[str, Any]]:
    """Return the spans of a row as JSON objects, with all that they say, in their order.

    Texts that are JSON objects or arrays are such, so that a person can read them.

    Args:
        body: A request, of this package or of any exporter.

    Raises:
        UnreadableSpanError: It is none.
    """
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise UnreadableSpanError("the row is no request of OpenTelemetry") from error
    return [
        {**_span(span), "resource": _attributes(group.resource.attributes), "scope": scope}
        for group in request.resource_spans
        for scoped in group.scope_spans
        for scope in [f"{scoped.scope.name} {scoped.scope.version}".strip()]
        for span in scoped.spans
    ]


def _span(span: Span) -> dict[str, Any]:
    attributes = _attributes(span.attributes)
    return {
        "name": span.name,
        "kind": attributes.get(_KIND),
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex() or None,
        "start": _moment(span.start_time_unix_nano),
        "end": _moment(span.end_time_unix_nano),
        "status": _status(span.status.code),
        "status_message": span.status.message or None,
        "attributes": attributes,
        "events": [
            {
                "name": event.name,
                "at": _moment(event.time_unix_nano),
                "attributes": _attributes(event.attributes),
            }
            for event in span.events
        ],
    }


def _moment(nanoseconds: int) -> str | None:
    if not nanoseconds:  # what was not given
        return None
    return (_EPOCH + timedelta(microseconds=nanoseconds // 1000)).isoformat()


def _status(code: int) -> str:
    name = Status.StatusCode.Name(code) if code in Status.StatusCode.values() else str(code)
    return name.removeprefix("STATUS_CODE_").lower()


def _attributes(found: Iterable[KeyValue]) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in found}


def _value(value: AnyValue) -> Any:
    """Return a value as JSON; protobuf itself refuses what is nested too deeply."""
    given = value.WhichOneof("value")
    match given:
        case "string_value":
            return _read(value.string_value)
        case "bytes_value":
            return b64encode(value.bytes_value).decode()
        case "array_value":
            return [_value(each) for each in value.array_value.values]
        case "kvlist_value":
            return {each.key: _value(each.value) for each in value.kvlist_value.values}
    return None if given is None else getattr(value, given)


def _read(text: str) -> Any:
    """Return a text, or the JSON object or array that it is."""
    if text[:1] not in ("{", "["):
        return text
    try:
        found = orjson.loads(text)
        orjson.dumps(found)  # what is nested too deeply for this is better read as it is
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return text
    return found
