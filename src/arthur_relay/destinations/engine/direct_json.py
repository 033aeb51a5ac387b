"""Writes what needs no care as JSON by one call of the library; nearly all values are such.

`span_json.py` looks at each value in Python, which takes five times as long. Here each is looked
at as well, but for no more than whether that care is needed: then nothing is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from math import isfinite
from typing import Any, Final, NamedTuple

import orjson

from arthur_relay.destinations.engine.message_forms import (
    MessageForm,
    constructor,
    is_message,
    useful_fields,
)
from arthur_relay.inference import ObjectSnapshot

MAX_BYTES: Final = 1_000_000
MAX_VALUES: Final = 20_000
MAX_DEPTH: Final = 24

# Python 3.11 takes long to find a member of an enum.
_TYPED, _CONSTRUCTOR = MessageForm.TYPED, MessageForm.CONSTRUCTOR
_IMAGE = "data:image/"
_OPTIONS = (
    orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)


class DirectJson(NamedTuple):
    """A value as JSON, which may also stand for that value within a larger one.

    Attributes:
        text: The JSON.
        values: How many values are in its containers.
    """

    text: str
    values: int


def direct_json(value: Any, form: MessageForm) -> DirectJson | None:
    """Return a value as JSON, or None when it needs more care.

    It does when it is large or deep, when it has a value that JSON does not know, a number that
    JSON can't say, a key that the Engine rejects, an inline image, a NUL or a lone surrogate.
    """
    hook = _typed if form is _TYPED else _constructed if form is _CONSTRUCTOR else _fields
    try:
        extent = _extent((value,))
        if extent is None:
            return None
        written = orjson.dumps(value, hook, _OPTIONS)
    except Exception:  # noqa: BLE001 - what it was is found by who takes more care
        return None
    if len(written) > MAX_BYTES:
        return None
    return DirectJson(written.decode(), extent[0])


class WrittenMessage:
    """What was written of a message's copy, as far as it was asked for.

    Attributes:
        extent: How many values and characters it has, or None when it needs more care.
        attributes: Its attributes, without what stands before their names, and how many
            characters and values they took of a span's.
        typed: Its JSON by form; so are the others.
        constructor: See `typed`.
        fields: See `typed`.
    """

    __slots__ = ("attributes", "constructor", "extent", "fields", "typed")

    def __init__(self, extent: tuple[int, int] | None) -> None:
        self.extent = extent
        self.attributes: tuple[list[tuple[str, Any]], int, int] | None = None
        self.typed: orjson.Fragment | None = None
        self.constructor: orjson.Fragment | None = None
        self.fields: orjson.Fragment | None = None


def _extent(level: Collection[Any]) -> tuple[int, int] | None:  # noqa: PLR0911, PLR0912 - one for each kind of value
    """Return how many values, and characters of texts, are within some values.

    None when the library can't write them all as it should. Level by level, because a call for
    each container would take longer than all else.
    """
    values = characters = 0
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                size = len(item)
                characters += size
                # Here, because to look for either in the JSON takes 1 µs a kilobyte.
                if "\x00" in item or (size >= len(_IMAGE) and item.startswith(_IMAGE)):
                    return None
            elif item is None or kind is bool:
                continue
            elif kind is dict:
                if item:  # most of a message's are empty
                    if not _are_good_keys(item):
                        return None
                    inner += item.values()
            elif kind is list or kind is tuple:
                inner += item
            elif kind is int:
                if not -(2**63) <= item < 2**64:
                    return None
            elif kind is ObjectSnapshot:
                if not is_message(item.fields):
                    inner.append(item.fields)
                    values -= 1
                    continue
                extent = (item.written or _look_at(item)).extent
                if extent is None:
                    return None
                values += extent[0]
                characters += extent[1]
            elif kind is DirectJson:
                values += item.values
                characters += len(item.text)
            elif not _is_plain_atom(item, kind):
                return None
        values += len(inner)
        if values > MAX_VALUES or characters > MAX_BYTES:
            return None
        if not inner:
            return values, characters
        level = inner
    return None


def _look_at(message: ObjectSnapshot) -> WrittenMessage:
    message.written = written = WrittenMessage(None)  # for the case that it is within itself
    written.extent = _extent((message.fields,))
    return written


def _is_plain_atom(value: Any, kind: type) -> bool:
    if kind is float:
        return isfinite(value)
    # LangChain's own class of texts, for one.
    if not isinstance(value, str) or isinstance(value, Enum):
        return False
    text = str.__str__(value)
    return len(text) <= MAX_BYTES and "\x00" not in text and not text.startswith(_IMAGE)


def _are_good_keys(keys: Mapping[Any, Any]) -> bool:
    """Return whether the keys are texts that the Engine takes.

    Raises:
        TypeError: One is no text.
    """
    together = "".join(keys)  # to look at each takes four times as long
    return "/" not in together and "." not in together and "\x00" not in together


def _fields(value: Any) -> Any:
    """Return what is written in the place of an object: its fields, or a text."""
    if type(value) is not ObjectSnapshot:
        return _other(value)
    written = value.written
    if written is None:
        return value.fields
    if written.fields is None:
        written.fields = _fragment(value.fields)
    return written.fields


def _other(value: Any) -> Any:
    return orjson.Fragment(value.text) if type(value) is DirectJson else str.__str__(value)


def _typed(value: Any) -> Any:
    if type(value) is not ObjectSnapshot:
        return _other(value)
    written = value.written
    if written is None:
        return _fragment(value.fields)
    if written.typed is None:
        data = {"type": value.fields.get("type"), "data": _fragment(value.fields)}
        written.typed = _fragment(data)
    return written.typed


def _constructed(value: Any) -> Any:
    if type(value) is not ObjectSnapshot:
        return _other(value)
    written = value.written
    if written is None:
        return value.fields
    if written.constructor is None:
        kwargs = _fragment(useful_fields(value.fields))
        written.constructor = _fragment(constructor(value.cls, kwargs))
    return written.constructor


def _fragment(value: Any) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps(value, _fields, _OPTIONS))
