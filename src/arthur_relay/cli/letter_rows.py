"""What the row of a dead letter says, for people: Scope's JSON, or the Engine's span."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from typing import Any

import orjson

from arthur_relay.dead_letters import DeadLetter
from arthur_relay.destinations.engine.libraries import check_libraries
from arthur_relay.encoding.product import Product, product_of_row
from arthur_relay.errors import ConfigurationError
from arthur_relay.row import RowKind

FEEDBACK = "feedback"
"""The kind of the Engine's rows that are no spans."""

_MOST_NAME_CHARACTERS = 80

_UNREAD = "arthur-relay[engine] is not installed, which reads spans"


def row_of(letter: DeadLetter) -> dict[str, object]:
    """Return a letter's row under a name that says what it is. Never raises.

    Returns:
        `row` with a JSON value or None, `row_text` with what should be JSON, `span` with what a
        span says (`spans`, should there be several), or `span_base64` with the reason in `unread`.
    """
    if not letter.body:
        return {"row": None}
    if _is_span(letter):
        try:
            spans = _spans(letter.body)
        except ValueError as error:
            return {"unread": str(error), "span_base64": b64encode(letter.body).decode()}
        return {"span": spans[0]} if len(spans) == 1 else {"spans": spans}
    try:
        return {"row": orjson.loads(letter.body)}
    except ValueError:
        return {"row_text": _text(letter.body)}


def text_of(letter: DeadLetter) -> str:
    """Return a letter's row in one line."""
    if not _is_span(letter):
        return _text(letter.body)
    return " ".join(in_json(row_of(letter), indent=False).split("\n"))


def name_and_kind(letter: DeadLetter) -> tuple[str, str]:
    """Return the name and the kind of a letter's span; the row's own kind where it has none."""
    if product_of_row(letter.body) is not Product.ENGINE:
        return "", letter.kind.value
    if letter.kind is RowKind.GROUND_TRUTH:
        return "", FEEDBACK
    try:
        span = _spans(letter.body)[0]
    except (ValueError, IndexError):
        return "?", "span"
    name = str(span["name"])
    cut = name if len(name) <= _MOST_NAME_CHARACTERS else name[:_MOST_NAME_CHARACTERS] + "…"
    return cut, str(span["kind"] or "span")


def in_json(document: object, *, indent: bool = True) -> str:
    """Return a document as JSON, also where it has what orjson refuses."""
    try:
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 if indent else None).decode()
    except TypeError:  # half of a surrogate pair, or a number that is too large
        return json.dumps(document, indent=2 if indent else None, default=str)


def _is_span(letter: DeadLetter) -> bool:
    return letter.kind is RowKind.INFERENCE and product_of_row(letter.body) is Product.ENGINE


def _spans(body: bytes) -> list[dict[str, Any]]:
    """Return the spans of a body.

    Raises:
        ValueError: It can't be read; the message says why.
    """
    if not _can_read():
        raise ValueError(_UNREAD)
    # It takes 0.1 s, and the packages may be missing.
    from arthur_relay.destinations.engine.span_reading import (  # noqa: PLC0415 - see above
        described_spans,
    )

    return described_spans(body)


@cache
def _can_read() -> bool:
    try:
        check_libraries()
    except ConfigurationError:
        return False
    return True


def _text(body: bytes) -> str:
    return body.decode(errors="backslashreplace")
