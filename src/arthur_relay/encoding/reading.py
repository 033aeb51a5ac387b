"""Reads providers' objects: a key of a mapping, or an attribute of an object."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any


def read(holder: Any, name: str) -> Any:
    """Return the value of a key or an attribute, or None. Never raises an `Exception`."""
    try:
        if type(holder) is dict or isinstance(holder, Mapping):
            return holder.get(name)
        return getattr(holder, name, None)
    except Exception:  # noqa: BLE001 - a provider's own class may raise anything
        return None


def read_first(holder: Any, names: Collection[str]) -> Any:
    """Return the value of the first key or attribute that has one, or None."""
    if holder is None or has_none_of(holder, names):  # nearly always
        return None
    for name in names:
        found = read(holder, name)
        if found is not None:
            return found
    return None


def has_none_of(holder: Any, names: Collection[str]) -> bool:
    """Return whether a value is a dict without any of these keys. Never raises an `Exception`."""
    try:
        return type(holder) is dict and holder.keys().isdisjoint(names)
    except Exception:  # noqa: BLE001 - a key of a provider's own class
        return False


def plain_text(value: Any) -> str | None:
    """Return a text, or an enum member's value that is one; None if empty, or anything else."""
    if issubclass(type(value), Enum):  # by its class: another's property may take long
        value = value.value
    return str.__str__(value) if isinstance(value, str) and value else None


def whole_number(value: Any) -> int | None:
    """Return a count: an integer, or a float without a fraction; None for anything else.

    A NumPy scalar, and any other object with `__index__`, counts as an integer.
    """
    if type(value) is int:  # nearly always
        return value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        return int(value.__index__())
    except Exception:  # noqa: BLE001 - not a number, or one that raises
        return None
