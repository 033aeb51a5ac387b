"""Splits a request's body into rows, which keep the bytes that were sent. Pure."""

from __future__ import annotations

import json
import operator
import re
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arthur_relay.daemon.json_rows import read_row
from arthur_relay.daemon.refusals import NotRowsError, TooManyRowsError
from arthur_relay.row import Row, RowKind
from arthur_relay.settings.variables import DAEMON_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

ROW_LIMIT: Final = f"{DAEMON_PREFIX}MAX_ROW_BYTES"

NO_ID = "partner_inference_id is required"
NO_TEXT_ID = "partner_inference_id must be a string"
NO_OBJECT = "the row must be an object"

DATA = {RowKind.INFERENCE: "inference_data", RowKind.GROUND_TRUTH: "ground_truth_data"}
"""The object with the values of a row of each kind. Arthur requires it, and only it can be cut."""


@dataclass(slots=True)
class Split:
    """The content of a body.

    Attributes:
        total: The number of all rows.
        rows: The accepted rows, in order; their bodies are the bytes that were sent.
        refused: The status and the reason of each refused row, by its index in the body.
    """

    total: int
    rows: list[Row] = field(default_factory=list)
    refused: dict[int, tuple[int, str]] = field(default_factory=dict)


LEAST_BYTES = 32
"""The least average size of an element, comma included, at which all elements of a body are created
at once: rows are larger, and the object for an element takes twice as much."""

_list = msgspec.json.Decoder(list[msgspec.Raw])

# What msgspec does not read, although it should cost its own row only: lone surrogates, and numbers
# that are not finite.
_ODD = re.compile(rb"\\u[dD][89a-fA-F]|NaN|Infinity")


def split(body: bytes, *, model_id: str, kind: RowKind, max_rows: int, max_row_bytes: int) -> Split:
    """Split a body into rows.

    Raises:
        NotRowsError: It is not a JSON list, as a whole.
        TooManyRowsError: There are more than `max_rows`.
    """
    parts = _elements(body, max_rows)
    if len(parts) > max_rows:
        raise TooManyRowsError(
            f"the request has more than the {max_rows} rows that are allowed"
            f" ({DAEMON_PREFIX}MAX_ROWS)"
        )
    found = Split(len(parts))
    rows, refused = found.rows, found.refused
    data = DATA[kind]
    for index, part in enumerate(parts):
        content = bytes(part)
        if len(content) > max_row_bytes:
            reason = f"the row has {len(content)} bytes; {max_row_bytes} are allowed ({ROW_LIMIT})"
            refused[index] = (413, reason)
            continue
        document, reason = read_row(content)
        if reason or (reason := _lacks(document, data)):
            refused[index] = (400, reason)
        else:
            rows.append(Row(document["partner_inference_id"], model_id, content, kind=kind))
    return found


def _lacks(document: Any, data: str) -> str:
    """Return what a row lacks, or "".

    Of a repeated key the last value counts, as for all later readers.
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
    """Return the elements of a JSON list as they were sent; if more than `most`, not all."""
    commas = body.count(b",")
    try:
        if commas < most or commas * LEAST_BYTES <= len(body):
            return _list.decode(body)
    except msgspec.ValidationError:
        raise NotRowsError("the body must be a JSON list of rows") from None
    except RecursionError:
        pass  # one of them is nested too deeply, perhaps
    except msgspec.DecodeError:
        if _ODD.search(body) is None:
            raise NotRowsError("the body is not JSON") from None
    try:
        # Bytes that are not UTF-8 become lone surrogates, and the same bytes again.
        text = body.decode("utf-8", "surrogateescape")
        parts = islice(_odd_elements(text), most + 1)
        return [part.encode("utf-8", "surrogateescape") for part in parts]
    except ValueError:
        raise NotRowsError("the body is not JSON") from None


def _odd_elements(text: str) -> Iterator[str]:
    """Yield the elements of a JSON list as they were sent; slow.

    They may have any numbers, texts and depth. Of one that is nested too deeply for this reader,
    and so for every later one, only the brackets are read.

    Raises:
        ValueError: It is not JSON, or not a list.
    """
    decode = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len).raw_decode
    without_escapes = ""
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
        try:
            _, end = decode(text, at)
        except RecursionError:
            without_escapes = without_escapes or text.replace("\\\\", "__").replace('\\"', "__")
            end = _end_of_deep(without_escapes, at)
        yield text[at:end]
        at = _blank(text, end)
        first = False
    if _blank(text, at + 1) != len(text):
        raise ValueError


_CHUNK: Final = 4096
_STEPS: Final = bytes({"[": 1, "{": 1, "]": 255, "}": 255}.get(chr(byte), 0) for byte in range(256))
"""One level deeper, or one level back: 1 and -1, as signed bytes; 0 for all else."""


def _end_of_deep(text: str, at: int) -> int:
    """Return where an object or a list ends, however deep it is: where its brackets are even.

    Takes about 30 ns per character, nearly all of it in C.

    Args:
        text: JSON whose strings have no escapes.
        at: Where it begins.

    Raises:
        ValueError: It has no end.
    """
    level = 1
    is_inside = False  # of a string
    for start in range(at + 1, len(text), _CHUNK):
        parts = text[start : start + _CHUNK].encode("ascii", "replace").split(b'"')
        strings = slice(not is_inside, None, 2)
        parts[strings] = map(bytes, map(len, parts[strings]))
        is_inside ^= len(parts) % 2 == 0
        steps = b'"'.join(parts).translate(_STEPS)
        back = steps.count(b"\xff")
        if back >= level:
            levels = accumulate(memoryview(steps).cast("b"), initial=level)
            with suppress(ValueError):
                return start + operator.indexOf(levels, 0)
        level += steps.count(b"\x01") - back
    raise ValueError


_BLANK = re.compile(r"[ \t\n\r]*")


def _blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    assert found is not None  # the pattern also matches an empty text
    return found.end()
