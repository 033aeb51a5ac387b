"""What the Engine makes of a span: taken, rejected, or the end of its whole request.

As measured on a real one: it rejects spans one by one for what its reading of attributes can't
take, and answers 500 to the whole request for what its database can't.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from arthur_relay.sandbox.engine.spans import Span

MOST_DEPTH: Final = 1000
MOST_COUNT: Final = 2**31 - 1

_JSON_NAMES: Final = frozenset(
    {
        "metadata",
        "llm.invocation_parameters",
        "llm.prompt_template.variables",
        "tool.parameters",
    }
)
_JSON_ENDS: Final = (
    "document.metadata",
    "tool_call.function.arguments",
    "message.function_call_arguments_json",
)
_NUMBERS: Final = ("llm.token_count.", "llm.cost.")


class TooDeepError(ValueError):
    """A JSON value that is nested too deeply."""


def rejection(span: Span) -> str | None:
    """Return why the Engine rejects a span, or None."""
    for name, value in span.attributes.items():
        if name.startswith(_NUMBERS) and not isinstance(value, (int, float)):
            return f"Invalid span data format: {name} must be a number"
    try:
        for value in (span.attributes, *_parsed(span.attributes)):
            for key, _ in walk(value):
                if key is not None and "/" in key:
                    return f"Invalid span data format: key {key!r} contains '/'"
    except TooDeepError:
        return "Invalid span data format: maximum recursion depth exceeded"
    return None


def breakage(span: Span) -> str | None:
    """Return what of a span, which was not rejected, the database chokes on, or None."""
    if not span.start_ns or not span.end_ns:
        return "null value in column start_time"
    for name, value in span.attributes.items():
        if name.startswith(_NUMBERS[0]) and abs(value) > MOST_COUNT:
            return "integer out of range"
    values = (
        span.attributes,
        span.resource,
        span.name,
        span.status_message,
        [[event["name"], event["attributes"]] for event in span.events],
        *_parsed(span.attributes),
    )
    for value in values:
        for key, each in walk(value):
            for text in (key, each):
                if isinstance(text, str) and "\0" in text:
                    return r"unsupported Unicode escape sequence: \u0000 cannot be converted"
                if isinstance(text, str) and not _is_unicode(text):
                    return "Unicode low surrogate must follow a high surrogate"
            if isinstance(each, float) and not math.isfinite(each):
                return "invalid input syntax for type json: Token is invalid"
    return None


def walk(value: Any) -> Iterator[tuple[str | None, Any]]:
    """Yield the keys and the plain values in a value, at any depth.

    Raises:
        TooDeepError: It is nested too deeply.
    """
    waiting: list[tuple[str | None, Any, int]] = [(None, value, 0)]
    while waiting:
        key, found, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise TooDeepError
        match found:
            case Mapping():
                yield key, None
                waiting += [(str(name), each, depth + 1) for name, each in found.items()]
            case list() | tuple():
                yield key, None
                waiting += [(None, each, depth + 1) for each in found]
            case _:
                yield key, found


def _parsed(attributes: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what the Engine reads of attributes that hold JSON.

    Raises:
        TooDeepError: One of them is nested too deeply.
    """
    for name, text in attributes.items():
        mime_type = attributes.get(name.removesuffix(".value") + ".mime_type")
        is_json = name.endswith(".value") and mime_type == "application/json"
        if not (is_json or name in _JSON_NAMES or name.endswith(_JSON_ENDS)):
            continue
        if isinstance(text, str):
            try:
                yield json.loads(text)
            except RecursionError:
                raise TooDeepError from None
            except ValueError:
                continue  # it stays a text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
