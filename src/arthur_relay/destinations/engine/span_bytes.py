"""Spans as OpenTelemetry's protobuf messages. Imported by the worker only: it takes 0.1 s.

By the field's library: bytes written by hand take as long, where the texts are not in the cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from arthur_relay.encoding.text import truncate_text

AttributeValue = str | int | list[str]

MIME_TYPES = {"input.value": "input.mime_type", "output.value": "output.mime_type"}

SMALLEST_SHRUNK_TEXT_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanException:
    """An exception that a span reports.

    Attributes:
        type_name: The class, with its module.
        message: Its text.
        stacktrace: Where it was raised, or None.
    """

    type_name: str
    message: str
    stacktrace: str | None


@dataclass(slots=True, kw_only=True)
class SpanFields:
    """A span before it is written; all texts are valid UTF-8 without NUL.

    It is not frozen, because that makes construction five times as slow.

    Attributes:
        trace_id: 16 bytes.
        span_id: 8 bytes.
        parent_span_id: 8 bytes, or None.
        name: The run's name.
        start: Nanoseconds since 1970.
        end: The same.
        attributes: The attributes by name.
        error: The status's message, or None when it is well.
        exception: The exception that it reports, or None.
    """

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes | None
    name: str
    start: int
    end: int
    attributes: Mapping[str, AttributeValue]
    error: str | None = None
    exception: SpanException | None = None


def scope_bytes() -> bytes:
    """Return the serialized `InstrumentationScope` of our spans."""
    try:
        ours = version("arthur-relay")
    except PackageNotFoundError:  # run from a source tree that is not installed
        ours = "0"
    return bytes(InstrumentationScope(name="arthur-relay", version=ours).SerializeToString())


def span_bytes(fields: SpanFields) -> bytes:
    """Return the serialized `Span`."""
    span = Span(
        trace_id=fields.trace_id,
        span_id=fields.span_id,
        parent_span_id=fields.parent_span_id or b"",
        name=fields.name,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=fields.start,
        end_time_unix_nano=fields.end,
    )
    add = span.attributes.add
    for name, value in fields.attributes.items():
        attribute = add()  # a call with the key takes longer
        attribute.key = name
        if type(value) is str:
            attribute.value.string_value = value
        else:
            _set(attribute, value)
    if fields.error is None:
        span.status.code = Status.STATUS_CODE_OK
    else:
        span.status.code = Status.STATUS_CODE_ERROR
        span.status.message = fields.error
    if fields.exception is not None:
        _add_exception(span, fields.exception, fields.end)
    written: bytes = span.SerializeToString()
    return written


def read_spans(body: bytes) -> list[dict[str, Any]]:
    """Return the spans of a row that this module wrote, as `testing.MemoryEngine.spans` has them.

    Args:
        body: A request.
    """
    return [_read(span) for span in _spans(ExportTraceServiceRequest.FromString(body))]


def shrunk_body(body: bytes) -> bytes | None:
    """Return a row's body with its long texts cut to half of the longest, or None when it can't.

    Args:
        body: A request of one span.
    """
    request = ExportTraceServiceRequest.FromString(body)
    spans = _spans(request)
    texts = [
        attribute
        for span in spans
        for attribute in span.attributes
        if attribute.value.WhichOneof("value") == "string_value"
    ]
    longest = max((len(each.value.string_value.encode()) for each in texts), default=0)
    limit = longest // 2
    if limit < SMALLEST_SHRUNK_TEXT_BYTES:
        return None
    cut = set()
    for attribute in texts:
        text = attribute.value.string_value
        size = len(text.encode())
        if size > limit:
            note = f"… [cut by arthur-relay, {size} bytes before]"
            attribute.value.string_value = truncate_text(text, limit, note=note)
            cut.add(attribute.key)
    no_json = {mime for name, mime in MIME_TYPES.items() if name in cut}
    for span in spans:
        kept = [attribute for attribute in span.attributes if attribute.key not in no_json]
        if len(kept) < len(span.attributes):
            kept = [KeyValue.FromString(each.SerializeToString()) for each in kept]
            del span.attributes[:]
            span.attributes.extend(kept)
    return bytes(request.SerializeToString())


def _spans(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        span
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def _read(span: Span) -> dict[str, Any]:
    attributes = _read_attributes(span.attributes)
    is_wrong = span.status.code == Status.STATUS_CODE_ERROR
    return {
        "name": span.name,
        "kind": attributes.get("openinference.span.kind"),
        "attributes": attributes,
        "parent": span.parent_span_id.hex() or None,
        "span_id": span.span_id.hex(),
        "trace_id": span.trace_id.hex(),
        "error": span.status.message if is_wrong else None,
        "events": [
            {"name": event.name, "attributes": _read_attributes(event.attributes)}
            for event in span.events
        ],
    }


def _read_attributes(found: Iterable[KeyValue]) -> dict[str, Any]:
    return {each.key: _read_value(each.value) for each in found}


def _read_value(value: AnyValue) -> Any:
    name = value.WhichOneof("value")
    if name == "array_value":
        return [each.string_value for each in value.array_value.values]
    return None if name is None else getattr(value, name)


def _set(attribute: KeyValue, value: AttributeValue) -> None:
    if isinstance(value, str):
        attribute.value.string_value = value
    elif isinstance(value, int):
        attribute.value.int_value = value
    else:
        values = attribute.value.array_value.values
        for each in value:
            values.add(string_value=each)


def _add_exception(span: Span, exception: SpanException, at: int) -> None:
    event = span.events.add(name="exception", time_unix_nano=at)
    texts = {
        "exception.type": exception.type_name,
        "exception.message": exception.message,
        "exception.stacktrace": exception.stacktrace,
        "exception.escaped": "False",
    }
    for name, text in texts.items():
        if text is not None:
            event.attributes.add(key=name).value.string_value = text
