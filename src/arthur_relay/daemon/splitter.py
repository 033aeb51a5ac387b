"""Splits a request's body into rows, which stay the bytes that were sent. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from arthur_relay.daemon.json_rows import read_row
from arthur_relay.row import Row, RowKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

NO_ID = "partner_inference_id is required"
NO_TEXT_ID = "partner_inference_id must be a string"
NO_OBJECT = "the row must be an object"
TOO_DEEP = "the body is nested too deeply"

DATA = {RowKind.INFERENCE: "inference_data", RowKind.GROUND_TRUTH: "ground_truth_data"}
"""What a row of each kind tells: an object, without which Arthur takes none, nor can it be cut."""


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


LEAST_BYTES = 32
"""What an element has at least, comma included, where all of a body's are made at once: a row has
more, and an element that is made takes twice as much."""

_list = msgspec.json.Decoder(list[msgspec.Raw])

# What the splitting does not read, although it costs its own row only: half characters, and numbers
# that are none.
_ODD = re.compile(rb"\\u[dD][89a-fA-F]|NaN|Infinity")


def split(body: bytes, *, model_id: str, kind: RowKind, max_rows: int, max_row_bytes: int) -> Split:
    """Split a body into rows.

    Raises:
        NotRowsError: It is not a JSON list, as a whole.
        TooManyRowsError: There are more than `max_rows`.
    """
    parts = _elements(body, max_rows)
    if len(parts) > max_rows:
        raise TooManyRowsError(f"the request has more than the {max_rows} rows that are allowed")
    found = Split(len(parts))
    rows, refused = found.rows, found.refused
    data = DATA[kind]
    for index, part in enumerate(parts):
        content = bytes(part)
        if len(content) > max_row_bytes:
            reason = f"the row has {len(content)} bytes; {max_row_bytes} are allowed"
            refused[index] = (413, reason)
            continue
        document, reason = read_row(content)
        if reason or (reason := _lacks(document, data)):
            refused[index] = (400, reason)
        else:
            rows.append(Row(document["partner_inference_id"], model_id, content, kind=kind))
    return found


def _lacks(document: Any, data: str) -> str:
    """Return what a row needs and does not have, or "".

    Of a key that comes twice the last one counts, as for all who read it later.
    """
    if type(document) is not dict:
        return NO_OBJECT
    row_id = document.get("partner_inference_id")
    if row_id is None or row_id == "":
        return NO_ID
    if type(row_id) is not str:
        return NO_TEXT_ID
    found = document.get(data)
    if type(found) is not dict:
        return f"{data} is required" if found is None else f"{data} must be an object"
    return ""


def _elements(body: bytes, most: int) -> Sequence[Buffer]:
    """Return the elements of a JSON list, each as it was sent; of more than `most` not all."""
    commas = body.count(b",")
    try:
        if commas < most or commas * LEAST_BYTES <= len(body):
            return _list.decode(body)
    except msgspec.ValidationError:
        raise NotRowsError("the body must be a JSON list of rows") from None
    except RecursionError:
        raise NotRowsError(TOO_DEEP) from None
    except msgspec.DecodeError:
        if _ODD.search(body) is None:
            raise NotRowsError("the body is not JSON") from None
    try:
        # Bytes that are no UTF-8 become half characters, and the same bytes again.
        text = body.decode("utf-8", "surrogateescape")
        parts = islice(_odd_elements(text), most + 1)
        return [part.encode("utf-8", "surrogateescape") for part in parts]
    except (ValueError, RecursionError):
        raise NotRowsError("the body is not JSON") from None


def _odd_elements(text: str) -> Iterator[str]:
    """Yield the elements of a JSON list as they were written, whatever numbers and texts; slowly.

    Raises:
        ValueError: It is not JSON, or no list.
    """
    decode = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len).raw_decode
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
        _, end = decode(text, at)
        yield text[at:end]
        at = _blank(text, end)
        first = False
    if _blank(text, at + 1) != len(text):
        raise ValueError


_BLANK = re.compile(r"[ \t\n\r]*")


def _blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    assert found is not None  # it matches nothing at all, too
    return found.end()
