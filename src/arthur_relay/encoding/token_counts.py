"""The token counts of a request: LangChain's own ones, else the provider's, under any name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from arthur_relay.encoding.provider_names import TOKEN_COUNTS
from arthur_relay.encoding.reading import has_none_of, read, read_first, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arthur_relay.inference import GenerationSnapshot

_INPUT = (
    "input_tokens",
    "prompt_tokens",
    "prompt_token_count",
    "inputTokens",
    "inputTokenCount",
    "inputTextTokenCount",
    "prompt_eval_count",
)
_OUTPUT = (
    "output_tokens",
    "completion_tokens",
    "candidates_token_count",
    "generation_token_count",
    "generated_tokens",
    "outputTokens",
    "outputTokenCount",
    "eval_count",
)
_TOTAL = ("total_tokens", "total_token_count", "totalTokens", "totalTokenCount")
_INPUT_DETAILS = ("input_token_details", "input_tokens_details", "prompt_tokens_details")
_OUTPUT_DETAILS = ("output_token_details", "output_tokens_details", "completion_tokens_details")

_CACHE_READ = (
    "cache_read",
    "cached_tokens",
    "cache_read_input_tokens",
    "cached_content_token_count",
    "prompt_cache_hit_tokens",
    "cacheReadInputTokens",
    "cacheReadInputTokenCount",
)
_CACHE_CREATION = (
    "cache_creation",
    "cache_creation_input_tokens",
    "cache_write_tokens",
    "cacheWriteInputTokens",
    "cacheWriteInputTokenCount",
)
# Anthropic's parts of it, by lifetime; LangChain's own count is 0 then.
_CACHE_CREATION_PARTS = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
_REASONING = ("reasoning", "reasoning_tokens", "thoughts_token_count")
_AUDIO = ("audio", "audio_tokens")

_DETAILS = frozenset(
    (
        *_INPUT_DETAILS,
        *_OUTPUT_DETAILS,
        *_CACHE_READ,
        *_CACHE_CREATION,
        *_CACHE_CREATION_PARTS,
        *_REASONING,
        *_AUDIO,
    )
)

_LAST_CHUNK_ONLY = frozenset({"amazon-bedrock-invocationMetrics", "token_count"})
"""Counts of a stream that only its last chunk has."""


def prompt_tokens(generation: GenerationSnapshot) -> int | None:
    """Return the number of the prompt's tokens, or None when it is unknown."""
    return _count(generation, _INPUT)


def completion_tokens(generation: GenerationSnapshot) -> int | None:
    """Return the number of the answer's tokens, or None when it is unknown."""
    return _count(generation, _OUTPUT)


def total_tokens(generation: GenerationSnapshot) -> int | None:
    """Return the number of all tokens: the provider's count, else the sum."""
    total = _count(generation, _TOTAL)
    if total is not None:
        return total
    prompt, completion = prompt_tokens(generation), completion_tokens(generation)
    return None if prompt is None or completion is None else prompt + completion


def has_details(generation: GenerationSnapshot) -> bool:
    """Return whether the provider may have said more than how many tokens there are."""
    return not all(has_none_of(holder, _DETAILS) for holder in _holders(generation))


def cached_tokens(generation: GenerationSnapshot) -> int | None:
    """Return the number of the prompt's tokens that were read from the provider's cache."""
    return _detail(generation, _INPUT_DETAILS, _CACHE_READ)


def cache_creation_tokens(generation: GenerationSnapshot) -> int | None:
    """Return the number of the prompt's tokens that were written to the provider's cache."""
    total = _detail(generation, _INPUT_DETAILS, _CACHE_CREATION)
    if total:
        return total
    parts = [_detail(generation, _INPUT_DETAILS, (name,)) for name in _CACHE_CREATION_PARTS]
    counts = [part for part in parts if part is not None]
    return sum(counts) if counts else total


def reasoning_tokens(generation: GenerationSnapshot) -> int | None:
    """Return the number of the answer's tokens that are the model's reasoning."""
    return _detail(generation, _OUTPUT_DETAILS, _REASONING)


def input_audio_tokens(generation: GenerationSnapshot) -> int | None:
    """Return the number of the prompt's audio tokens."""
    return _detail(generation, _INPUT_DETAILS, _AUDIO, beside=False)


def output_audio_tokens(generation: GenerationSnapshot) -> int | None:
    """Return the number of the answer's audio tokens."""
    return _detail(generation, _OUTPUT_DETAILS, _AUDIO, beside=False)


def audio_tokens(generation: GenerationSnapshot) -> int | None:
    """Return the number of all audio tokens."""
    parts = (input_audio_tokens(generation), output_audio_tokens(generation))
    counts = [count for count in parts if count is not None]
    return sum(counts) if counts else None


def is_cache_hit(generation: GenerationSnapshot) -> bool | None:
    """Return whether LangChain's own cache answered, or None when that can't be known.

    Since langchain-core 0.3.73, it marks such an answer by a cost of 0 among its counts
    (`BaseChatModel._convert_cached_generations`), a field that no other answer has.
    """
    if generation.usage is not None and "total_cost" in generation.usage:
        return not generation.usage["total_cost"]
    return False if generation.message_id is not None and _cache_hits_are_told() else None


@cache
def _cache_hits_are_told() -> bool:
    # Not imported here: a chat model that answered has imported it.
    chat_models = sys.modules.get("langchain_core.language_models.chat_models")
    return hasattr(getattr(chat_models, "BaseChatModel", None), "_convert_cached_generations")


def _holders(generation: GenerationSnapshot) -> Iterator[Any]:
    """Yield the objects that may have counts, the most trustworthy first."""
    if generation.usage is not None:
        yield generation.usage
    for facts in generation.facts:
        for name in TOKEN_COUNTS:
            # Merging a stream's chunks adds up counts that a provider repeats in each of them
            # (langchain#38552). A completion model's are in the last chunk only.
            if name in facts and (not _is_merged_message(generation) or name in _LAST_CHUNK_ONLY):
                yield facts[name]
        yield facts


def _is_merged_message(generation: GenerationSnapshot) -> bool:
    return generation.streamed and generation.message_id is not None


def _count(generation: GenerationSnapshot, names: Sequence[str]) -> int | None:
    usage = generation.usage
    if usage is not None:  # nearly always
        found = usage.get(names[0])
        if type(found) is int:
            return found
    for holder in _holders(generation):
        found = whole_number(read_first(holder, names))
        if found is not None:
            return found
    return None


def _detail(
    generation: GenerationSnapshot,
    places: Sequence[str],
    names: Sequence[str],
    *,
    beside: bool = True,
) -> int | None:
    """Return a part of a count, from the details or, if `beside`, from the counts themselves."""
    known = (*places, *names)
    for holder in _holders(generation):
        if has_none_of(holder, known):  # nearly always
            continue
        details = read_first(holder, places)
        for each in (details, holder) if beside else (details,):
            found = whole_number(read_first(each, names))
            if found is None and each is details:
                found = _of_a_tier(details, names[0])
            if found is not None:
                return found
    return None


def _of_a_tier(details: Any, name: str) -> int | None:
    """Return a part that LangChain names after a service tier, such as `flex_cache_read`."""
    for key in details if isinstance(details, Mapping) else ():
        if isinstance(key, str) and key.endswith(f"_{name}"):
            return whole_number(read(details, key))
    return None
