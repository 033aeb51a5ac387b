"""Mends what in a span would cost the whole request, for ever. Pure.

The Engine answers 400 to texts that are not UTF-8 and to values that are nested too deeply, because
no library of protobuf decodes them; and 500 to NUL characters in texts, to numbers that are not
finite, and in JSON to the escapes of NUL and of lone halves of characters. Few spans look as if
they had any; only those are mended.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from arthur_relay.destinations.engine.rows import length, row_body
from arthur_relay.encoding.plain_values import clean_text
from arthur_relay.encoding.protobuf_fields import BYTES, NotProtobufError, fields

if TYPE_CHECKING:
    from collections.abc import Iterable

_ODD_BYTES: Final = re.compile(rb"\\u0000|\\u[dD][89a-fA-F]")

_ESCAPES: Final = re.compile(
    r"\\\\"  # a backslash: what follows it is no escape
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # both halves of a character
    r"|\\u0000|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_COUNTS: Final = "llm.token_count."
_NUMBERS: Final = (_COUNTS, "llm.cost.")
"""Attributes with these names have to be numbers."""

_LARGEST_COUNT: Final = 2**31 - 1

MOST_DEPTH: Final = 90
"""How deep messages may be nested in a span, which is one itself. Libraries decode 100 levels, of
which a request has three around a span."""

TOO_DEEP: Final = "[nested too deeply]"
"""The text instead of a value that is."""

_TOO_DEEP_VALUE: Final = b"\x0a" + length(len(TOO_DEEP)) + TOO_DEEP.encode()
"""The same as an `AnyValue`."""


def has_odd_escape(content: bytes) -> bool:
    """Return whether bytes may have an escape that is to be mended."""
    return b"\\u" in content and _ODD_BYTES.search(content) is not None


def mended_span(content: bytes, *, looks_odd: bool) -> bytes:
    """Return a span without what the Engine can't store; the same bytes if there is nothing.

    Args:
        content: The span.
        looks_odd: Whether it may have something that can be decoded, and not be stored.

    Raises:
        NotProtobufError: It is no span.
    """
    from opentelemetry.proto.trace.v1.trace_pb2 import Span  # noqa: PLC0415 - it takes 0.1 s

    return _mended(content, Span(), row_body(b"", b"", content), looks_odd=looks_odd)


def mended_url(content: bytes) -> bytes:
    """Return the address of a schema as UTF-8 without NUL characters."""
    return clean_text(content.decode(errors="replace")).encode()


def mended_resource(content: bytes) -> bytes:
    """Return the same of a resource."""
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource  # noqa: PLC0415 - as above

    looks_odd = b"\0" in content or has_odd_escape(content)
    return _mended(content, Resource(), row_body(content, b"", b""), looks_odd=looks_odd)


def mended_scope(content: bytes) -> bytes:
    """Return the same of a scope."""
    from opentelemetry.proto.common.v1.common_pb2 import (  # noqa: PLC0415 - as above
        InstrumentationScope,
    )

    looks_odd = b"\0" in content or has_odd_escape(content)
    body = row_body(b"", content, b"")
    return _mended(content, InstrumentationScope(), body, looks_odd=looks_odd)


def _mended(content: bytes, message: Any, body: bytes, *, looks_odd: bool) -> bytes:
    """Return a part of a request without what the Engine can't store.

    Args:
        content: The part.
        message: An empty one of its kind.
        body: A request of it alone.
        looks_odd: As in `mended_span`.

    Raises:
        NotProtobufError: It is no such message.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - as above

    if not _can_be_decoded(body):
        content = _decodable(content, message.DESCRIPTOR, 1)
    elif not looks_odd:
        return content
    try:
        message.ParseFromString(content)
    except DecodeError:
        raise NotProtobufError("it is another message") from None
    return bytes(message.SerializeToString()) if _mend(message) else content


def _can_be_decoded(body: bytes) -> bool:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - as above
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - as above
        ExportTraceServiceRequest,
    )

    try:
        ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        return False
    return True


def _decodable(content: bytes, kind: Any, depth: int) -> bytes:
    """Return a message as it can be decoded: texts are UTF-8, values are not nested too deeply.

    What is no message is left out.
    """
    if depth >= MOST_DEPTH and kind.name == "AnyValue":
        return _TOO_DEEP_VALUE
    parts = []
    try:
        for tag, at, end in fields(content, 0, len(content)):
            value = content[at:end]
            parts.append(length(tag))
            if tag & 7 == BYTES:
                field = kind.fields_by_number.get(tag >> 3)
                if field is not None and field.type == field.TYPE_STRING:
                    value = value.decode(errors="replace").encode()
                elif field is not None and field.type == field.TYPE_MESSAGE:
                    value = _decodable(value, field.message_type, depth + 1)
                parts.append(length(len(value)))
            parts.append(value)
    except NotProtobufError:
        pass  # what came before is kept
    return b"".join(parts)


def _mend(message: Any) -> bool:
    """Mend a message and those in it that have texts. Returns whether anything was changed."""
    changed = False
    for field, value in message.ListFields():
        match field.name:
            case "attributes":
                changed |= _mend_attributes(value)
            case "events" | "links":
                for each in value:
                    changed |= _mend(each)
            case "status":
                changed |= _mend(value)
            case _ if isinstance(value, str) and (text := clean_text(value)) != value:
                setattr(message, field.name, text)
                changed = True
    return changed


def _mend_attributes(attributes: Any) -> bool:
    changed = False
    for index in range(len(attributes) - 1, -1, -1):
        each = attributes[index]
        if (key := clean_text(each.key)) != each.key:
            each.key = key
            changed = True
        if key.startswith(_NUMBERS) and not _is_number(key, each.value):
            del attributes[index]
            changed = True
        else:
            changed |= _mend_value(each.value)
    return changed


def _is_number(key: str, value: Any) -> bool:
    """Return whether an attribute is a number that the Engine has room for."""
    match value.WhichOneof("value"):
        case "int_value":
            return not key.startswith(_COUNTS) or abs(value.int_value) <= _LARGEST_COUNT
        case "double_value":
            return math.isfinite(value.double_value)
        case _:
            return False


def _mend_value(value: Any) -> bool:
    match value.WhichOneof("value"):
        case "string_value":
            text = _harmless(value.string_value)
            if text == value.string_value:
                return False
            value.string_value = text
            return True
        case "double_value" if not math.isfinite(value.double_value):
            value.string_value = str(value.double_value)
            return True
        case "array_value":
            return _mend_values(value.array_value.values)
        case "kvlist_value":
            return _mend_attributes(value.kvlist_value.values)
        case _:
            return False


def _mend_values(values: Iterable[Any]) -> bool:
    changed = False
    for each in values:
        changed |= _mend_value(each)
    return changed


def _harmless(text: str) -> str:
    """Return a text without NUL; of JSON, which the Engine reads, also without its escapes."""
    text = clean_text(text)
    if "\\u" in text and text.lstrip()[:1] in ("{", "[", '"'):
        text = _ESCAPES.sub(_escape, text)
    return text


def _escape(found: re.Match[str]) -> str:
    escape = found[0]
    if escape == "\\u0000":
        return ""
    return "\\ufffd" if len(escape) == len("\\ud800") else escape
