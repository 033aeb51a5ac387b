"""Converts log probabilities, in any provider's form, to Arthur's token likelihoods."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from arthur_relay.encoding.coerce import MAX_PAIRS
from arthur_relay.encoding.plain_values import unwrapped
from arthur_relay.encoding.reading import read, read_first

_TOKEN = ("token", "text", "content")
_LOGPROB = ("logprob", "log_probability", "logProbability", "logprobs", "log_prob")
_CANDIDATES = ("top_logprobs", "topLogprobs", "top_tokens", "candidates")
_CHOSEN = ("content", "chosen_candidates", "chosenCandidates", "tokens_details")
_ALL_CANDIDATES = ("top_candidates", "topCandidates", "top_tokens")


class TokenLikelihoods(NamedTuple):
    """The generated tokens and, for each, its most likely candidates; equally long, not empty.

    The token itself is among its candidates, if the provider returned its likelihood.
    """

    tokens: list[str]
    likelihoods: list[dict[str, float]]


def token_likelihoods(logprobs: Any) -> TokenLikelihoods | None:
    """Convert log probabilities.

    The forms, as dicts or as objects with such attributes:

    - chat: `{"content": [{"token", "logprob", "top_logprobs": [{"token", "logprob"}]}]}`, or the
      list alone (Ollama);
    - completion: `{"tokens": [...], "token_logprobs": [...], "top_logprobs": [{token: logprob}]}`,
      where one of the last two may be absent (Together, Fireworks);
    - Gemini: `{"chosen_candidates": [...], "top_candidates": [{"candidates": [...]}]}`.

    Probabilities are `exp(logprob)`, clamped to 0..1. Of more than `MAX_PAIRS` candidates, the most
    likely ones and the token itself are kept.

    Returns:
        The likelihoods, or None when nothing is readable. Never raises an `Exception`.
    """
    try:
        found = unwrapped(logprobs)
        pairs = _of_items(found) if _is_list(found) else _of_holder(found)
    except Exception:  # noqa: BLE001 - a provider's own class may raise anything
        return None
    if not pairs:
        return None
    return TokenLikelihoods([token for token, _ in pairs], [top for _, top in pairs])


def has_values(logprobs: Any) -> bool:
    """Return whether log probabilities have any values, even in an unknown form."""
    if isinstance(logprobs, Mapping):
        return any(has_values(value) for value in logprobs.values())
    return len(logprobs) > 0 if _is_list(logprobs) else logprobs is not None


def spells_only_the_end(tokens: Sequence[str], text: Any) -> bool:
    """Return whether tokens spell only the end of a text.

    LangChain's v3 event streams keep only the log probabilities of the last chunk that had some.
    Sent with the whole text, they would be wrong.
    """
    spelled = "".join(tokens)
    return isinstance(text, str) and len(spelled) < len(text) and text.endswith(spelled)


_Pairs = list[tuple[str, dict[str, float]]]


def _of_holder(logprobs: Any) -> _Pairs:
    """Read a mapping or an object that has lists."""
    items = read_first(logprobs, _CHOSEN)
    if _is_list(items):
        return _of_items(items, _list(read_first(logprobs, _ALL_CANDIDATES)))
    tokens, tops = _list(read(logprobs, "tokens")), read(logprobs, "top_logprobs")
    if tokens and read_first(tokens[0], _TOKEN) is not None:
        return _of_items(tokens)  # Hugging Face: each token has its own
    chosen = _list(read(logprobs, "token_logprobs"))
    if _is_list(tops):
        return _completion(tokens, chosen, tops)
    return _completion(tokens, chosen, [None] * len(tokens)) if chosen else []


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _list(value: Any) -> Sequence[Any]:
    return value if _is_list(value) else ()


def _of_items(items: Sequence[Any], more: Sequence[Any] = ()) -> _Pairs:
    """Read a list with one object for each token.

    Args:
        items: The objects.
        more: The candidates of each token, if they are in a second list.
    """
    pairs = []
    for index, item in enumerate(items):
        token = read_first(item, _TOKEN)
        logprob = unwrapped(read_first(item, _LOGPROB))
        if _is_list(logprob):  # Cohere: one for each token id
            logprob = sum(logprob)
        if token is None or isinstance(item, str):
            continue
        candidates = read_first(item, _CANDIDATES)
        if candidates is None and index < len(more):
            candidates = read_first(more[index], _CANDIDATES) or more[index]
        found = [
            (read_first(each, _TOKEN), read_first(each, _LOGPROB)) for each in _list(candidates)
        ]
        if isinstance(candidates, Mapping):
            found = list(candidates.items())
        pairs.append((str(token), _most_likely(found, chosen=(token, logprob))))
    return pairs


def _completion(tokens: Sequence[Any], chosen: Sequence[Any], tops: Sequence[Any]) -> _Pairs:
    """Read parallel lists: tokens, their log probabilities, their candidates."""
    pairs = []
    for index, candidates in enumerate(tops):
        found = list(candidates.items()) if isinstance(candidates, Mapping) else []
        if len(tokens) == len(tops):
            token = str(tokens[index])
            logprob = chosen[index] if len(chosen) == len(tops) else None
            pairs.append((token, _most_likely(found, chosen=(token, logprob))))
        else:  # the token is missing: its most likely candidate stands for it
            top = _most_likely(found, chosen=("", None))
            pairs.append((max(top, key=top.__getitem__, default=""), top))
    return pairs


def _most_likely(
    candidates: Iterable[tuple[Any, Any]], *, chosen: tuple[Any, Any]
) -> dict[str, float]:
    """Return probability by token, in the provider's order: the likeliest, and the chosen one."""
    found: dict[str, float] = {}
    for token, logprob in (*candidates, chosen):
        number = unwrapped(logprob)
        if token is None or isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        if not math.isnan(number):
            # Two byte sequences can print alike; the first one, which is likelier, is kept.
            found.setdefault(str(token), min(1.0, math.exp(min(0.0, number))))
    if len(found) <= MAX_PAIRS:
        return found
    name = str(chosen[0])

    def rank(token: str) -> tuple[bool, float]:
        return token == name, found[token]

    kept = set(sorted(found, key=rank, reverse=True)[:MAX_PAIRS])
    return {token: value for token, value in found.items() if token in kept}
