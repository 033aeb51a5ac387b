"""Captured values as JSON that Arthur Engine takes: bounded, readable, and nothing it chokes on.

The Engine reads some attributes as JSON. It rejects a span with a key that has `/` in such JSON,
and loses the whole request for NaN, a NUL or a lone surrogate, also written as escapes.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from enum import Enum
from functools import partial
from itertools import islice
from pathlib import PurePath
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

import orjson

from arthur_relay.destinations.engine.direct_json import DirectJson, direct_json
from arthur_relay.destinations.engine.hiding import REDACTED
from arthur_relay.destinations.engine.message_forms import (
    MessageForm,
    constructor,
    is_message,
    useful_fields,
)
from arthur_relay.encoding.plain_values import clean_text
from arthur_relay.inference import ObjectSnapshot

T = TypeVar("T")

MAX_DEPTH = 64
"""How deep values are written; the Engine rejects what is a thousand deep."""

MAX_VALUES = 20_000
"""How many values are written of one input or output: some 10 ms of work."""

MAX_CHARACTERS = 1_000_000
"""How many characters of text are written of one input or output."""

MAX_OBJECT_CHARACTERS = 10_000
"""How much is written of the text of an object that JSON does not know."""

KEPT_TEXT_CHARACTERS = 100
"""Texts of this length are written whatever stands beside them: names, ids."""

SHORT_TEXT_CHARACTERS = 1_000
"""Texts of this length are no images that are left out."""

UNPARSED = "unparsed"
"""The key under which values are sent as a text whose own keys the Engine would reject."""

_COPIED_DEPTH = 8
_SCALARS = (UUID, Decimal, PurePath, complex)
_KEYS = frozenset({int, float, bool, type(None)})
"""The classes of keys, beside texts, whose text is made without any of the application's code."""


class SpanJson(NamedTuple):
    """A value as JSON.

    Attributes:
        text: The JSON.
        is_harmless: Whether the Engine may read it as JSON.
        direct: The same, to stand for the value within a larger one; None when it needed care.
    """

    text: str
    is_harmless: bool
    direct: DirectJson | None = None


class TextParts(Protocol):
    """Redacts the texts in a value, and counts what is not sent as it is."""

    @property
    def redacts(self) -> bool:
        """Whether `part` may change a text, so that numbers have to be shown to it too."""
        ...

    @property
    def characters(self) -> int:
        """How many characters the span may still have."""
        ...

    @property
    def values(self) -> int:
        """How many values its JSON may still have."""
        ...

    def spend(self, *, characters: int, values: int) -> None:
        """Count what was written."""
        ...

    @property
    def longest_image(self) -> int:
        """How many characters an inline image has, at most, that is written."""
        ...

    def part(self, text: str) -> str:
        """Return what may be sent of a part of a longer text."""
        ...

    def ask(self, function: Callable[[Any], T], value: Any) -> T:
        """Return what a function returns for an object of the application; see `ForeignObjects`.

        Raises:
            Exception: Whatever it raises; `SilentObjectError` when it is not known in time.
        """
        ...

    def omit(self, name: str) -> None:
        """Count a value of an attribute that is cut, left out, or sent in another form."""
        ...


class JsonWriter:
    """Writes the values of one attribute as JSON. Never raises.

    Args:
        texts: Redacts the texts in a value.
        name: The attribute.
    """

    def __init__(self, texts: TextParts, name: str) -> None:
        self._texts = texts
        self._name = name

    def _omitted(self) -> None:
        self._texts.omit(self._name)

    def write(self, value: Any, form: MessageForm = MessageForm.TYPED) -> SpanJson:
        """Return a value as JSON."""
        if (direct := self._direct(value, form)) is not None:
            return SpanJson(direct.text, is_harmless=True, direct=direct)
        found, walk = self._plain(value, form)
        if walk.has_odd_keys:
            self._omitted()
        return SpanJson(_dump(found), not walk.has_odd_keys)

    def write_for_reader(self, value: Any, *, in_parts: Any = None) -> str:
        """Return JSON for an attribute that the Engine always reads as JSON.

        Nothing is lost for a key that it would reject: a nested mapping that has one becomes its
        JSON as a text; of the outermost, these keys stand together in one such text.

        Args:
            value: The value.
            in_parts: The same with parts that have been written before, or None.
        """
        direct = self._direct(value if in_parts is None else in_parts, MessageForm.TYPED)
        if direct is not None:
            return direct.text
        found, walk = self._plain(value, MessageForm.TYPED)
        if not walk.has_odd_keys:
            return _dump(found)
        self._omitted()
        if not isinstance(found, dict):
            return _dump(_folded(found))
        odd = {key: item for key, item in found.items() if _is_odd(key)}
        kept = {key: _folded(item) for key, item in found.items() if key not in odd}
        if odd:
            kept[UNPARSED] = _dump(odd)
        return _dump(kept)

    def json_text(self, text: str) -> str:
        """Return a text for an attribute that the Engine always reads as JSON.

        What is no JSON stays as it is: the Engine keeps it as a text.
        """
        try:
            value = orjson.loads(clean_text(text))
        except orjson.JSONDecodeError:
            return self._no_json(text)
        return self.write_for_reader(value)

    def text(self, text: str) -> str:
        """Return a text that is a whole value, within the same bounds."""
        return str(self._plain(text, MessageForm.TYPED)[0])

    def unparsed(self, text: str) -> str:
        """Return JSON that holds a text which is not JSON any more."""
        return _dump({UNPARSED: clean_text(text)})

    def parsed(self, text: Any) -> dict[str, Any]:
        """Return the JSON object that a text is; empty when it is none."""
        try:
            found = orjson.loads(text) if isinstance(text, str) else None
        except (orjson.JSONDecodeError, UnicodeEncodeError):
            found = None
        return found if isinstance(found, dict) else {}

    def is_json(self, text: str) -> bool:
        """Return whether a text is JSON that the Engine may read as such."""
        if text[:1] not in ("{", "[") and text.lstrip()[:1] not in ("{", "["):
            return False
        try:
            value = orjson.loads(text)
        except (orjson.JSONDecodeError, UnicodeEncodeError):
            return False
        return _is_harmless(value, MAX_DEPTH)

    def _no_json(self, text: str) -> str:
        told = self._texts.part(text)
        try:
            json.loads(told)  # knows NaN and lone surrogates, as the Engine does
        except RecursionError:
            pass  # the Engine would reject the span for its depth
        except ValueError:
            return told
        self._omitted()
        return _dump(told)

    def _direct(self, value: Any, form: MessageForm) -> DirectJson | None:
        """Return a value's JSON, if it needs no care and the span has room for all of it."""
        texts = self._texts
        found = None if texts.redacts else direct_json(value, form)
        if found is None or len(found.text) > texts.characters or found.values > texts.values:
            return None
        texts.spend(characters=len(found.text), values=found.values)
        return found

    def _plain(self, value: Any, form: MessageForm) -> tuple[Any, _Walk]:
        walk = _Walk(self._texts, self._name)
        try:
            return walk.plain(value, form, 0), walk
        except Exception:  # noqa: BLE001 - the application's own objects may raise anything
            self._omitted()
            return _type_name(value), walk
        finally:
            walk.end()


class _Walk:
    """One walk through one value.

    Attributes:
        has_odd_keys: Whether a mapping has a key that the Engine rejects in JSON.
    """

    __slots__ = (
        "_characters",
        "_most_characters",
        "_most_values",
        "_name",
        "_path",
        "_redacts",
        "_tell",
        "_texts",
        "_values",
        "has_odd_keys",
    )

    def __init__(self, texts: TextParts, name: str) -> None:
        self._texts = texts
        self._name = name
        self._redacts = texts.redacts
        self._tell = texts.part
        self._values = self._most_values = min(MAX_VALUES, texts.values)
        self._characters = self._most_characters = min(MAX_CHARACTERS, texts.characters)
        self._path: set[int] = set()
        self.has_odd_keys = False

    def _omitted(self) -> None:
        self._texts.omit(self._name)

    def end(self) -> None:
        """Count what was written among what the span has."""
        self._texts.spend(
            characters=self._most_characters - max(0, self._characters),
            values=self._most_values - max(0, self._values),
        )

    def plain(self, value: Any, form: MessageForm, depth: int) -> Any:  # noqa: PLR0911 - one for each type
        """Return what JSON has for a value."""
        kind = type(value)
        if kind is str:
            return self._text(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return self._integer(value)
        if kind is float:
            return self._float(value)
        if depth >= MAX_DEPTH or id(value) in self._path:
            self._omitted()
            return f"… [{_type_name(value)}, left out by arthur-relay]"
        if depth < _COPIED_DEPTH:  # no circle there: these are copies
            return self._nested(value, form, depth + 1)
        self._path.add(id(value))
        try:
            return self._nested(value, form, depth + 1)
        finally:
            self._path.discard(id(value))

    def _nested(self, value: Any, form: MessageForm, depth: int) -> Any:
        try:
            kind = type(value)
            if kind is tuple:
                return self._list(list(value), form, depth)
            if kind is not dict and kind is not list and kind is not ObjectSnapshot:
                value, form = self._texts.ask(partial(_shape, form=form, most=self._values), value)
                kind = type(value)
            if kind is dict:
                return self._mapping(value, form, depth)
            if kind is list:
                return self._list(value, form, depth)
            if kind is ObjectSnapshot:
                return self._object(value, form, depth)
            return self.plain(value, form, depth)
        except Exception:  # noqa: BLE001 - it costs the innermost value that raises, no more
            self._omitted()
            return _type_name(value)

    def _mapping(self, value: dict[Any, Any], form: MessageForm, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        pairs = list(value.items())
        room = self._room(len(pairs))
        for key, item in pairs if room is None else pairs[:room]:
            name = self._text(key if type(key) is str else self._key(key))
            if "/" in name or "." in name:
                self.has_odd_keys = True
            kind = type(item)
            if kind is str:
                found[name] = self._text(item)
            elif item is None or kind is bool or ((kind is dict or kind is list) and not item):
                found[name] = item  # most fields of a message
            else:
                found[name] = self.plain(item, form, depth)
        if room is not None:
            found["…"] = self._rest(len(pairs) - room)
        return found

    def _key(self, key: Any) -> str:
        try:
            return str(key) if type(key) in _KEYS else self._texts.ask(str, key)
        except Exception:  # noqa: BLE001 - someone else's __str__
            return _type_name(key)

    def _list(self, value: list[Any], form: MessageForm, depth: int) -> list[Any]:
        items = list(value)
        room = self._room(len(items))
        if room is None:
            return [self.plain(item, form, depth) for item in items]
        kept = [self.plain(item, form, depth) for item in items[:room]]
        return [*kept, self._rest(len(items) - room)]

    def _room(self, count: int) -> int | None:
        """Return how many of so many values may be written, or None when all of them may."""
        left = self._values
        self._values = left - count
        return None if count <= left else max(0, left)

    def _rest(self, count: int) -> str:
        self._omitted()
        return f"… [{count} values cut by arthur-relay]"

    def _object(self, snapshot: ObjectSnapshot, form: MessageForm, depth: int) -> Any:
        fields = snapshot.fields
        if not is_message(fields):
            inner = MessageForm.FIELDS if form is MessageForm.TYPED else form
            return self._mapping(fields, inner, depth)
        if form is MessageForm.CONSTRUCTOR:
            kwargs = self._mapping(useful_fields(fields), MessageForm.FIELDS, depth)
            return constructor(snapshot.cls, kwargs)
        data = self._mapping(fields, MessageForm.FIELDS, depth)
        if form is MessageForm.FIELDS:
            return data
        return {"type": data.get("type"), "data": data}

    def _text(self, text: str) -> str:
        length = len(text)
        self._characters -= length
        if (  # nearly always
            (length <= SHORT_TEXT_CHARACTERS or not text.startswith("data:image/"))
            and (self._characters >= 0 or length <= KEPT_TEXT_CHARACTERS)
            and not self._redacts
            and text.isascii()
            and "\x00" not in text
        ):
            return text
        if length > self._texts.longest_image and text.startswith("data:image/"):
            self._characters += length
            return REDACTED
        if self._characters < 0 and length > KEPT_TEXT_CHARACTERS:
            kept = max(0, length + self._characters)
            self._characters = 0
            self._omitted()
            # Redacted first, because half a secret looks like none.
            told = self._tell(text)[:kept]
            return f"{told}… [cut by arthur-relay, {length} characters before]"
        return self._tell(text)

    def _integer(self, value: int) -> int | str:
        if self._redacts or not -(2**63) <= value < 2**64:
            digits = _digits(value)  # a card's number is one all the same
            told = self._tell(digits)
            if told != digits or not -(2**63) <= value < 2**64:
                return self._text(digits)
        return value

    def _float(self, value: float) -> float | str:
        if math.isfinite(value):
            return value
        self._omitted()
        return repr(value)


def _shape(value: Any, *, form: MessageForm, most: int) -> tuple[Any, MessageForm]:
    """Return what stands for an object, and the form in which that is written.

    It is what OpenInference's encoder makes of a value that JSON does not know, one level of it: a
    dict, a list, the snapshot of a message, or a value without any others in it. Nothing else of
    this module runs the application's code.

    Args:
        value: The object.
        form: The form in which it would be written.
        most: How many values may still be written; there are no more here, but one: others' classes
            may have no end.

    Raises:
        Exception: Whatever the object raises.
    """
    if isinstance(value, dict):
        return _some_pairs(value, most), form
    if isinstance(value, (list, tuple, set, frozenset)):
        return [*islice(value, max(0, most) + 1)], form
    fields = getattr(value, "__dict__", None)
    if isinstance(fields, dict) and not isinstance(value, (str, int, float)):
        if is_message(fields):
            return ObjectSnapshot(type(value), fields.copy()), form
        if callable(getattr(type(value), "model_dump", None)):
            return _dumped(value, fields, most), MessageForm.FIELDS
    return _scalar(value, most), form


def _scalar(value: Any, most: int) -> Any:  # noqa: PLR0911 - one for each kind of value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"[{len(value)} bytes]"
    if isinstance(value, Mapping):
        return _some_pairs(value, most)
    text = str(value)
    return text if isinstance(value, _SCALARS) else text[:MAX_OBJECT_CHARACTERS]


def _some_pairs(value: Mapping[Any, Any], most: int) -> dict[Any, Any]:
    return dict(islice(value.items(), max(0, most) + 1))


def _dumped(value: Any, fields: dict[str, Any], most: int) -> Any:
    """Return a pydantic model's dump; the fields themselves if that would be much too large."""
    if not has_fewer_values(fields, most):
        return dict(fields)
    try:
        return value.model_dump()
    except Exception:  # noqa: BLE001 - its text says more than nothing
        return str(value)[:MAX_OBJECT_CHARACTERS]


def has_fewer_values(value: Any, most: int) -> bool:
    """Return whether there are fewer values than that in a value, at any depth."""
    waiting = deque([value])
    while waiting and most > 0:
        found = waiting.popleft()
        fields = vars(found) if hasattr(type(found), "model_dump") else found
        if isinstance(fields, dict):
            inside: Iterable[Any] = fields.values()
        elif isinstance(fields, (list, tuple, set, frozenset)):
            inside = fields
        else:
            continue
        before = len(waiting)
        waiting.extend(islice(inside, most))
        most -= len(waiting) - before
    return most > 0


def _dump(value: Any) -> str:
    return orjson.dumps(value).decode()


def _is_odd(key: str) -> bool:
    return "/" in key or "." in key


def _folded(value: Any) -> Any:
    """Return a plain value in which each mapping with an odd key is its JSON as a text."""
    match value:
        case dict() if any(_is_odd(key) for key in value):
            return _dump(value)
        case dict():
            return {key: _folded(item) for key, item in value.items()}
        case list():
            return [_folded(item) for item in value]
        case _:
            return value


def _is_harmless(value: Any, depth: int) -> bool:
    match value:
        case str():
            return "\x00" not in value
        case dict():
            return depth > 0 and not any(
                _is_odd(key) or "\x00" in key or not _is_harmless(item, depth - 1)
                for key, item in value.items()
            )
        case list():
            return depth > 0 and all(_is_harmless(item, depth - 1) for item in value)
        case _:
            return True


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # of more digits than Python writes
        return hex(value)


def _type_name(value: Any) -> str:
    return f"<{type(value).__name__}>"
