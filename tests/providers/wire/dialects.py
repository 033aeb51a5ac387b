"""The providers that speak Chat Completions, each with words of its own."""

from __future__ import annotations

from typing import Any

from tests.providers.answers import Answer, Stop

from .chat_completions import (
    FINISH_REASONS,
    Dialect,
    chat_completions,
    openai_usage,
    plain_usage,
    reasoning_content,
)

DETAILS = frozenset({"cached_tokens", "reasoning_tokens"})
OPENAI_SAYS = {"service_tier": "scale", "system_fingerprint": "fp_4711"}

OPENAI = chat_completions(
    "openai-chat",
    Dialect(refuses=True, usage_asked=True, more=OPENAI_SAYS),
    says=OPENAI_SAYS,
    counts=DETAILS,
)

AZURE = chat_completions(
    "azure",
    Dialect(refuses=True, usage_asked=True, more=OPENAI_SAYS),
    path="/openai/deployments/asked-model/chat/completions",
    says=OPENAI_SAYS,
    counts=DETAILS,
)


def _deepseek_usage(answer: Answer) -> dict[str, Any]:
    """Return the counts of https://api-docs.deepseek.com/api/create-chat-completion."""
    usage = answer.usage
    return {
        **plain_usage(answer),
        "prompt_cache_hit_tokens": usage.cache_read,
        "prompt_cache_miss_tokens": usage.input - usage.cache_read,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


DEEPSEEK = chat_completions(
    "deepseek",
    Dialect(
        usage=_deepseek_usage,
        reasoning=reasoning_content,
        usage_on_last=True,
        more={"system_fingerprint": "fp_4711"},
    ),
    says={"system_fingerprint": "fp_4711"},
    counts=DETAILS,
)


def _xai_usage(answer: Answer) -> dict[str, Any]:
    """Return counts of which those of the answer do not have the reasoning's in them."""
    usage = openai_usage(answer)
    usage["completion_tokens"] -= answer.usage.reasoning
    return usage


XAI = chat_completions(
    "xai",
    Dialect(
        usage=_xai_usage,
        reasoning=reasoning_content,
        more={"system_fingerprint": "fp_4711"},
    ),
    says={"system_fingerprint": "fp_4711"},
    counts=DETAILS,
)

FIREWORKS = chat_completions(
    "fireworks",
    Dialect(reasoning=reasoning_content, more={"system_fingerprint": "fp_4711"}),
    says={"system_fingerprint": "fp_4711"},
    counts=DETAILS,
)


def _together_logprobs(answer: Answer, pieces: tuple[str, ...]) -> dict[str, Any] | None:
    """Return tokens with their log probabilities, and no candidates."""
    if answer.logprobs is None:
        return None
    return {
        "content": None,
        "token_ids": list(range(len(pieces))),
        "tokens": list(pieces),
        "token_logprobs": [answer.logprobs[piece] for piece in pieces],
    }


TOGETHER = chat_completions(
    "together",
    Dialect(
        usage=plain_usage,
        usage_on_last=True,
        logprobs=_together_logprobs,
        finish_reasons={**FINISH_REASONS, Stop.END: "eos"},
    ),
    rivals=False,
)


def _openrouter_usage(answer: Answer) -> dict[str, Any]:
    """Return counts with what the answer cost."""
    return {**openai_usage(answer), "cost": 0.0123, "cost_details": {"upstream_cost": None}}


OPENROUTER = chat_completions(
    "openrouter",
    Dialect(
        id="gen-1",
        usage=_openrouter_usage,
        reasoning=lambda text: {"reasoning": text},
        refuses=True,
        more={"system_fingerprint": "fp_4711", "provider": "Upstream"},
    ),
    says={"system_fingerprint": "fp_4711", "cost": 0.0123},
    counts=DETAILS,
)


def _groq_usage(answer: Answer) -> dict[str, Any]:
    """Return counts with the times that Groq took."""
    times = {"queue_time": 0.01, "prompt_time": 0.02, "completion_time": 0.03, "total_time": 0.05}
    return openai_usage(answer) | times


GROQ = chat_completions(
    "groq",
    Dialect(
        usage=_groq_usage,
        reasoning=lambda text: {"reasoning": text},
        usage_on_last=True,
        whole_calls=True,
        wrap_usage=lambda usage: {"x_groq": {"id": "req_1", "usage": usage}},
        more={"system_fingerprint": "fp_4711", "service_tier": "on_demand"},
    ),
    path="/openai/v1/chat/completions",
    says={"system_fingerprint": "fp_4711", "service_tier": "on_demand"},
    counts=DETAILS,
)


def _mistral_reasoning(text: str) -> dict[str, Any]:
    """Return reasoning as Magistral has it: a block of the content."""
    return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}


MISTRAL = chat_completions(
    "mistral",
    Dialect(
        id="cmpl-1",
        usage=plain_usage,
        reasoning=_mistral_reasoning,
        usage_on_last=True,
        whole_calls=True,
        finish_reasons={**FINISH_REASONS, Stop.BLOCKED: "error"},
    ),
)

HUGGING_FACE = chat_completions(
    "huggingface",
    Dialect(
        id="",  # text-generation-inference leaves it empty
        usage=plain_usage,
        usage_asked=True,
        more={"system_fingerprint": "3.3.4-sha-1"},
        finish_reasons={**FINISH_REASONS, Stop.END: "eos_token"},
    ),
    says={"system_fingerprint": "3.3.4-sha-1"},
)

LITELLM = chat_completions(
    "litellm",
    Dialect(reasoning=reasoning_content, usage_asked=True, more=OPENAI_SAYS),
    says=OPENAI_SAYS,
    counts=DETAILS,
)
