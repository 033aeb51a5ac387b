"""Facts that providers put in several places: usage, finish reason, model name, tool calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from arthur_relay.inference import GenerationSnapshot

_SHORTEST_REPEATED = 3
"""Finish reasons and model names have at least this many characters ("eos", "gpt...")."""


class Usage(NamedTuple):
    """Token counts; None where the provider did not tell."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


def usage(generation: GenerationSnapshot, llm_output: Mapping[str, Any] | None) -> Usage:
    """Return token counts, from `usage_metadata` where it is, else from `llm_output`.

    The provider's own dict in a streamed message's metadata is never used: merging chunks adds
    its integers up when a provider repeats them (langchain#38552).
    """
    found = generation.message.get("usage_metadata")
    if isinstance(found, Mapping):
        return Usage(
            _count(found.get("input_tokens")),
            _count(found.get("output_tokens")),
            _count(found.get("total_tokens")),
        )
    if isinstance(llm_output, Mapping):
        found = llm_output.get("token_usage")
        if isinstance(found, Mapping):
            prompt = _count(found.get("prompt_tokens"))
            completion = _count(found.get("completion_tokens"))
            total = _count(found.get("total_tokens"))
            if total is None and prompt is not None and completion is not None:
                total = prompt + completion
            return Usage(prompt, completion, total)
    return Usage()


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def finish_reason(generation: GenerationSnapshot) -> str | None:
    """Return why the model stopped, in the provider's words, or None."""
    found = generation.info.get("finish_reason")
    if not found:
        metadata = _response_metadata(generation)
        found = metadata.get("finish_reason") or metadata.get("stop_reason")
    return _undoubled(found, generation) if found and isinstance(found, str) else None


def model_name(
    generation: GenerationSnapshot,
    llm_output: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
) -> str | None:
    """Return the model's name: the provider's answer first, then what was asked for."""
    response = _response_metadata(generation)
    for source, key in (
        (response, "model_name"),
        (response, "model"),
        (generation.info, "model_name"),
        (llm_output or {}, "model_name"),
        (metadata or {}, "ls_model_name"),
    ):
        found = source.get(key)
        if isinstance(found, str) and found:
            return _undoubled(found, generation)
    return None


def logprobs(generation: GenerationSnapshot) -> Any:
    """Return the provider's log probabilities as they are, or None."""
    found = generation.info.get("logprobs")
    return found if found is not None else _response_metadata(generation).get("logprobs")


def tool_calls(generation: GenerationSnapshot) -> str | None:
    """Return the message's tool calls as a JSON array, or None when there are none."""
    calls = generation.message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return None
    return orjson.dumps(calls, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _response_metadata(generation: GenerationSnapshot) -> Mapping[str, Any]:
    found = generation.message.get("response_metadata")
    return found if isinstance(found, Mapping) else {}


def _undoubled(text: str, generation: GenerationSnapshot) -> str:
    """Undo exact repeats: merging streamed chunks makes "stopstop" of two times "stop"."""
    if not generation.streamed:
        return text
    for length in range(_SHORTEST_REPEATED, len(text) // 2 + 1):
        if len(text) % length == 0 and text[:length] * (len(text) // length) == text:
            return text[:length]
    return text
