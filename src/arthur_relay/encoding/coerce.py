"""Converts values to the types that a model has registered, and refuses all others. Pure."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any, NoReturn

import orjson

from arthur_relay.encoding.foreign_objects import KNOWN, Asks
from arthur_relay.encoding.plain_values import NoPlainForm, PlainValues, unwrapped

TEXT = "UNSTRUCTURED_TEXT"
TOKENS = "TOKENS"
LIKELIHOODS = "TOKEN_LIKELIHOODS"

MAX_PAIRS = 5
"""The most candidates per token that Arthur accepts (Arthur's documentation of April 2024)."""


class NotCoercible(Exception):  # noqa: N818 - control flow between two functions, not an error
    """The value can't be converted to the registered type."""


def coercer(
    value_type: str, omitted: Callable[[], None] | None = None, ask: Asks | None = None
) -> Callable[[Any], Any]:
    """Return a function that converts values to a type.

    NaN, infinities and None are not coercible: Arthur's SDK sends null for them, which Arthur
    treats like an absent value. A NumPy scalar or array, or an enum's member, counts as the value
    that it stands for. Elements of a list that do not fit are omitted.

    Args:
        value_type: The type, as Arthur names it.
        omitted: Called for each element that is omitted from a value.
        ask: Asks objects of the application's classes; None to have their code run at once.

    Returns:
        A function that raises `NotCoercible` when the value does not fit, or whatever the value
        itself raises while it is read.
    """
    if value_type in ("STRING", TEXT):
        return partial(_to_text, plain=PlainValues(omitted, ask))
    if value_type in (TOKENS, "ARRAY(STRING)"):
        return partial(_to_texts, plain=PlainValues(omitted, ask))
    convert = _COERCERS.get(value_type, _to_nothing)
    return convert if ask is None else partial(_asked, convert, ask)


def _asked(convert: Callable[[Any], Any], ask: Asks, value: Any) -> Any:
    return convert(value) if type(value) in KNOWN else ask(convert, value)


def _to_text(value: Any, plain: PlainValues) -> str:  # noqa: PLR0911, PLR0912 - one for each type
    if type(value) is str:  # nearly always
        return value
    if plain.ask is not None and type(value) not in KNOWN:
        return plain.ask(partial(_to_text, plain=plain.at_once), value)
    value = unwrapped(value)
    match value:
        case str():
            return str.__str__(value)
        case bool():
            return "true" if value else "false"
        case int():
            try:
                return str(value)
            except ValueError:  # an integer with more digits than Python converts
                raise NotCoercible from None
        case float() if math.isfinite(value):
            return float.__repr__(value)  # NumPy's floats are floats, but print their type
        case Decimal() | Fraction() if math.isfinite(value):
            return str(value)
        case float() | Decimal() | None:
            raise NotCoercible
    try:
        found = plain.plain(value)
    except NoPlainForm:
        raise NotCoercible from None
    if isinstance(found, str):
        return found
    if isinstance(found, float):  # a timedelta, in seconds
        return float.__repr__(found)
    try:
        return orjson.dumps(found).decode()
    except (TypeError, RecursionError):
        raise NotCoercible from None


def _to_integer(value: Any) -> int:
    if type(value) is int and -(2**63) <= value < 2**63:  # nearly always
        return value
    value = unwrapped(value)
    whole = (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, (float, Decimal, Fraction)) and _is_whole(value))
        or (isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", value))
    )
    if not whole:
        raise NotCoercible
    result = int(value)
    if not -(2**63) <= result < 2**63:
        raise NotCoercible
    return result


def _is_whole(value: float | Decimal | Fraction) -> bool:
    return math.isfinite(value) and -(2**64) < value < 2**64 and value == int(value)


def _to_float(value: Any) -> float:
    if type(value) is float and math.isfinite(value):  # nearly always
        return value
    value = unwrapped(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    numbers = (int, float, str, Decimal, Fraction)
    if isinstance(value, bool) or not isinstance(value, numbers):
        raise NotCoercible
    try:
        result = float(value)
    except (ValueError, OverflowError):
        raise NotCoercible from None
    if not math.isfinite(result):
        raise NotCoercible
    return result


def _to_boolean(value: Any) -> bool:
    value = unwrapped(value)
    match value:
        case bool():
            return value
        case str() if value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        case _:
            raise NotCoercible


def _to_likelihoods(value: Any) -> dict[str, float]:
    """Return a token's candidates unchanged, if Arthur accepts them: up to five, each 0 to 1."""
    if not isinstance(value, Mapping) or len(value) > MAX_PAIRS:
        raise NotCoercible
    pairs = {str(token): _to_float(probability) for token, probability in value.items()}
    if not all(0.0 <= probability <= 1.0 for probability in pairs.values()):
        raise NotCoercible
    return pairs


def _to_timestamp(value: Any) -> str:
    value = unwrapped(value)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise NotCoercible from None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.isoformat()
    raise NotCoercible  # without a time zone it could mean any of 38 moments


def _to_texts(value: Any, plain: PlainValues) -> list[str]:
    if plain.ask is not None and type(value) not in KNOWN:
        return plain.ask(partial(_to_texts, plain=plain.at_once), value)
    value = unwrapped(value)
    is_set = isinstance(value, AbstractSet)
    if not is_set and (isinstance(value, (str, bytes, bytearray)) or not _is_list(value)):
        raise NotCoercible
    try:
        found = plain.kept(value, partial(_to_text, plain=plain))
    except NoPlainForm:
        raise NotCoercible from None
    return sorted(found) if is_set else found


def _is_list(value: Any) -> bool:
    return isinstance(value, (Sequence, deque))


def _to_all_likelihoods(value: Any) -> list[dict[str, float]]:
    if isinstance(value, (list, tuple)):
        return [_to_likelihoods(item) for item in value]
    raise NotCoercible


def _to_nothing(_value: Any) -> NoReturn:
    """Refuse types of which an LLM run has no values, such as images and time series."""
    raise NotCoercible


_COERCERS: Mapping[str, Callable[[Any], Any]] = {
    "INTEGER": _to_integer,
    "FLOAT": _to_float,
    "BOOLEAN": _to_boolean,
    "TIMESTAMP": _to_timestamp,
    LIKELIHOODS: _to_all_likelihoods,
}
