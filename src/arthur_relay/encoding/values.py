"""What a run can fill attributes with, by their names, and how providers' words are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from arthur_relay.encoding.text import clean_text, sendable
from arthur_relay.inference import RunOutcome
from arthur_relay.schema import NotCoercible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arthur_relay.inference import GenerationSnapshot, Run

_OK = RunOutcome.OK
_SHORTEST_REPEATED = 3
"""Finish reasons and model names have at least this many characters ("eos", "gpt...")."""


def prompt_tokens(_run: Run, generation: GenerationSnapshot) -> int | None:
    """Return the number of the prompt's tokens, or None when the provider did not tell."""
    return _count(generation.usage[0]) if generation.usage else None


def completion_tokens(_run: Run, generation: GenerationSnapshot) -> int | None:
    """Return the number of the answer's tokens, or None when the provider did not tell."""
    return _count(generation.usage[1]) if generation.usage else None


def total_tokens(_run: Run, generation: GenerationSnapshot) -> int | None:
    """Return the number of all tokens: what the provider told, else the sum."""
    if generation.usage is None:
        return None
    total = generation.usage[2]
    if type(total) is int:  # nearly always
        return total
    prompt, completion, total = map(_count, generation.usage)
    if total is None and prompt is not None and completion is not None:
        return prompt + completion
    return total


def finish_reason(_run: Run, generation: GenerationSnapshot) -> str | None:
    """Return why the model stopped, in the provider's words, or None."""
    return _told(generation.finish_reason, generation)


def model_name(run: Run, generation: GenerationSnapshot) -> str | None:
    """Return the model's name: what answered, else what was asked for."""
    found = _told(generation.model_name, generation)
    return _told(run.asked_for, generation) if found is None else found


def tool_calls(_run: Run, generation: GenerationSnapshot) -> str | None:
    """Return the message's tool calls as a JSON array, or None when there are none.

    Raises:
        NotCoercible: They can't be written as JSON: nested too deeply, or in a circle.
    """
    calls = generation.tool_calls
    if calls is None:
        return None
    try:
        return orjson.dumps(calls, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a lone surrogate, an integer beyond 64 bits, or there is no way
        pass
    try:
        return orjson.dumps(sendable(calls), default=_clean_str).decode()
    except (TypeError, ValueError, RecursionError):
        raise NotCoercible from None


def time_to_first_token(run: Run, _generation: GenerationSnapshot) -> float | None:
    """Return the seconds until the first token, or None when nothing was streamed."""
    return None if run.first_token_at is None else run.first_token_at - run.started_at


def error(run: Run, _generation: GenerationSnapshot) -> str | None:
    """Return the error's type and text, or None when the run ended well."""
    return None if run.outcome is _OK else run.error


RUN_VALUES: Mapping[str, Callable[[Run, GenerationSnapshot], Any]] = {
    "finish_reason": finish_reason,
    "prompt_tokens": prompt_tokens,
    "completion_tokens": completion_tokens,
    "total_tokens": total_tokens,
    "duration": lambda run, _generation: run.duration,
    "time_to_first_token": time_to_first_token,
    "model_name": model_name,
    "tool_calls": tool_calls,
    "outcome": lambda run, _generation: str(run.outcome),
    "error": error,
    "run_id": lambda run, _generation: run.run_id,
    "parent_run_id": lambda run, _generation: run.parent_run_id,
    "tags": lambda run, _generation: run.tags,
}
"""Each returns None for what the run does not tell, or raises `NotCoercible`."""


def _clean_str(value: Any) -> str:
    return clean_text(str(value))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _told(text: Any, generation: GenerationSnapshot) -> str | None:
    """Return a text without exact repeats, which merging streamed chunks makes: "stopstop"."""
    if not text or not isinstance(text, str):
        return None
    if generation.streamed:
        for length in range(_SHORTEST_REPEATED, len(text) // 2 + 1):
            if len(text) % length == 0 and text[:length] * (len(text) // length) == text:
                return text[:length]
    return text
