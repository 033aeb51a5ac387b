"""Turns a request of OTLP in JSON into protobuf, the only form that the Engine takes. Pure.

Each span is read alone: what can't be read in it is left out, or becomes a text, and the others are
as they were sent.
"""

from __future__ import annotations

import base64
import json
import re
from binascii import unhexlify
from functools import cache
from typing import Any, Final, NamedTuple

import orjson

from arthur_relay.daemon.refusals import NotRowsError
from arthur_relay.daemon.span_repair import MOST_DEPTH, TOO_DEEP
from arthur_relay.encoding.plain_values import clean_text

_IDS = ("traceId", "trace_id", "spanId", "span_id", "parentSpanId", "parent_span_id")
"""In OTLP's JSON these are in hex, where protobuf's JSON has base64."""

_MOST_LEVELS: Final = 4 * MOST_DEPTH
"""How deep JSON is read: deeper than messages may be, of which each is two levels at most."""

_MOST_DIGITS: Final = 4000
"""Python reads no longer integers."""

_TEXT_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""A text may lack its end, so that it is not read again from each quotation mark in it. `++` and
`*+` give nothing back that they have read; else the expression would remember a hundred bytes for
each character of a text."""


class Converted(NamedTuple):
    """A request in protobuf.

    Attributes:
        body: The request.
        repaired: The places, among all spans, of those that had something that can't be read.
    """

    body: bytes
    repaired: frozenset[int]


def to_protobuf(body: bytes) -> Converted:
    """Return a request as protobuf. Takes about a millisecond for ten spans.

    Fields that are not known are left out. An id that is not in hex is left out too, so that its
    span is refused, and no other. Half a character, as of a text that JavaScript cut, becomes
    U+FFFD.

    Raises:
        NotRowsError: It is no such request.
    """
    # Most clients send protobuf, and the import takes 0.1 s.
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - see above
        ExportTraceServiceRequest,
    )

    document = _read(body)
    if not isinstance(document, dict):
        raise NotRowsError("the body must be a JSON object with resourceSpans")
    request = ExportTraceServiceRequest()
    repaired: set[int] = set()
    total = 0
    for group in _messages(document, "resourceSpans", "resource_spans"):
        resource_spans = request.resource_spans.add()
        first, is_odd = total, _fill(resource_spans.resource, group.get("resource"))
        resource_spans.schema_url = _url(group)
        for scoped in _messages(group, "scopeSpans", "scope_spans"):
            scope_spans = resource_spans.scope_spans.add()
            is_odd |= _fill(scope_spans.scope, scoped.get("scope"))
            scope_spans.schema_url = _url(scoped)
            for span in _list(scoped, "spans"):
                _convert_ids(span)
                if _fill(scope_spans.spans.add(), span):
                    repaired.add(total)
                total += 1
        if is_odd:
            repaired.update(range(first, total))
    return Converted(request.SerializeToString(), frozenset(repaired))


def _read(body: bytes) -> Any:
    """Return what JSON says, also where only some of its values can be read.

    Raises:
        NotRowsError: It is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    # Cut characters, bytes that are not UTF-8, control characters, NaN, long numbers, deep values:
    # no other span must pay for them.
    text = _cut(body.decode("utf-8", "surrogateescape"))
    try:
        return json.loads(text, strict=False, parse_int=_integer)
    except (ValueError, RecursionError):
        raise NotRowsError("the body is not JSON") from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _cut(text: str) -> str:
    """Return JSON with null instead of each value that is nested too deeply."""
    kept: list[str] = []
    depth = at = 0
    for found in _TEXT_OR_BRACKET.finditer(text):
        match found[0]:
            case "{" | "[":
                if depth == _MOST_LEVELS:
                    kept += (text[at : found.start()], "null")
                depth += 1
            case "}" | "]":
                depth -= 1
                if depth == _MOST_LEVELS:
                    at = found.end()
    if depth > _MOST_LEVELS or not kept:
        return text
    return "".join((*kept, text[at:]))


def _list(holder: dict[str, Any], *names: str) -> list[Any]:
    """Return a list, by whichever name it has; none, and null, are an empty one.

    Raises:
        NotRowsError: It is something else.
    """
    found: Any = next((value for name in names if (value := holder.get(name)) is not None), [])
    if not isinstance(found, list):
        raise NotRowsError(f"the body is JSON, but not OTLP: {names[0]} must be a list")
    return found


def _messages(holder: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    """Return a list of objects.

    Raises:
        NotRowsError: It is something else.
    """
    found = _list(holder, *names)
    if not all(isinstance(each, dict) for each in found):
        raise NotRowsError(f"the body is JSON, but not OTLP: {names[0]} must have objects")
    return found


def _url(group: dict[str, Any]) -> str:
    """Return the address of a schema; anything but a text is none."""
    found = group.get("schemaUrl", group.get("schema_url"))
    return clean_text(found) if isinstance(found, str) else ""


def _convert_ids(span: Any) -> None:
    if not isinstance(span, dict):
        return
    links = span.get("links")
    for holder in (span, *(links if isinstance(links, list) else ())):
        for name in _IDS if isinstance(holder, dict) else ():
            given = holder.get(name)
            if isinstance(given, str):
                try:
                    holder[name] = base64.b64encode(unhexlify(given)).decode()
                except ValueError:
                    del holder[name]


def _fill(message: Any, document: Any) -> bool:
    """Fill a message. Returns whether there was anything that can't be read."""
    from google.protobuf.json_format import ParseDict, ParseError  # noqa: PLC0415 - see above

    if document is None:
        return False
    try:
        ParseDict(document, message, ignore_unknown_fields=True, max_recursion_depth=MOST_DEPTH)
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError):
        message.Clear()
        _fill_by_field(message, document, 1)
        return True
    return False


def _fill_by_field(message: Any, document: Any, depth: int) -> None:
    """Fill a message as far as its fields can be read, each alone."""
    if not isinstance(document, dict):
        return
    if depth >= MOST_DEPTH and message.DESCRIPTOR.name == "AnyValue":
        message.string_value = TOO_DEEP
        return
    by_name = _fields_by_name(message.DESCRIPTOR)
    for name, value in document.items():
        field = by_name.get(name)
        if field is None or value is None:
            continue
        if field.type != field.TYPE_MESSAGE:
            _set(message, name, value, field)
            continue
        inner = getattr(message, field.name)
        if not hasattr(inner, "add"):
            inner.SetInParent()
            _fill_by_field(inner, value, depth + 1)
        elif isinstance(value, list):
            for each in value:
                _fill_by_field(inner.add(), each, depth + 1)


@cache
def _fields_by_name(kind: Any) -> dict[str, Any]:
    """Return the fields of a kind of message by both of their names. There are ten such kinds."""
    return {each.json_name: each for each in kind.fields} | dict(kind.fields_by_name)


def _set(message: Any, name: str, value: Any, field: Any) -> None:
    """Set a field to a value; if it is none for this field, to its text where that can be."""
    from google.protobuf.json_format import ParseDict, ParseError  # noqa: PLC0415 - see above

    try:
        ParseDict({name: value}, message, ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError):
        if message.DESCRIPTOR.name == "AnyValue":
            message.string_value = _text(value)
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, _text(value))


def _text(value: Any) -> str:
    return clean_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
