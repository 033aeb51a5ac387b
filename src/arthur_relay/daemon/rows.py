"""Splits a request's body into rows without decoding what is inside of them. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from arthur_relay.row import Row, RowKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

NO_ID = "partner_inference_id is required"
NO_TEXT_ID = "partner_inference_id must be a string"
NO_UNICODE_ID = "partner_inference_id is not valid Unicode"
NO_OBJECT = "the row must be an object"
NO_UTF8 = "the row is not valid UTF-8"


class NotRowsError(ValueError):
    """The body is not a JSON list; the text says why, and quotes nothing."""


class TooManyRowsError(ValueError):
    """There are more rows than a request may have."""


@dataclass(slots=True)
class Split:
    """What a body holds.

    Attributes:
        rows: The rows that can be taken, in order; their bodies are the bytes that were sent.
        refused: By place in the body, the status and the reason of each of the others.
        total: How many there are in all.
    """

    total: int
    rows: list[Row] = field(default_factory=list)
    refused: dict[int, tuple[int, str]] = field(default_factory=dict)


class _Identified(msgspec.Struct, gc=False):  # a string is in no cycle
    """All that is read of a row."""

    partner_inference_id: str


class _Anything(msgspec.Struct):
    partner_inference_id: Any = None


_list = msgspec.json.Decoder(list[msgspec.Raw])
_identified = msgspec.json.Decoder(_Identified)
_anything = msgspec.json.Decoder(_Anything)

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def split(body: bytes, *, model_id: str, kind: RowKind, max_rows: int, max_row_bytes: int) -> Split:
    """Split a body into rows.

    Raises:
        NotRowsError: It is not a JSON list, as a whole.
        TooManyRowsError: There are more than `max_rows`.
    """
    parts = _elements(body)
    if len(parts) > max_rows:
        raise TooManyRowsError(f"the request has {len(parts)} rows; {max_rows} are allowed")
    found = Split(len(parts))
    rows, refused = found.rows, found.refused
    # The splitting looks at the bytes of texts only as far as their ends go.
    is_utf8 = _is_utf8(body)
    decode = _identified.decode
    for index, part in enumerate(parts):
        content = bytes(part)
        if len(content) > max_row_bytes:
            reason = f"the row has {len(content)} bytes; {max_row_bytes} are allowed"
            refused[index] = (413, reason)
            continue
        try:
            row_id = decode(content).partner_inference_id
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            row_id, reason = _look_closer(content)
        else:
            reason = "" if row_id else NO_ID
        if not (reason or is_utf8 or _is_utf8(content)):
            reason = NO_UTF8
        if reason:
            refused[index] = (400, reason)
        else:
            rows.append(Row(row_id, model_id, content, kind=kind))
    return found


def _is_utf8(text: bytes) -> bool:
    try:
        str(text, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _elements(body: bytes) -> Sequence[Buffer]:
    """Return the elements of a JSON list, each as it was sent."""
    try:
        return _list.decode(body)
    except msgspec.ValidationError:
        raise NotRowsError("the body must be a JSON list of rows") from None
    except RecursionError:
        raise NotRowsError("the body is nested too deeply") from None
    except msgspec.DecodeError:
        # It takes no lone surrogates (`"\\ud800"`), which are JSON all the same.
        if _SURROGATE.search(body) is None:
            raise NotRowsError("the body is not JSON") from None
    try:
        return [part.encode() for part, _ in _elements_with_surrogates(body.decode())]
    except (ValueError, RecursionError):
        raise NotRowsError("the body is not JSON") from None


def _look_closer(part: bytes) -> tuple[str, str]:
    """Return the id of a row, else why it has none that can be used."""
    try:
        found = _anything.decode(part).partner_inference_id
    except msgspec.ValidationError:
        return "", NO_OBJECT
    except UnicodeDecodeError:
        return "", NO_UTF8
    except (msgspec.DecodeError, RecursionError):
        return _with_surrogates(part)
    return "", NO_ID if found is None else NO_TEXT_ID


def _with_surrogates(part: bytes) -> tuple[str, str]:
    try:
        ((_, value),) = _elements_with_surrogates(f"[{str(part, 'utf-8')}]")
    except (ValueError, RecursionError):
        return "", NO_OBJECT
    if not isinstance(value, dict):
        return "", NO_OBJECT
    match value.get("partner_inference_id"):
        case None | "":
            return "", NO_ID
        case str() as row_id:
            fits = not any("\ud800" <= character <= "\udfff" for character in row_id)
            return (row_id, "") if fits else ("", NO_UNICODE_ID)
        case _:
            return "", NO_TEXT_ID


def _elements_with_surrogates(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the elements of a JSON list as they were written, and their values; slowly.

    Raises:
        ValueError: It is not JSON, or no list.
    """
    decode = json.JSONDecoder(
        parse_int=len, parse_float=len, parse_constant=_refuse_constant
    ).raw_decode
    at = _blank(text, 0)
    if text[at : at + 1] != "[":
        raise ValueError
    at = _blank(text, at + 1)
    first = True
    while text[at : at + 1] != "]":
        if not first:
            if text[at : at + 1] != ",":
                raise ValueError
            at = _blank(text, at + 1)
        value, end = decode(text, at)
        yield text[at:end], value
        at = _blank(text, end)
        first = False
    if _blank(text, at + 1) != len(text):
        raise ValueError


_BLANK = re.compile(r"[ \t\n\r]*")


def _blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    assert found is not None  # it matches nothing at all, too
    return found.end()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
