"""Which JSON a row may be: what every later step can read, Arthur's included. Pure.

Later steps are orjson, by which a row is cut that Arthur finds too large, and whatever reads a
request at Arthur: pandas, Java or Go. One row that one of them can't read costs all the others of
its request, so what is taken here is what all of them read.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, Final, NoReturn

import orjson

MAX_DEPTH: Final = 254
"""How deep a row may be nested: orjson writes no more, and pandas' reader takes 1,024, Jackson's
1,000."""

LEAST_INTEGER: Final = -(2**63)
LARGEST_INTEGER: Final = 2**64 - 1
"""What orjson and pandas' reader take for an integer. Beyond it one makes a float, and the other
takes nothing of the request."""

NOT_UTF8: Final = "the row is not valid UTF-8"
NOT_FINITE: Final = "the row has a number that is not finite: NaN, Infinity, or one like 1e400"
HALF_CHARACTER: Final = "the row has half a character (a lone surrogate)"
LARGE_INTEGER: Final = "the row has an integer that does not fit into 64 bits"
TOO_DEEP: Final = f"the row is nested more than {MAX_DEPTH} levels deep"
NOT_JSON: Final = "the row is not JSON"


def read_row(content: bytes) -> tuple[Any, str]:
    """Return what a row holds, and why it can't be taken, or "".

    Args:
        content: The row, as it was sent.
    """
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None, _why_not(content)
    if _is_as_written(document, content):
        return document, ""
    # A mark for each byte says whether to look closer, which is seldom.
    marks = (content if len(content) < LONG_BYTES else _outside_of_texts(content)).translate(_MARKS)
    # Not in what was read of it: of a key that comes twice, that has the last value alone.
    if marks.count(b"[") > MAX_DEPTH and _is_too_deep(content):
        return None, TOO_DEEP
    if _MANY_DIGITS in marks:
        integers = _INTEGERS.findall(_outside_of_texts(content))
        if not all(map(_fits, integers)):
            return None, LARGE_INTEGER
    return document, ""


def _is_as_written(document: Any, content: bytes) -> bool:
    """Say whether a row has the very bytes that orjson writes for it, as our own clients send it.

    Then nothing is left to look for: orjson goes no deeper than `MAX_DEPTH`, writes no integer that
    does not fit and no long row of digits for a float, and no key comes twice. This takes a tenth
    of the closer look where texts are long.
    """
    try:
        return orjson.dumps(document) == content
    except orjson.JSONEncodeError:  # it is too deep
        return False


LONG_BYTES: Final = 8192
"""From here on it takes less to leave a row's texts out than to look at each byte of them."""

_MARKS: Final = bytes(
    ord("0" if chr(byte).isdigit() else "[" if chr(byte) in "[{" else " ") for byte in range(128)
) + bytes(128)
_MANY_DIGITS: Final = b"0" * len(str(-LEAST_INTEGER))
# Also those with a fraction behind them: pandas reads their digits as an integer first.
_INTEGERS: Final = re.compile(rb"(?<![0-9.eE+-])-?[0-9]{19,}(?![0-9])")
_NO_BRACKETS: Final = bytes(range(256)).translate(None, b"[]{}")
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""One level deeper, and back: 1 and -1, as signed bytes."""


def _outside_of_texts(content: bytes) -> bytes:
    """Return JSON without what is in its strings."""
    if b"\\" in content:
        content = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b'"'.join(content.split(b'"')[::2])


def _is_too_deep(content: bytes) -> bool:
    """Say whether JSON is too deep. Takes some 30 ns a bracket, however they are nested."""
    steps = _outside_of_texts(content).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > MAX_DEPTH


def _fits(digits: bytes) -> bool:
    # Of very many digits Python makes no integer.
    return len(digits) <= 20 and LEAST_INTEGER <= int(digits) <= LARGEST_INTEGER


class _NotFiniteError(ValueError):
    pass


def _why_not(content: bytes) -> str:
    """Return why orjson does not read a row. Slow: it is for rows that are refused."""
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
    # All that is left are integers which make no finite float, and what is nested too deeply.
    return TOO_DEEP if _is_too_deep(content) else LARGE_INTEGER


def _take_float(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _NotFiniteError
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise _NotFiniteError(name)
