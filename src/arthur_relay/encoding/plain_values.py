"""Converts an application's values, of any class, to plain ones: those of JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from arthur_relay.encoding.foreign_objects import KNOWN, Asks

T = TypeVar("T")

MAX_DEPTH = 200
"""The most levels of nesting that can be written; deeper values have no plain form."""


class NoPlainForm(Exception):  # noqa: N818 - control flow between two functions, not an error
    """Nothing in JSON can represent the value."""


def unwrapped(value: Any) -> Any:
    """Return the value of an enum's member or a NumPy scalar; any other value is returned itself.

    An array becomes a list, also one of PyTorch or any other class with a NumPy-like `dtype`. This
    does not need NumPy.
    """
    while isinstance(value, Enum):
        value = value.value
    if hasattr(type(value), "dtype") or (hasattr(value, "dtype") and hasattr(value, "tolist")):
        return value.tolist()  # a number, if it is a scalar or has no dimensions
    return value


class PlainValues:
    """Converts values to plain ones. An element without a plain form is omitted from its list.

    Args:
        omitted: Called for each omitted element.
        ask: Asks objects of the application's classes; None to have their code run at once.
    """

    def __init__(self, omitted: Callable[[], None] | None = None, ask: Asks | None = None) -> None:
        self._omitted = omitted
        self.ask = ask

    @property
    def at_once(self) -> PlainValues:
        """What does the same where an object is asked."""
        return PlainValues(self._omitted)

    def plain(self, value: Any, depth: int = MAX_DEPTH) -> Any:  # noqa: PLR0911 - one for each type
        """Return the plain form of a value.

        Raises:
            NoPlainForm: There is none.
            Exception: Anything that the value raises while it is read.
        """
        if self.ask is not None and type(value) not in KNOWN:
            return self.ask(partial(self.at_once.plain, depth=depth), value)
        value = unwrapped(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return clean_text(value)
        if isinstance(value, (int, float, Decimal, Fraction)):
            return _number(value)
        if isinstance(value, (datetime, date, time)):
            return value.isoformat()
        if isinstance(value, timedelta):
            return value.total_seconds()
        if isinstance(value, UUID):
            return str(value)
        if depth <= 0 or isinstance(value, (bytes, bytearray, memoryview)):
            raise NoPlainForm
        return self._nested(value, depth - 1)

    def _nested(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value.items(), depth)
        if isinstance(value, (set, frozenset, AbstractSet)):
            return self._list(sorted(value, key=str), depth)
        if isinstance(value, Sequence) or type(value).__name__ == "deque":
            return self._list(value, depth)
        if callable(getattr(type(value), "model_dump", None)):  # pydantic
            return self.plain(value.model_dump(), depth)
        if is_dataclass(value) and not isinstance(value, type):
            pairs = [(each.name, getattr(value, each.name)) for each in fields(value)]
            return self._mapping(pairs, depth)
        raise NoPlainForm

    def _list(self, values: Iterable[Any], depth: int) -> list[Any]:
        return self.kept(values, partial(self.plain, depth=depth))

    def _mapping(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        def plain_pair(pair: tuple[Any, Any]) -> tuple[str, Any]:
            return _key(pair[0]), self.plain(pair[1], depth)

        return dict(self.kept(pairs, plain_pair))

    def kept(self, values: Iterable[Any], convert: Callable[[Any], T]) -> list[T]:
        """Return the converted values, without those for which the conversion raises.

        Raises:
            NoPlainForm: It raises for all of them.
        """
        found = []
        odd = 0
        for value in values:
            try:
                found.append(convert(value))
            except Exception:  # noqa: BLE001 - see the class
                odd += 1
        if odd and not found:
            raise NoPlainForm
        if self._omitted is not None:
            for _ in range(odd):
                self._omitted()
        return found


def clean_text(text: str) -> str:
    """Return the text without NUL bytes and lone surrogates.

    Surrogate pairs become the character they stand for, lone ones U+FFFD.
    """
    if "\x00" in text:
        text = text.replace("\x00", "")
    if text.isascii():  # nearly always
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _key(key: Any) -> str:
    return clean_text(str(unwrapped(key)))


def _number(value: Any) -> int | float:
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return int(value)
    try:
        number = float(value)
    except OverflowError:
        raise NoPlainForm from None
    if not math.isfinite(number):
        raise NoPlainForm
    return number
