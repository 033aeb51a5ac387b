"""Snapshots of a model's whole result, for the span of its run; made on the caller's thread.

Unlike `generation_snapshots`, which keeps the facts that inferences have attributes for, these keep
all of a message, because a span shows it as it was; within the bounds of `states`.
"""

from __future__ import annotations

from typing import Any

from arthur_relay.capture.states import MessageCopies, snapshot_state
from arthur_relay.inference import ObjectSnapshot

_OF_THE_RESPONSE = frozenset({"body", "headers", "http_response", "raw_response", "response"})
"""What LangChain's clients put beside an answer of the provider's HTTP response. Never kept."""

_HOLDERS = ("response_metadata", "generation_info")


def snapshot_result(
    generations: Any, llm_output: Any, copies: MessageCopies | None = None
) -> tuple[dict[str, Any], int]:
    """Copy what LangChain's `LLMResult` holds, as its own tracer would show it.

    Args:
        generations: Its generations by list.
        llm_output: Its `llm_output`.
        copies: See `snapshot_state`.

    Returns:
        The generations by list, and the other fields, with the bytes of memory that they count for.

    Raises:
        Exception: It can't be read, for whatever reason.
    """
    kept, size = snapshot_state(generations, copies)
    for alternatives in kept:
        for generation in alternatives:
            _drop_response(generation.fields)
    output, more = snapshot_state(llm_output)
    if isinstance(output, dict) and not _OF_THE_RESPONSE.isdisjoint(output):
        output = _without_response(output)
    result = {"generations": kept, "llm_output": output, "run": None, "type": "LLMResult"}
    return result, size + more


def _drop_response(fields: dict[str, Any]) -> None:
    """Drop the HTTP response from a generation, and its message's, whose copy others may have."""
    fields.update(_cleared(fields))
    message = fields.get("message")
    if isinstance(message, ObjectSnapshot) and (cleared := _cleared(message.fields)):
        fields["message"] = ObjectSnapshot(message.cls, {**message.fields, **cleared})


def _cleared(fields: dict[str, Any]) -> dict[str, Any]:
    """Return those of the fields that hold something of the response, without it."""
    cleared = {}
    for name in _HOLDERS:
        held = fields.get(name)
        if isinstance(held, dict) and not _OF_THE_RESPONSE.isdisjoint(held):
            cleared[name] = _without_response(held)
    return cleared


def _without_response(held: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in held.items() if name not in _OF_THE_RESPONSE}
