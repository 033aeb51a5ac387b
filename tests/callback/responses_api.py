"""Answers in the form of OpenAI's Responses API, whose messages have lists of content blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 18,
}


def prompt_of(body: dict[str, Any]) -> str:
    """The text of the last message of a request."""
    content = body["input"] if isinstance(body["input"], str) else body["input"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


def response(model: str, number: int, parts: Sequence[str], status: str) -> dict[str, Any]:
    """A whole answer with one content block for each part."""
    message = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [_block(part) for part in parts],
    }
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1_780_000_000,
        "status": status,
        "model": model,
        "output": [message] if parts else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "usage": USAGE if parts else None,
    }


def events(model: str, number: int, parts: Sequence[str], pieces: Any) -> Iterator[dict[str, Any]]:
    """The same as a stream: each part in pieces."""
    first = response(model, number, (), "in_progress")
    whole = response(model, number, parts, "completed")
    (message,) = whole["output"]
    item = {"item_id": message["id"], "output_index": 0}
    yield {"type": "response.created", "response": first}
    empty = {**message, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": empty}
    for index, part in enumerate(parts):
        place = {**item, "content_index": index}
        yield {"type": "response.content_part.added", **place, "part": _block("")}
        for piece in pieces(part):
            yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
        yield {"type": "response.output_text.done", **place, "text": part, "logprobs": []}
        yield {"type": "response.content_part.done", **place, "part": _block(part)}
    yield {"type": "response.output_item.done", "output_index": 0, "item": message}
    yield {"type": "response.completed", "response": whole}


def _block(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}
