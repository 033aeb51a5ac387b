"""The forms in which LangChain's messages are written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any

from arthur_relay.encoding.foreign_objects import KNOWN

_ALWAYS_WRITTEN = frozenset({"content", "invalid_tool_calls", "role", "tool_call_id", "tool_calls"})


class MessageForm(StrEnum):
    """How LangChain's messages are written."""

    TYPED = "typed"
    """`{"type": ..., "data": {...}}`, by `message_to_dict`."""
    CONSTRUCTOR = "constructor"
    """`{"lc": 1, "type": "constructor", "id": [...], "kwargs": {...}}`, by `dumpd`."""
    FIELDS = "fields"
    """The fields, by `model_dump`."""


def is_message(fields: Mapping[str, Any]) -> bool:
    """Return whether an object with these fields is a message."""
    return "content" in fields and "additional_kwargs" in fields


def constructor(cls: type, kwargs: Any) -> dict[str, Any]:
    """Return a message with these fields as LangChain's `dumpd` writes it."""
    return {"lc": 1, "type": "constructor", "id": _lc_id(cls), "kwargs": kwargs}


def useful_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that LangChain's `to_json` writes: those that differ from their default."""
    return {name: item for name, item in fields.items() if _is_useful(name, item)}


def _is_useful(name: str, value: Any) -> bool:
    # An object of the application is not asked: its `__bool__` may raise, as pandas', or block.
    return type(value) not in KNOWN or bool(value) or name in _ALWAYS_WRITTEN


@lru_cache(maxsize=64)
def _lc_id(cls: type) -> list[str]:
    """Return the place of a class in LangChain; never changed."""
    try:
        return [*cls.lc_id()]  # type: ignore[attr-defined] # of LangChain's
    except Exception:  # noqa: BLE001 - a class of the application
        return [*cls.__module__.split("."), cls.__name__]
