"""Log probabilities of a generation, in either provider form, to Arthur's token likelihoods."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from arthur_relay.schema import MAX_PAIRS


class TokenLikelihoods(NamedTuple):
    """The generated tokens and, for each, its most likely candidates; equally long, not empty."""

    tokens: list[str]
    likelihoods: list[dict[str, float]]


def token_likelihoods(logprobs: Any) -> TokenLikelihoods | None:
    """Convert log probabilities of the completion form or of the chat form.

    The completion form is `{"tokens": [...], "token_logprobs": [...], "top_logprobs": [{token:
    logprob}]}`, the chat form `{"content": [{"token", "logprob", "top_logprobs": [{"token",
    "logprob"}]}]}`. Probabilities are `exp(logprob)`, held to 0..1; of more than `MAX_PAIRS`
    candidates the most likely stay.

    Returns:
        None when there is nothing that can be read. Never raises.
    """
    if not isinstance(logprobs, Mapping):
        return None
    content = logprobs.get("content")
    if isinstance(content, list):
        pairs = [_chat_token(item) for item in content if isinstance(item, Mapping)]
    elif isinstance(logprobs.get("top_logprobs"), list):
        pairs = _completion_tokens(logprobs)
    else:
        return None
    if not pairs:
        return None
    return TokenLikelihoods([token for token, _ in pairs], [top for _, top in pairs])


def spells_only_the_end(tokens: Sequence[str], text: Any) -> bool:
    """Return whether tokens are those of a text's end alone.

    LangChain's v3 event streams keep the log probabilities of the last chunk that had some, and
    no others: sent beside the whole text they would be wrong.
    """
    spelled = "".join(tokens)
    return isinstance(text, str) and len(spelled) < len(text) and text.endswith(spelled)


def _chat_token(item: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    token = str(item.get("token", ""))
    candidates = item.get("top_logprobs")
    if isinstance(candidates, list) and candidates:
        top = _most_likely(
            (c.get("token", ""), c.get("logprob")) for c in candidates if isinstance(c, Mapping)
        )
    else:  # the provider was asked for log probabilities, but not for candidates
        top = _most_likely([(token, item.get("logprob"))])
    return token, top


def _completion_tokens(logprobs: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    tops = [
        _most_likely(candidates.items() if isinstance(candidates, Mapping) else ())
        for candidates in logprobs["top_logprobs"]
    ]
    tokens = logprobs.get("tokens")
    if not isinstance(tokens, list) or len(tokens) != len(tops):
        # The most likely candidate stands for the token that was not told.
        tokens = [max(top, key=top.__getitem__, default="") for top in tops]
    return [(str(token), top) for token, top in zip(tokens, tops, strict=True)]


def _most_likely(candidates: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    """Return probability by token, most likely first kept, in the provider's order."""
    found: dict[str, float] = {}
    for token, logprob in candidates:
        if isinstance(logprob, (int, float)) and not math.isnan(logprob):
            # Two byte sequences can print alike; the first, more likely one is kept.
            found.setdefault(str(token), min(1.0, math.exp(min(0.0, logprob))))
    if len(found) <= MAX_PAIRS:
        return found
    kept = set(sorted(found, key=found.__getitem__, reverse=True)[:MAX_PAIRS])
    return {token: value for token, value in found.items() if token in kept}
