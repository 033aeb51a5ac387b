"""Mends what in a span would cost the whole request, for ever: the Engine answers 500 to it. Pure.

Such are NUL characters in texts, numbers that are not finite, and in JSON the escapes of NUL and of
lone halves of characters. Few spans look as if they had any; only those are decoded.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from arthur_relay.encoding.plain_values import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterable

_ODD_BYTES: Final = re.compile(rb"\\u0000|\\u[dD][89a-fA-F]")

_ESCAPES: Final = re.compile(
    r"\\\\"  # a backslash: what follows it is no escape
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # both halves of a character
    r"|\\u0000|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_NUMBERS: Final = ("llm.token_count.", "llm.cost.")
"""Attributes with these names have to be numbers."""


def has_odd_escape(content: bytes) -> bool:
    """Return whether bytes may have an escape that is to be mended."""
    return b"\\u" in content and _ODD_BYTES.search(content) is not None


def mended_span(content: bytes) -> bytes:
    """Return a span without what the Engine can't store; the same bytes if there is nothing."""
    from opentelemetry.proto.trace.v1.trace_pb2 import Span  # noqa: PLC0415 - it takes 0.1 s

    return _mended(content, Span())


def mended_resource(content: bytes) -> bytes:
    """Return the same of a resource."""
    if b"\0" not in content and not has_odd_escape(content):
        return content
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource  # noqa: PLC0415 - as above

    return _mended(content, Resource())


def mended_scope(content: bytes) -> bytes:
    """Return the same of a scope."""
    if b"\0" not in content and not has_odd_escape(content):
        return content
    from opentelemetry.proto.common.v1.common_pb2 import (  # noqa: PLC0415 - as above
        InstrumentationScope,
    )

    return _mended(content, InstrumentationScope())


def _mended(content: bytes, message: Any) -> bytes:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - as above

    try:
        message.ParseFromString(content)
    except DecodeError:  # the Engine refuses it, and then it is found out which one it was
        return content
    if not _mend(message):
        return content
    return bytes(message.SerializeToString())


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
        if key.startswith(_NUMBERS) and not _is_finite(each.value):
            del attributes[index]
            changed = True
        else:
            changed |= _mend_value(each.value)
    return changed


def _is_finite(value: Any) -> bool:
    return value.WhichOneof("value") != "double_value" or math.isfinite(value.double_value)


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
