"""Snapshots of what chains, tools and retrievers are given and return, on the caller's thread.

What is kept: dicts, lists, tuples and sets are copied as deep as `STATE_DEPTH`, and `STATE_VISITS`
of the values in them; of LangChain's messages, documents, prompts and generations the fields are
copied in the same way. Everything else is kept as it is, and so is what lies beyond these bounds: a
later change of it can be seen until the worker has encoded the span. Texts are never copied, and
nothing is serialised: the cost does not depend on their length.
"""

from __future__ import annotations

import os
from functools import cache
from sys import getsizeof
from typing import TYPE_CHECKING, Any

from arthur_relay.capture.copies import own_size
from arthur_relay.encoding.images import max_image_characters
from arthur_relay.inference import ObjectSnapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

STATE_DEPTH = 8
"""How deep values are copied; a message's tool calls' arguments in a state are six deep."""

STATE_VISITS = 1_000
"""How many values within one input or output are visited, at most: some 0.2 ms of work."""

ATOM_BYTES = 16
"""The assumed size of each value in a container, beside the bytes of texts and other containers."""

ITEM_BYTES = 64
"""The assumed size of each value that is not visited."""

OBJECT_BYTES = 500
"""The bytes of an object's snapshot without its texts, measured with tracemalloc."""

SHORT_TEXT_BYTES = 1_000
"""Texts of this size are not looked at, whatever they are."""

REDACTED = "__REDACTED__"
"""OpenInference's stand-in for what is left out."""

_ATOMS = frozenset({int, float, bool, type(None)})

# Shared, because snapshots are never changed.
_EMPTY_DICT: dict[str, Any] = {}
_EMPTY_LIST: list[Any] = []


def snapshot_state(value: Any) -> tuple[Any, int]:
    """Copy a value within this module's bounds.

    Returns:
        The copy, and the bytes of memory that it counts for.

    What raises while it is read is kept as it is. Never raises.
    """
    copying = _Copying(_snapshotted())
    return copying.copy(value, STATE_DEPTH), copying.size


def snapshot_message_list(messages: Any) -> tuple[list[Any], int]:
    """Copy a chat model's messages; see `snapshot_state`."""
    copying = _Copying(_snapshotted())
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


class _Copying:
    """The copying of one value, within its bounds.

    Attributes:
        size: The bytes so far.
    """

    __slots__ = ("_objects", "_visits", "size")

    def __init__(self, objects: tuple[type, ...]) -> None:
        self.size = 0
        self._objects = objects
        self._visits = STATE_VISITS

    def copy(self, value: Any, depth: int) -> Any:  # noqa: PLR0911 - one for each kind of value
        """Return a copy as far as the bounds allow, and count its bytes."""
        kind = type(value)
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
            if isinstance(value, (dict, list, tuple)):
                self.size += own_size(value) + ATOM_BYTES * len(value)
                self._visits -= len(value)
                if depth <= 0 or self._visits < 0:
                    self.size += ITEM_BYTES * len(value)
                    return value
                return self._container(value, depth - 1)
            if isinstance(value, self._objects):
                return self._object(value, depth)
            if isinstance(value, (set, frozenset)):
                self.size += own_size(value) + ITEM_BYTES * len(value)
                self._visits -= len(value)
                return value if self._visits < 0 else frozenset(value)
            self.size += own_size(value)
        except Exception:  # noqa: BLE001 - the worker will see it, and count it
            self.size += ITEM_BYTES
        return value

    def _container(self, value: Any, depth: int) -> Any:
        copy = self.copy
        # The application's other threads may change it: each of these is one step of C code.
        if isinstance(value, dict):
            items = dict.copy(value)
            for key, item in items.items():
                if type(item) not in _ATOMS:  # a call costs more than all else
                    items[key] = copy(item, depth)
            return items
        parts = list.copy(value) if isinstance(value, list) else tuple.__iter__(value)
        copied = [item if type(item) in _ATOMS else copy(item, depth) for item in parts]
        return copied if isinstance(value, list) else tuple(copied)

    def _object(self, value: Any, depth: int) -> ObjectSnapshot:
        """Copy an object's fields: texts by reference, other values as in any container."""
        fields = value.__dict__.copy()
        self.size += OBJECT_BYTES
        self._visits -= 1
        if depth > 0:
            copy = self.copy
            for name, field in fields.items():
                kind = type(field)
                if kind is str:
                    self.size += getsizeof(field)
                elif kind in _ATOMS:
                    continue
                elif kind is dict and not field:  # most are empty, and may be filled later
                    fields[name] = _EMPTY_DICT
                elif kind is list and not field:
                    fields[name] = _EMPTY_LIST
                else:
                    fields[name] = copy(field, depth - 1)
        return ObjectSnapshot(type(value), fields)
