"""What is kept of LangChain's live objects on the caller's thread: references and shallow copies.

Nothing here looks at the characters of a text, so the cost does not depend on their number.
"""

from __future__ import annotations

from sys import getsizeof
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from arthur_relay.inference import CAPTURE_BYTES, CapturedGroundTruth, GenerationSnapshot

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from datetime import datetime

    from arthur_relay.inference import MessageSnapshot

PLAIN_MESSAGE_BYTES = 64
"""What a plain message's snapshot costs beside its text: a pair, and its place in a list."""

MESSAGE_BYTES = 700
"""What another message's snapshot costs beside its text, measured with tracemalloc."""

GENERATION_BYTES = 400
"""What a generation's snapshot costs beside its text, measured with tracemalloc."""

_LOGPROB_BYTES = 1000
"""What one token's log probabilities with five candidates cost, measured with tracemalloc."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def snapshot_messages(messages: Any, plain: Container[type]) -> tuple[list[MessageSnapshot], int]:
    """Copy what messages hold now; the application may change them before the worker reads them.

    Args:
        messages: LangChain's.
        plain: Classes of which the text is all that is kept, when they have no calls.

    Returns:
        The snapshots, in order, and the bytes that they keep in memory, as accounted.
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
    """Copy the fields of a message that has more than a text, with the bytes that they keep."""
    fields = original.copy()
    content = fields.get("content")
    size = MESSAGE_BYTES
    if type(content) is list:
        # Blocks without text are not sent; an image is megabytes that push good runs out.
        content = fields["content"] = [
            block.copy() if type(block) is dict else block
            for block in content
            if type(block) is not dict or type(block.get("text")) is str
        ]
        size += _size(content)
    fields.pop("artifact", None)  # whatever a tool kept for itself
    fields.pop("response_metadata", None)
    # These two are what LangChain prints of a message beside its content.
    if calls := fields.get("tool_calls"):
        fields["tool_calls"] = _copied_list(calls)
        size += _size(calls)
    if keywords := fields.get("additional_kwargs"):
        fields["additional_kwargs"] = _copied(keywords)
        size += _size(keywords)
    return fields, size + getsizeof(content)


def snapshot_generation(
    generation: Any, output: Mapping[str, Any] | None = None, *, streamed: bool = False
) -> tuple[GenerationSnapshot, int]:
    """Keep what the encoder reads of a generation, and nothing else of its message.

    In particular not the HTTP headers and bodies that LangChain puts into a failed run's response.
    The provider's own counts in a streamed message's metadata are not used: merging chunks adds
    its integers up when a provider repeats them (langchain#38552).

    Args:
        generation: LangChain's.
        output: The result's `llm_output`, which tells what the message does not.
        streamed: Whether tokens came before. A model with `streaming=True` merges chunks in
            `invoke()` too, and LangChain makes an ordinary generation of them.

    Returns:
        The snapshot, and the bytes that it keeps in memory, as accounted.
    """
    text = generation.text
    size = GENERATION_BYTES + getsizeof(text)
    info = generation.generation_info or _NOTHING
    kept = GenerationSnapshot(
        text,
        streamed or type(generation).__name__.endswith("Chunk"),
        info.get("finish_reason"),
        info.get("model_name"),
    )
    logprobs = info.get("logprobs")
    message = getattr(generation, "message", None)
    if message is not None:
        metadata = message.response_metadata or _NOTHING
        if not kept.finish_reason:
            kept.finish_reason = metadata.get("finish_reason") or metadata.get("stop_reason")
        kept.model_name = metadata.get("model_name") or metadata.get("model") or kept.model_name
        if logprobs is None:
            logprobs = metadata.get("logprobs")
        usage = getattr(message, "usage_metadata", None)
        if type(usage) is dict:
            get = usage.get
            kept.usage = get("input_tokens"), get("output_tokens"), get("total_tokens")
        if calls := getattr(message, "tool_calls", None):
            kept.tool_calls = _copied_list(calls)
            size += _size(calls)
    if output:
        usage = output.get("token_usage")
        if kept.usage is None and type(usage) is dict:
            get = usage.get
            kept.usage = get("prompt_tokens"), get("completion_tokens"), get("total_tokens")
        if not kept.model_name:
            kept.model_name = output.get("model_name")
    if logprobs is not None:
        kept.logprobs = logprobs
        size += _logprobs_size(logprobs)
    return kept, size


def snapshot_values(values: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Copy values by name, lists and dicts among them.

    Returns:
        The copy, and the bytes that it keeps in memory, as accounted.
    """
    copied = dict(values)
    size = getsizeof(copied)
    for name, value in copied.items():
        kind = type(value)
        if kind is dict or kind is list:
            copied[name] = value.copy()
            size += _size(value)
        else:
            size += getsizeof(value)
    return copied, size


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
        inference_id: The inference's.
        model_id: The model's.
        values: By attribute name.
        moment: When it became known; `now` when None, or without a timezone.
        now: Seconds since the epoch.
    """
    copied, size = snapshot_values(values)
    known_at = now if moment is None or moment.tzinfo is None else moment.timestamp()
    return CapturedGroundTruth(inference_id, model_id, copied, size + CAPTURE_BYTES, known_at)


def _copied(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a dict with the lists and dicts in it: applications change them in place."""
    return {k: v.copy() if type(v) in (dict, list) else v for k, v in fields.items()}


def _copied_list(items: list[Any]) -> list[Any]:
    return [_copied(item) if type(item) is dict else item for item in items]


def _size(value: Any, depth: int = 4) -> int:
    """Return the bytes of nested dicts and lists: content blocks, tool calls and their arguments.

    Images and files are long texts in them. What is nested deeper than `depth` is not looked at.
    """
    size = getsizeof(value)
    if depth:
        if type(value) is dict:
            for item in value.values():
                size += _size(item, depth - 1)
        elif type(value) is list:
            for item in value:
                size += _size(item, depth - 1)
    return size


def _logprobs_size(logprobs: Any) -> int:
    if type(logprobs) is not dict:
        return 0
    tokens = logprobs.get("content") or logprobs.get("top_logprobs")
    return _LOGPROB_BYTES * len(tokens) if type(tokens) is list else 0
