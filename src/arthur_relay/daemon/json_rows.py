"""Checks that a row is JSON that every later reader understands. Pure.

Later readers are orjson, which reads a row that has to be cut for Arthur, and whatever reads a
request at Arthur: pandas, Java or Go. One row that one of them can't read costs all the other rows
of its request, so only JSON that all of them read is accepted.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, Final, NoReturn

import orjson

MAX_DEPTH: Final = 254
"""How deep a row may be nested. It is orjson's limit for writing; pandas reads 1,024 levels, and
Jackson 1,000."""

LEAST_INTEGER: Final = -(2**63)
LARGEST_INTEGER: Final = 2**64 - 1
"""The integers that orjson and pandas read. Beyond them, orjson returns a float, and pandas rejects
the whole request."""

NOT_UTF8: Final = "the row is not valid UTF-8"
NOT_FINITE: Final = "the row has a number that is not finite: NaN, Infinity, or one like 1e400"
HALF_CHARACTER: Final = "the row has half a character (a lone surrogate)"
LARGE_INTEGER: Final = "the row has an integer that does not fit into 64 bits"
TOO_DEEP: Final = f"the row is nested more than {MAX_DEPTH} levels deep"
NOT_JSON: Final = "the row is not JSON"


def read_row(content: bytes) -> tuple[Any, str]:
    """Return a row's document, and why the row is refused, or "".

    Args:
        content: The row as it was sent.
    """
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None, _why_not(content)
    if _is_as_written(document, content):
        return document, ""
    # A mark for each byte shows whether a closer look is needed, which is rare.
    marks = (content if len(content) < LONG_BYTES else _outside_of_texts(content)).translate(_MARKS)
    # In the bytes, because the document has only the last value of a repeated key.
    if marks.count(b"[") > MAX_DEPTH and _is_too_deep(content):
        return None, TOO_DEEP
    if _MANY_DIGITS in marks:
        integers = _INTEGERS.findall(_outside_of_texts(content))
        if not all(map(_fits, integers)):
            return None, LARGE_INTEGER
    return document, ""


def _is_as_written(document: Any, content: bytes) -> bool:
    """Return whether a row has exactly the bytes that orjson writes, as our own clients send it.

    Then no other check is needed: orjson writes at most `MAX_DEPTH` levels, only integers that fit,
    no float with many digits, and each key once. With long texts, this takes a tenth of the time of
    the other checks.
    """
    try:
        return orjson.dumps(document) == content
    except orjson.JSONEncodeError:  # it is too deep
        return False


LONG_BYTES: Final = 8192
"""In rows of this size or more, removing the texts takes less time than marking all their bytes."""

_MARKS: Final = bytes(
    ord("0" if chr(byte).isdigit() else "[" if chr(byte) in "[{" else " ") for byte in range(128)
) + bytes(128)
_MANY_DIGITS: Final = b"0" * len(str(-LEAST_INTEGER))
# Also those before a fraction: pandas reads their digits as an integer first.
_INTEGERS: Final = re.compile(rb"(?<![0-9.eE+-])-?[0-9]{19,}(?![0-9])")
_NO_BRACKETS: Final = bytes(range(256)).translate(None, b"[]{}")
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""One level deeper, or one level back: 1 and -1, as signed bytes."""


def _outside_of_texts(content: bytes) -> bytes:
    """Return JSON without the contents of its strings."""
    if b"\\" in content:
        content = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b'"'.join(content.split(b'"')[::2])


def _is_too_deep(content: bytes) -> bool:
    """Return whether JSON is nested too deeply. Takes about 30 ns per bracket."""
    steps = _outside_of_texts(content).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > MAX_DEPTH


def _fits(digits: bytes) -> bool:
    # Python does not convert very long texts of digits to integers.
    return len(digits) <= 20 and LEAST_INTEGER <= int(digits) <= LARGEST_INTEGER


class _NotFiniteError(ValueError):
    pass


def _why_not(content: bytes) -> str:
    """Return why orjson can't read a row. Slow, for refused rows only."""
    try:
        text = str(content, "utf-8")
    except UnicodeDecodeError:
        return NOT_UTF8
    try:
        found = json.loads(
            text, parse_int=len, parse_float=_take_float, parse_constant=_refuse_constant
        )
        json.dumps(found, ensure_ascii=False).encode()
    except _NotFiniteError:
        return NOT_FINITE
    except UnicodeEncodeError:
        return HALF_CHARACTER
    except RecursionError:
        return TOO_DEEP
    except ValueError:
        return NOT_JSON
    # What remains are integers too large for a float, and rows that are nested too deeply.
    return TOO_DEEP if _is_too_deep(content) else LARGE_INTEGER


def _take_float(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _NotFiniteError
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise _NotFiniteError(name)
