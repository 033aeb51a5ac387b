"""Distinguishes chunks of a stream that have content from those that only announce it."""

from __future__ import annotations

from typing import Any

_DEPTH = 6

_ABOUT = frozenset(
    {
        "annotations",
        "call_id",
        "caller",
        "content_index",
        "created",
        "created_at",
        "encrypted_content",
        "event",
        "extras",
        "format",
        "id",
        "index",
        "item_id",
        "language",
        "model",
        "object",
        "output_index",
        "phase",
        "role",
        "signature",
        "status",
        "type",
    }
)
"""Keys of content blocks whose values describe the content, but are not part of it."""


def has_content(value: Any, depth: int = _DEPTH) -> bool:
    """Return whether a value has any text or call, and not only blocks that are still empty.

    Args:
        value: A text, a content block, a list of blocks, or a message's `additional_kwargs`.
        depth: How deep to look.
    """
    if isinstance(value, (str, bytes)):
        return len(value) > 0
    if depth <= 0:
        return bool(value)
    if isinstance(value, dict):
        return any(has_content(item, depth - 1) for key, item in value.items() if key not in _ABOUT)
    if isinstance(value, (list, tuple)):
        return any(has_content(item, depth - 1) for item in value)
    return value is True
