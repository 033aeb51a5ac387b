"""The facts that a provider returns with an answer's text, under whatever names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from arthur_relay.encoding.provider_names import (
    COST,
    FINISH_REASON,
    MODEL_NAME,
    RESPONSE_ID,
    SERVICE_TIER,
)
from arthur_relay.encoding.reading import plain_text, read, read_first

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arthur_relay.inference import GenerationSnapshot

_SHORTEST_REPEATED = 3
"""Finish reasons and model names have at least this many characters ("eos", "gpt...")."""

_FINAL_STATUSES = frozenset({"completed", "incomplete", "failed", "cancelled"})
"""Of the Responses API. With others ("in_progress", "queued"), the answer is not finished."""

_UNSPECIFIED = frozenset({"0", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"})

_NOTES = frozenset({"stop_details", "finish_message", "prompt_feedback"})

_OWN_IDS = ("run-", "lc_", "lc-")
"""The prefixes of ids that LangChain generates when the provider returns none."""


def finish_reason(generation: GenerationSnapshot) -> str | None:
    """Return why the model stopped, in the provider's words, or None."""
    reason = _first_text(generation, FINISH_REASON)
    if reason is not None:
        return reason
    for facts in generation.facts:
        found = _finish_details(facts, generation)
        if found is not None:
            return found
    return None


def _finish_details(facts: Mapping[str, Any], generation: GenerationSnapshot) -> str | None:
    """Return the reason where it has another form."""
    # Gemini, for a prompt that it does not answer at all.
    blocked = plain_text(read(facts.get("prompt_feedback"), "block_reason"))
    if blocked is not None and blocked not in _UNSPECIFIED:
        return blocked
    # The Responses API.
    reason = once(read(facts.get("incomplete_details"), "reason"), generation)
    if reason is not None:
        return reason
    status = once(facts.get("status"), generation)
    return status if status in _FINAL_STATUSES else None


def model_name(generation: GenerationSnapshot) -> str | None:
    """Return the name of the model that answered, or None."""
    return _first_text(generation, MODEL_NAME)


def response_id(generation: GenerationSnapshot) -> str | None:
    """Return the provider's id of the answer, or None."""
    own = plain_text(generation.message_id)
    if own is not None and not own.startswith(_OWN_IDS):
        return own
    return _first_text(generation, RESPONSE_ID)


def service_tier(generation: GenerationSnapshot) -> str | None:
    """Return the service tier that answered, or None."""
    for facts in generation.facts:
        tier = read_first(facts, SERVICE_TIER)
        if tier is None:  # Anthropic returns it with the counts
            tier = read(facts.get("usage"), "service_tier")
        if isinstance(tier, Mapping):  # Bedrock's Converse
            tier = tier.get("type")
        found = once(tier, generation)
        if found is not None:
            return found
    return None


def system_fingerprint(generation: GenerationSnapshot) -> str | None:
    """Return OpenAI's name for the system that answered, or None."""
    return _first_text(generation, ("system_fingerprint",))


def provider(generation: GenerationSnapshot) -> str | None:
    """Return the provider that answered, by LangChain's name, or None."""
    return _first_text(generation, ("model_provider", "provider"))


def cost(generation: GenerationSnapshot) -> Any:
    """Return the cost of the answer, if the provider returns it, or None."""
    for facts in generation.facts:
        found = read_first(facts, COST)
        if found is None:
            usage = read_first(facts, ("token_usage", "usage"))
            found = read_first(usage, COST)
        if isinstance(found, Mapping):  # Perplexity
            found = read_first(found, ("total_cost", "total"))
        if found is not None:
            return found
    return None


def refusal_note(generation: GenerationSnapshot) -> str | None:
    """Return a provider's explanation of a refusal, outside of the answer, or None."""
    for facts in generation.facts:
        if _NOTES.isdisjoint(facts):  # nearly always
            continue
        details = facts.get("stop_details")  # Anthropic
        note = plain_text(facts.get("finish_message")) or plain_text(read(details, "explanation"))
        if note is None:
            feedback = facts.get("prompt_feedback")  # Gemini
            note = plain_text(read(feedback, "block_reason_message"))
        if note is not None:
            return note
    return None


def once(text: Any, generation: GenerationSnapshot) -> str | None:
    """Return a text without the exact repeats that merged chunks have: "stopstop".

    None for an empty text, or any other value.
    """
    found = plain_text(text)
    if found is not None and generation.streamed:
        for length in range(_SHORTEST_REPEATED, len(found) // 2 + 1):
            if len(found) % length == 0 and found[:length] * (len(found) // length) == found:
                return found[:length]
    return found


def _first_text(generation: GenerationSnapshot, names: Iterable[str]) -> str | None:
    for facts in generation.facts:
        for name in names:
            if name in facts:
                found = once(facts[name], generation)
                if found is not None:
                    return found
    return None
