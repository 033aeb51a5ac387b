"""A span in a form that the Engine takes in any case, for one that it refuses for its content.

Kept are the facts that its views are made of: ids, times, status, kind, texts, model and tokens.
Everything that the Engine reads as JSON, or that nothing is known of, is left out, and the span
says what that was. Imported by the worker only, as `span_bytes` is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from openinference.semconv.trace import SpanAttributes
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from arthur_relay.destinations.engine.rows import row_body
from arthur_relay.encoding.plain_values import clean_text
from arthur_relay.encoding.text import truncate_text

DROPPED = "arthur_relay.dropped"
"""The attribute that names what is left out; a span that has it is not reduced again."""

MAX_NAMES = 100
"""How many attributes are named."""

MAX_NAME_BYTES = 200
MAX_TEXT_BYTES = 100_000

_TEXTS = frozenset(
    {
        SpanAttributes.OPENINFERENCE_SPAN_KIND,
        SpanAttributes.INPUT_VALUE,
        SpanAttributes.OUTPUT_VALUE,
        SpanAttributes.LLM_MODEL_NAME,
        SpanAttributes.LLM_PROVIDER,
        SpanAttributes.LLM_SYSTEM,
        SpanAttributes.SESSION_ID,
        SpanAttributes.USER_ID,
        SpanAttributes.TOOL_NAME,
    }
)
_MESSAGES = re.compile(
    r"(?:llm\.(?:input|output)_messages)\.\d{1,4}\.message\.(?:role|content)", re.ASCII
)
_COUNTS = re.compile(r"llm\.token_count\.[a-z_]+(?:\.[a-z_]+)?")
_OF_RESOURCES = frozenset(
    {
        "arthur.task",
        "service.name",
        "service.version",
        "telemetry.sdk.language",
        "telemetry.sdk.name",
        "telemetry.sdk.version",
    }
)

_MIME_TYPES = frozenset({SpanAttributes.INPUT_MIME_TYPE, SpanAttributes.OUTPUT_MIME_TYPE})


class Reduced(NamedTuple):
    """A row's body in its reduced form.

    Attributes:
        body: The request.
        dropped: The names of what is left out.
    """

    body: bytes
    dropped: list[str]


def reduced_body(body: bytes) -> Reduced | None:
    """Return the reduced form of a row's body, or None when it is reduced already.

    Args:
        body: A request of one span.

    Raises:
        Exception: It is something else.
    """
    request = ExportTraceServiceRequest.FromString(body)
    (resource_spans,) = request.resource_spans
    (scope_spans,) = resource_spans.scope_spans
    (span,) = scope_spans.spans
    if any(each.key == DROPPED for each in span.attributes):
        return None
    kept, dropped = _sorted(span.attributes)
    dropped += [name for name in ("events", "links") if getattr(span, name)]
    start = span.start_time_unix_nano or span.end_time_unix_nano or 1
    reduced = Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        name=_text(span.name) or "Unnamed",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=start,
        end_time_unix_nano=span.end_time_unix_nano or start,
        attributes=kept,
    )
    if span.status.code in Status.StatusCode.values():
        reduced.status.code = span.status.code
    reduced.status.message = _text(span.status.message)
    names = reduced.attributes.add(key=DROPPED).value.array_value
    names.SetInParent()  # a list, also where nothing is left out
    for name in dropped[:MAX_NAMES]:
        names.values.add(string_value=truncate_text(clean_text(name), MAX_NAME_BYTES, note="…"))
    resource = resource_spans.resource
    resource_kept = [_with_text(each) for each in resource.attributes if _is_of_resource(each)]
    del resource.attributes[:]
    resource.attributes.extend(resource_kept)
    scope = InstrumentationScope(
        name=_text(scope_spans.scope.name), version=_text(scope_spans.scope.version)
    )
    made = row_body(
        resource.SerializeToString(), scope.SerializeToString(), reduced.SerializeToString()
    )
    return Reduced(made, dropped)


def _sorted(attributes: Iterable[KeyValue]) -> tuple[list[KeyValue], list[str]]:
    """Return the attributes to keep, and the names of the others."""
    kept: list[KeyValue] = []
    dropped: list[str] = []
    for each in attributes:
        name, value = each.key, each.value
        kind = value.WhichOneof("value")
        if kind == "string_value" and (name in _TEXTS or _MESSAGES.fullmatch(name)):
            kept.append(_with_text(each))
        elif kind == "int_value" and _COUNTS.fullmatch(name) and 0 <= value.int_value < 2**31:
            kept.append(KeyValue(key=name, value=value))
        elif name not in _MIME_TYPES:  # without it a value is a text, and that is all it was
            dropped.append(name)
    return kept, dropped


def _is_of_resource(attribute: KeyValue) -> bool:
    return attribute.key in _OF_RESOURCES and attribute.value.WhichOneof("value") == "string_value"


def _with_text(attribute: KeyValue) -> KeyValue:
    found = KeyValue(key=attribute.key)
    found.value.string_value = _text(attribute.value.string_value)
    return found


def _text(text: str) -> str:
    cleaned = clean_text(text)
    size = len(cleaned.encode())
    if size <= MAX_TEXT_BYTES:
        return cleaned
    return truncate_text(cleaned, MAX_TEXT_BYTES, note=f"… [cut by arthur-relay, {size} bytes]")
