"""Reading providers' objects: a name in a mapping, or an attribute of an object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def read(holder: Any, name: str) -> Any:
    """Return what a mapping or an object has by a name, or None. Never raises an `Exception`."""
    try:
        if isinstance(holder, Mapping):
            return holder.get(name)
        return getattr(holder, name, None)
    except Exception:  # noqa: BLE001 - a provider's own class may raise anything
        return None


def read_first(holder: Any, names: Iterable[str]) -> Any:
    """Return what a mapping or an object has by the first of some names; None when by none."""
    for name in names:
        found = read(holder, name)
        if found is not None:
            return found
    return None


def plain_text(value: Any) -> str | None:
    """Return a text, or the value of an enum's member that is one; None for anything else."""
    value = getattr(value, "value", value) if not isinstance(value, str) else value
    return str.__str__(value) if isinstance(value, str) and value else None


def whole_number(value: Any) -> int | None:
    """Return a count: an integer, or a float without a fraction; None for anything else.

    Also a NumPy scalar, or whatever else can stand for an integer.
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
