"""Copies the application's nested values, so that later changes of them have no effect here.

This runs on the caller's thread, so it is bounded: values are copied `COPY_DEPTH` deep, and
`COPY_BYTES` of each. Everything beyond is kept by reference, and a later change of it may show.
"""

from __future__ import annotations

from sys import getsizeof
from types import FunctionType
from typing import Any

COPY_DEPTH = 8
"""How deep nested values are copied."""

COPY_BYTES = 256 * 1024
"""The most bytes of one value that are copied; immutable values, such as texts, never are."""

MAX_VISITS = 10_000
"""The most values that are visited within one value: about a millisecond's work."""

ITEM_BYTES = 64
"""The assumed size of each value that is not visited."""

_ATOMS = frozenset({str, int, float, bool, type(None)})


def copy_value(value: Any) -> tuple[Any, int]:
    """Copy dicts, lists, tuples, sets and arrays; any other value is returned itself.

    Returns:
        The copy, and the bytes of memory that it counts for.

    Raises:
        Exception: Whatever the value raises while it is read.
    """
    if type(value) in _ATOMS:
        return value, getsizeof(value)
    copying = _Copying()
    return copying.copy(value, COPY_DEPTH), copying.size


def own_size(value: Any) -> int:
    """Return the bytes of an object itself, which never takes long.

    A `__sizeof__` in Python may look at all that the object holds: pandas counts each text of a
    table.
    """
    if type(type(value).__sizeof__) is FunctionType:
        return object.__sizeof__(value)
    return getsizeof(value)


def size_of(value: Any) -> int:
    """Return the bytes that a value counts for, within the same bounds. Nothing is copied."""
    if type(value) in _ATOMS:
        return getsizeof(value)
    sizing = _Copying(copies=False)
    sizing.copy(value, COPY_DEPTH)
    return sizing.size


class _Copying:
    """Copies one value, within the bounds.

    Attributes:
        size: The bytes so far.
    """

    __slots__ = ("_copies", "_visits", "size")

    def __init__(self, *, copies: bool = True) -> None:
        self.size = 0
        self._copies = copies
        self._visits = MAX_VISITS

    def copy(self, value: Any, depth: int) -> Any:
        """Return a copy as far as the bounds allow, and count its bytes."""
        kind = type(value)
        if kind in _ATOMS:
            self.size += getsizeof(value)
            return value
        self.size += own_size(value)
        if isinstance(value, (dict, list, tuple, set, frozenset)):
            self._visits -= len(value)
            if depth <= 0 or self._visits < 0:
                self.size += ITEM_BYTES * len(value)
                return value
            return self._container(value, depth - 1)
        if kind.__module__ == "numpy" and hasattr(value, "nbytes") and self._may_copy():
            return value.copy()
        return bytes(value) if kind is bytearray and self._may_copy() else value

    def _may_copy(self) -> bool:
        return self._copies and self.size <= COPY_BYTES

    def _container(self, value: Any, depth: int) -> Any:
        copies, copy = self._may_copy(), self.copy
        if isinstance(value, dict):
            items = {key: copy(item, depth) for key, item in value.items()}
            return items if copies else value
        parts = [copy(item, depth) for item in value]
        if not copies:
            return value
        if isinstance(value, list):
            return parts
        if isinstance(value, tuple):
            return tuple(parts)
        return frozenset(value)
