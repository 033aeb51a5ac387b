"""Snapshots of LangChain's live objects, made on the caller's thread: references, bounded copies.

Nothing here reads the characters of a text, so the cost does not depend on its length.
"""

from __future__ import annotations

from sys import getsizeof
from typing import TYPE_CHECKING, Any

from arthur_relay.capture.copies import copy_value, size_of
from arthur_relay.encoding.provider_names import NESTED_SETTINGS, REQUEST_SETTINGS
from arthur_relay.inference import CAPTURE_BYTES, CapturedGroundTruth

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from datetime import datetime

    from arthur_relay.inference import MessageSnapshot

PLAIN_MESSAGE_BYTES = 64
"""The bytes of a plain message's snapshot without its text: a pair, and its place in a list."""

MESSAGE_BYTES = 700
"""The bytes of any other message's snapshot without its text, measured with tracemalloc."""

_SETTINGS = frozenset(name for names in REQUEST_SETTINGS.values() for name in names)
_OF_METADATA = frozenset({"ls_provider", "ls_temperature", "ls_max_tokens", "ls_stop"})


def snapshot_messages(messages: Any, plain: Container[type]) -> tuple[list[MessageSnapshot], int]:
    """Copy messages, because the application may change them before the worker reads them.

    Args:
        messages: LangChain's messages.
        plain: Classes of messages of which only the text is kept, if they have no calls.

    Returns:
        The snapshots, in order, and their bytes in memory.
    """
    snapshots: list[MessageSnapshot] = []
    size = 0
    for message in messages:
        cls = type(message)
        fields = message.__dict__
        content = fields.get("content")
        if (
            type(content) is str
            and cls in plain
            and not fields.get("tool_calls")
            and "function_call" not in (fields.get("additional_kwargs") or ())
        ):
            snapshots.append((cls, content))
            size += PLAIN_MESSAGE_BYTES + getsizeof(content)
        else:
            copied, held = _snapshot_fields(fields)
            snapshots.append((cls, copied))
            size += held
    return snapshots, size


def _snapshot_fields(original: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Copy the fields of a message that has more than a text; also returns their bytes."""
    fields = original.copy()
    content = fields.get("content")
    size = MESSAGE_BYTES
    if type(content) is list:
        # Blocks without text are not sent, and an image's megabytes would evict other runs.
        content = fields["content"] = [
            block.copy() if type(block) is dict else block
            for block in content
            if type(block) is not dict or type(block.get("text")) is str
        ]
        size += size_of(content)
    fields.pop("artifact", None)  # a tool's own value, which is not sent
    fields.pop("response_metadata", None)
    # LangChain prints these two with a message's content.
    if calls := fields.get("tool_calls"):
        fields["tool_calls"], held = copy_value(calls)
        size += held
    if keywords := fields.get("additional_kwargs"):
        fields["additional_kwargs"], held = copy_value(keywords)
        size += held
    return fields, size + getsizeof(content)


def snapshot_values(values: Mapping[str, Any]) -> tuple[dict[str, Any], int, int]:
    """Copy values by name, within the bounds of `copies`. Unreadable values are omitted.

    Returns:
        The copy, its bytes in memory, and how many values could not be read.
    """
    copied = dict(values)
    size = getsizeof(copied)
    unread = 0
    for name, value in copied.items():
        kind = type(value)
        if kind is str or kind is int:  # nearly always
            size += getsizeof(value)
            continue
        try:
            copied[name], held = copy_value(value)
            size += held
        except Exception:  # noqa: BLE001 - the application's own class may raise anything
            copied[name] = None  # never sent
            unread += 1
    return copied, size, unread


def snapshot_request(
    params: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None, run_name: Any
) -> dict[str, Any]:
    """Keep the facts about a request: its settings, its provider, and the run's name.

    Args:
        params: The model's `invocation_params`.
        metadata: The run's metadata, including LangChain's own.
        run_name: The run's name.
    """
    kept: dict[str, Any] = {}
    if params:
        for name in NESTED_SETTINGS:
            nested = params.get(name)
            if type(nested) is dict:
                kept.update({key: nested[key] for key in _SETTINGS & nested.keys()})
        kept.update({key: params[key] for key in _SETTINGS & params.keys()})
    if metadata:
        kept.update({key: metadata[key] for key in _OF_METADATA & metadata.keys()})
    if run_name is not None:
        kept["run_name"] = run_name
    return kept


def snapshot_ground_truth(
    inference_id: str,
    model_id: str,
    values: Mapping[str, Any],
    moment: datetime | None,
    *,
    now: float,
) -> CapturedGroundTruth:
    """Copy ground truth.

    Args:
        inference_id: The inference's id.
        model_id: The model's id.
        values: The values by attribute name.
        moment: When it became known; None, or a time without timezone, stands for `now`.
        now: Seconds since the epoch.
    """
    copied, size, unread = snapshot_values(values)
    known_at = now if moment is None or moment.tzinfo is None else moment.timestamp()
    size += CAPTURE_BYTES + len(inference_id) + len(model_id)
    truth = CapturedGroundTruth(inference_id, model_id, copied, size, known_at)
    truth.unread = unread
    return truth
