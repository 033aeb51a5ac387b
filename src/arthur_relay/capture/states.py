"""Snapshots of what chains, tools and retrievers are given and return, on the caller's thread.

What is kept: dicts, lists, tuples and sets are copied as deep as `STATE_DEPTH`, and `STATE_VISITS`
of the values in them; of LangChain's messages, documents, prompts and generations the fields are
copied in the same way. Everything else is kept as it is, and so is what lies beyond these bounds: a
later change of it can be seen until the worker has encoded the span. Texts are never copied, and
nothing is serialised: the cost does not depend on their length.

LangGraph gives each node the whole state, so a trace has the same messages again and again. A copy
of a message that had nothing but copies in it is taken once more when the message still equals it.
"""

from __future__ import annotations

import os
from functools import cache, lru_cache
from sys import getsizeof
from typing import TYPE_CHECKING, Any

from arthur_relay.capture.copies import own_size
from arthur_relay.encoding.images import max_image_characters
from arthur_relay.inference import ObjectSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STATE_DEPTH = 8
"""How deep values are copied; a message's tool calls' arguments in a state are six deep."""

STATE_VISITS = 1_000
"""How many values within one input or output are visited, at most: some 0.2 ms of work."""

ATOM_BYTES = 16
"""The assumed size of each value in a container, beside the bytes of texts and other containers."""

TEXT_BYTES = 49
"""The bytes of a text of ASCII beside its characters; Python 3.12 needs 8 less."""

ITEM_BYTES = 64
"""The assumed size of each value that is not visited."""

DICT_BYTES = 100
"""The assumed size of a dict within another one, beside its values."""

OBJECT_BYTES = 500
"""The bytes of an object's snapshot without its texts, measured with tracemalloc."""

SHORT_TEXT_BYTES = 1_000
"""Texts of this size are not looked at, whatever they are."""

SHARED_COPIES = 512
"""How many messages' copies are remembered, at most."""

SHARED_BYTES = 1024 * 1024
"""How many bytes these copies may have, as runs count them."""

REDACTED = "__REDACTED__"
"""OpenInference's stand-in for what is left out."""

_ATOMS = frozenset({int, float, bool, type(None)})
_CONTAINERS = frozenset({dict, list, tuple})

# Shared, because snapshots are never changed.
_EMPTY_DICT: dict[str, Any] = {}
_EMPTY_LIST: list[Any] = []


class MessageCopies:
    """The latest copies of messages, for runs that are given the same ones. Any thread; no lock.

    A copy is found by its message's id and taken only if the message's fields equal it, so neither
    a change nor the id's use for another message can go unseen.
    """

    __slots__ = ("_copies", "_size")

    def __init__(self) -> None:
        self._copies: dict[int, tuple[ObjectSnapshot, int, int]] = {}
        self._size = 0

    def find(self, message: Any) -> tuple[ObjectSnapshot, int, int] | None:
        """Return a message's copy, its bytes and its visits, or None when a new one is needed."""
        found = self._copies.get(id(message))
        if found is None:
            return None
        snapshot = found[0]
        try:
            if type(message) is snapshot.cls and snapshot.fields == message.__dict__:
                return found
        except Exception:  # noqa: BLE001 - the message has changed, to what can't be compared
            return None
        return None

    def keep(self, message: Any, snapshot: ObjectSnapshot, size: int, visits: int) -> None:
        """Remember a copy, and forget all others when there are too many."""
        if size > SHARED_BYTES // 4:
            return
        self._size += size
        if len(self._copies) >= SHARED_COPIES or self._size > SHARED_BYTES:
            self._copies = {}  # another thread may keep its copy in the old one
            self._size = size
        self._copies[id(message)] = snapshot, size, visits

    def clear(self) -> None:
        """Forget all."""
        if self._copies:
            self._copies = {}
            self._size = 0


def snapshot_state(value: Any, copies: MessageCopies | None = None) -> tuple[Any, int]:
    """Copy a value within this module's bounds.

    Args:
        value: An input or an output.
        copies: Copies of messages, which are used and added to.

    Returns:
        The copy, and the bytes of memory that it counts for.

    What raises while it is read is kept as it is. Never raises.
    """
    copying = _Copying(copies)
    return copying.copy(value, STATE_DEPTH), copying.size


def snapshot_message_list(
    messages: Any, copies: MessageCopies | None = None
) -> tuple[list[Any], int]:
    """Copy a chat model's messages; see `snapshot_state`."""
    copying = _Copying(copies)
    return [copying.copy(message, STATE_DEPTH) for message in messages], copying.size


def snapshot_parameters(params: Mapping[str, Any] | None) -> tuple[dict[str, Any] | None, int]:
    """Copy a model's `invocation_params`, without the values in them.

    They belong to the model, and LangChain makes the dict anew for each call. A later change of a
    tool's schema can be seen.
    """
    if not params:
        return None, 0
    kept = dict(params)
    size = getsizeof(kept) + ITEM_BYTES * len(kept)
    tools = kept.get("tools")
    if type(tools) is list:
        kept["tools"] = tools.copy()
        size += ITEM_BYTES * len(tools)
    return kept, size


@cache
def _longest_image() -> int:
    """Return how long an inline image may be that is kept; the environment is read once."""
    return max_image_characters(os.environ)


@cache
def _snapshotted() -> tuple[type, ...]:
    """Return the classes whose fields are copied; a handler that is called has imported them."""
    from langchain_core.documents import Document  # noqa: PLC0415 - not needed to import the handler
    from langchain_core.messages import BaseMessage  # noqa: PLC0415 - as above
    from langchain_core.outputs import Generation  # noqa: PLC0415 - as above
    from langchain_core.prompt_values import PromptValue  # noqa: PLC0415 - as above

    return BaseMessage, Document, Generation, PromptValue


@lru_cache(maxsize=256)
def _is_snapshotted(cls: type) -> bool:
    """Return whether the fields of a class's objects are copied.

    Remembered, because pydantic answers for its classes in Python code.
    """
    return issubclass(cls, _snapshotted())


@lru_cache(maxsize=256)
def _is_message(cls: type) -> bool:
    return issubclass(cls, _snapshotted()[0])


class _Copying:
    """The copying of one value, within its bounds.

    Args:
        copies: Copies of messages, or None.

    Attributes:
        size: The bytes so far.
    """

    __slots__ = ("_copies", "_is_whole", "_visits", "size")

    def __init__(self, copies: MessageCopies | None) -> None:
        self.size = 0
        self._copies = copies
        self._is_whole = True
        """Whether all so far was copied or can't change."""
        self._visits = STATE_VISITS

    def copy(self, value: Any, depth: int) -> Any:  # noqa: PLR0911 - one for each kind of value
        """Return a copy as far as the bounds allow, and count its bytes."""
        kind: type = type(value)
        if kind is str:
            size = getsizeof(value)
            is_image = size > SHORT_TEXT_BYTES and value.startswith("data:image/")
            if is_image and len(value) > _longest_image():
                return REDACTED
            self.size += size
            return value
        if kind in _ATOMS:
            return value
        try:
            if kind not in _CONTAINERS:
                # Asked first: to ask a message for a dict takes as long as to copy two fields.
                if _is_snapshotted(kind) or isinstance(value, _snapshotted()):  # or stands for one
                    return self._object(value, kind, depth)
                self._is_whole = False
                if not isinstance(value, (dict, list, tuple)):
                    return self._other(value)
            self.size += own_size(value) + ATOM_BYTES * len(value)
            self._visits -= len(value)
            if depth <= 0 or self._visits < 0:
                self._is_whole = False
                self.size += ITEM_BYTES * len(value)
                return value
            return self._container(value, depth - 1)
        except Exception:  # noqa: BLE001 - the worker will see it, and count it
            self._is_whole = False
            self.size += ITEM_BYTES
            return value

    def _other(self, value: Any) -> Any:
        self.size += own_size(value)
        if isinstance(value, (set, frozenset)):
            self.size += ITEM_BYTES * len(value)
            self._visits -= len(value)
            return value if self._visits < 0 else frozenset(value)
        return value

    def _container(self, value: Any, depth: int) -> Any:
        # The application's other threads may change it: each of these is one step of C code.
        if isinstance(value, dict):
            items = dict.copy(value)
            self._replace(items, depth)
            return items
        if isinstance(value, list):
            return self._parts(list.copy(value), depth)
        return tuple(self._parts(tuple.__iter__(value), depth))

    def _parts(self, parts: Iterable[Any], depth: int) -> list[Any]:
        copies, copy = self._copies, self.copy
        if copies is None:
            return [item if type(item) in _ATOMS else copy(item, depth) for item in parts]
        copied = []
        for item in parts:
            if type(item) in _ATOMS:
                copied.append(item)
            # Most of a graph's state are messages that were copied before: without more calls.
            elif (found := copies.find(item)) is not None and self._visits >= found[2]:
                self.size += found[1]
                self._visits -= found[2]
                copied.append(found[0])
            else:
                copied.append(copy(item, depth))
        return copied

    def _object(self, value: Any, kind: type, depth: int) -> ObjectSnapshot:
        """Copy an object's fields, or take a message's copy that was made before."""
        copies = self._copies
        if copies is None or not _is_message(kind):
            return self._fields(value, kind, depth)
        found = copies.find(value)
        if found is not None and self._visits >= found[2]:
            self.size += found[1]
            self._visits -= found[2]
            return found[0]
        others_are_whole, self._is_whole = self._is_whole, True
        size, visits = self.size, self._visits
        snapshot = self._fields(value, kind, depth)
        if self._is_whole:
            copies.keep(value, snapshot, self.size - size, visits - self._visits)
        self._is_whole = self._is_whole and others_are_whole
        return snapshot

    def _fields(self, value: Any, kind: type, depth: int) -> ObjectSnapshot:
        """Copy an object's fields: texts by reference, other values as in any container."""
        fields = value.__dict__.copy()
        self.size += OBJECT_BYTES
        self._visits -= 1
        if depth > 0:
            self._replace(fields, depth - 1)
        else:
            self._is_whole = False
        return ObjectSnapshot(kind, fields)

    def _replace(self, items: dict[Any, Any], depth: int) -> None:
        """Put copies in the place of a dict's values, but for texts and other atoms."""
        size = 0
        for name, item in items.items():  # a call for each would cost more than all else
            kind = type(item)
            if kind is str:
                length = len(item)
                if length > SHORT_TEXT_BYTES or not item.isascii():
                    items[name] = self.copy(item, depth)
                else:
                    size += TEXT_BYTES + length  # what `getsizeof` says, in a quarter of its time
            elif item is None or kind in _ATOMS:
                continue
            elif kind is dict and not item:  # most of a message's are, and may be filled later
                items[name] = _EMPTY_DICT
            elif kind is list and not item:
                items[name] = _EMPTY_LIST
            elif kind is dict and depth > 0 and self._visits >= len(item):
                size += DICT_BYTES + ITEM_BYTES * len(item)
                self._visits -= len(item)
                items[name] = copied = item.copy()
                self._replace(copied, depth - 1)
            else:
                items[name] = self.copy(item, depth)
        self.size += size
