"""Which JSON a row may be: what every later step can read, Arthur's included. Pure.

Later steps are orjson, by which a row is cut that Arthur finds too large, and whatever reads a
request at Arthur: pandas, Java or Go. One row that one of them can't read costs all the others of
its request, so what is taken here is what all of them read.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

import orjson

MAX_DEPTH: Final = 254
"""How deep a row may be nested: orjson writes no more, and pandas' reader takes 1,024, Jackson's
1,000."""

LEAST_INTEGER: Final = -(2**63)
LARGEST_INTEGER: Final = 2**64 - 1
"""What orjson and pandas' reader take for an integer. Beyond it one makes a float, and the other
takes nothing of the request."""

# Floats from here on may have been integers.
_LARGE: Final = float(2**63)

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
    has_large, is_too_deep = _look_through(document)
    if is_too_deep:
        return None, TOO_DEEP
    if has_large and _has_large_integer(content):
        return None, LARGE_INTEGER
    return document, ""


def _look_through(document: Any) -> tuple[bool, bool]:
    """Return whether there is a number that may be a large integer, and whether it is too deep."""
    has_large = False
    level = [document] if type(document) in (dict, list) else []
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            return has_large, True
        below = []
        for container in level:
            for value in container.values() if type(container) is dict else container:
                kind = type(value)
                if kind is str:
                    continue
                if kind is float:
                    if not -_LARGE < value < _LARGE:
                        has_large = True
                elif kind is dict or kind is list:
                    below.append(value)
        level = below
    return has_large, False


class _LargeIntegerError(ValueError):
    pass


class _NotFiniteError(ValueError):
    pass


def _has_large_integer(content: bytes) -> bool:
    """Look at the numbers as they were written, which takes many times as long."""
    try:
        json.loads(content, parse_int=_take_integer)
    except _LargeIntegerError:
        return True
    except RecursionError:  # orjson can read it, so it is nested less deeply than Python reads
        return False
    return False


def _take_integer(digits: str) -> int:
    # Of many digits Python makes no integer (4,300), and needs its time for fewer.
    if len(digits) > 20 or not LEAST_INTEGER <= (value := int(digits)) <= LARGEST_INTEGER:
        raise _LargeIntegerError
    return value


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
    return TOO_DEEP if _look_through(found)[1] else LARGE_INTEGER


def _take_float(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _NotFiniteError
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise _NotFiniteError(name)
