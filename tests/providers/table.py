"""The table: what the row in Arthur must hold, for each client, way to call it, and answer.

The right value of each field follows from the answer (`answers.py`) and the provider's words for
it (`wire/`). Where LangChain or the client's package does not hand a value over, that stands in
`not_handed_over.py`, with the place in its source.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .answers import ANSWERS, Answer, ToolCall
from .client import Client
from .clients import CLIENTS
from .forms import FORMS, Form
from .wire import RIVAL, RIVAL_LOGPROB, arriving

FIELDS: Mapping[str, str] = {
    "input_text": "UNSTRUCTURED_TEXT",
    "output_text": "UNSTRUCTURED_TEXT",
    "finish_reason": "STRING",
    "prompt_tokens": "INTEGER",
    "completion_tokens": "INTEGER",
    "total_tokens": "INTEGER",
    "cached_tokens": "INTEGER",
    "cache_creation_tokens": "INTEGER",
    "reasoning_tokens": "INTEGER",
    "tool_calls": "STRING",
    "refusal": "STRING",
    "reasoning_text": "STRING",
    "output_tokens": "TOKENS",
    "output_likelihoods": "TOKEN_LIKELIHOODS",
    "model_name": "STRING",
    "provider": "STRING",
    "response_id": "STRING",
    "service_tier": "STRING",
    "system_fingerprint": "STRING",
    "cost": "FLOAT",
    "duration": "FLOAT",
    "time_to_first_token": "FLOAT",
    "outcome": "STRING",
    "error": "STRING",
}
"""The fields of a row, with the types that Arthur's model has registered."""

ENVELOPE = ("response_id", "service_tier", "system_fingerprint", "cost")
"""What an answer says of itself; of one that was cut it may be known already, or not."""

DETAILS = ("cached_tokens", "cache_creation_tokens", "reasoning_tokens")
"""Details of token counts: zero may be told, or nothing."""


@dataclass(frozen=True)
class AnyOf:
    """Stands for values that a run makes, of a type."""

    kind: type


@dataclass(frozen=True)
class OneOf:
    """Stands for values of which each is right."""

    values: tuple[Any, ...]


def cases() -> Iterator[tuple[Client, Form, str]]:
    """Yield each client with each way to call it and the name of each answer."""
    for client in CLIENTS:
        for name in client.answers:
            answer = ANSWERS[name]
            fails = answer.status != 200 or answer.cut_after is not None
            for form in map(FORMS.__getitem__, client.forms):
                if not (form.left and fails) and (client.chat or not form.chat):
                    yield client, form, name


def right_values(client: Client, form: Form, name: str) -> dict[str, Any]:
    """Return what a row must hold, by field; a field that is missing must not be there.

    Args:
        client: Which client is called.
        form: How.
        name: The answer's name, which is the prompt.
    """
    answer = ANSWERS[name]
    values: dict[str, Any] = {
        "input_text": f"Human: {name}" if client.chat else name,
        "output_text": "",
        "provider": client.provider,
        "duration": AnyOf(float),
        "outcome": "ok",
    }
    if client.asked_for is not None:
        values["model_name"] = client.asked_for
    if answer.status != 200 or form.name in client.raises.get(name, ()):
        return values | {"outcome": "error", "error": AnyOf(str)}
    streamed = form.streamed or client.streams_inside
    if answer.cut_after is not None:
        values |= {"outcome": "error", "error": AnyOf(str)}
        if streamed:
            values["time_to_first_token"] = AnyOf(float)
        if form.streamed:
            values["output_text"] = arriving(answer).whole_text
            # What answers may have been told already; most tell it at the end.
            said = client.wire.says.get("model_name", client.asked_for)
            values["model_name"] = OneOf((client.asked_for, said))
        return values
    values["output_text"] = answer.whole_text or answer.refusal or ""
    values |= _of_a_complete_answer(client, answer)
    values |= client.wire.differs.get(name, {})
    if not streamed:
        values |= client.wire.differs_whole.get(name, {})
    elif any(values.get(field) for field in ("output_text", "reasoning_text", "tool_calls")):
        values.setdefault("time_to_first_token", AnyOf(float))
    return {field: value for field, value in values.items() if value is not None}


def may_be_there(client: Client, form: Form, name: str) -> dict[str, Any]:
    """Return what a row may hold beside, by field: right if it is there, and no loss if not."""
    answer = ANSWERS[name]
    if answer.status != 200:
        return {}
    if answer.cut_after is not None:
        early = {key: client.wire.says[key] for key in ENVELOPE if key in client.wire.says}
        counts = _counts(client, answer) if client.wire.counts_early else {}
        return dict.fromkeys(DETAILS, 0) | early | counts
    return dict.fromkeys(DETAILS, 0)


def agrees(field: str, found: Any, right: Any) -> bool:
    """Return whether a row's value is the right one."""
    if isinstance(right, AnyOf):
        return isinstance(found, right.kind)
    if isinstance(right, OneOf):
        return any(found is value or agrees(field, found, value) for value in right.values)
    if field == "tool_calls":
        return isinstance(found, str) and _calls_agree(json.loads(found), right)
    if field == "output_likelihoods":
        return isinstance(found, list) and _likelihoods_agree(found, right)
    return bool(found == right)


def _of_a_complete_answer(client: Client, answer: Answer) -> dict[str, Any]:
    wire = client.wire
    values: dict[str, Any] = {
        "finish_reason": wire.finish_reasons[answer.stop],
        **_counts(client, answer),
        **wire.says,
    }
    if answer.tool_calls or answer.server_calls:
        values["tool_calls"] = (*answer.tool_calls, *answer.server_calls)
    if answer.refusal is not None and wire.refuses:
        values["refusal"] = answer.refusal
    if answer.reasoning:
        values["reasoning_text"] = "".join(answer.reasoning)
    if answer.logprobs is not None:
        values["output_tokens"] = list(answer.text)
        rivals = {RIVAL: math.exp(RIVAL_LOGPROB)} if wire.rivals else {}
        values["output_likelihoods"] = [
            {piece: math.exp(answer.logprobs[piece])} | rivals for piece in answer.text
        ]
    return values


def _counts(client: Client, answer: Answer) -> dict[str, int]:
    usage = answer.usage
    details = {
        "cached_tokens": usage.cache_read,
        "cache_creation_tokens": usage.cache_write,
        "reasoning_tokens": usage.reasoning,
    }
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total,
        **{name: count for name, count in details.items() if count and name in client.wire.counts},
    }


def _calls_agree(found: list[dict[str, Any]], right: tuple[ToolCall, ...]) -> bool:
    """Compare calls: arguments that are no JSON are there as they came, with an error."""
    if len(found) != len(right):
        return False
    for call, wanted in zip(found, right, strict=True):
        if call["name"] != wanted.name or (wanted.id and call["id"] != wanted.id):
            return False
        if wanted.by_provider != (call["type"] == "server_tool_call"):
            return False
        try:
            arguments = json.loads(wanted.arguments)
        except ValueError:
            if call["args"] != wanted.arguments or not call.get("error"):
                return False
        else:
            if call["args"] != arguments or call.get("error"):
                return False
    return True


def _likelihoods_agree(found: list[dict[str, float]], right: list[dict[str, float]]) -> bool:
    return [set(pairs) for pairs in found] == [set(pairs) for pairs in right] and all(
        math.isclose(pairs[token], probability, rel_tol=1e-6)
        for pairs, wanted in zip(found, right, strict=True)
        for token, probability in wanted.items()
    )
