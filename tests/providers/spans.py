"""The span in Arthur Engine: where each field of a row is in it, and what it says there.

A row is held against what the model answered (`table.py`), and the span of the same run against the
row: by OpenInference's attribute where there is one, else within the text of the whole answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from arthur_relay.destinations.engine.providers import PROVIDERS

from .client import Client

Span = Mapping[str, Any]


@dataclass(frozen=True)
class SpanField:
    """Where a span has a field of the row.

    Attributes:
        field: The row's field.
        place: The span's attribute, for people.
        read: Reads it of a span; None when it is not there.
        is_same: Compares it with the row's, which has a value.
        note: What differs on purpose, or "".
    """

    field: str
    place: str
    read: Callable[[Span], Any]
    is_same: Callable[[Any, Any], bool] = lambda found, row: bool(found == row)
    note: str = ""


def attribute(name: str) -> Callable[[Span], Any]:
    """Return a function that reads an attribute."""
    return lambda span: span["attributes"].get(name)


def _input(span: Span) -> Any:
    attributes = span["attributes"]
    content = attributes.get("llm.input_messages.0.message.content")
    return content if content is not None else attributes.get("llm.prompts")


def _says_the_same(found: Any, row: Any) -> bool:
    return bool(row == f"Human: {found}" or [row] == found)


def _output(span: Span) -> str:
    attributes = span["attributes"]
    message = "llm.output_messages.0.message."
    text = attributes.get(f"{message}content")
    if text is None:
        parts = sorted(
            (int(name.split(".")[5]), value)
            for name, value in attributes.items()
            if name.startswith(f"{message}contents.") and name.endswith(".text")
        )
        text = "".join(value for _, value in parts)
    return str(text) or "".join(each.get("text") or "" for each in _generations(span))


def _generations(span: Span) -> list[dict[str, Any]]:
    """Return the answer's generations, as LangChain writes them down: of a stream, its pieces."""
    try:
        found = json.loads(span["attributes"]["output.value"])["generations"][0]
    except (KeyError, ValueError, IndexError, TypeError):
        return []
    return [each for each in found if isinstance(each, dict)]


def _calls(span: Span) -> list[tuple[Any, ...]] | None:
    prefix = "llm.output_messages.0.message.tool_calls."
    calls: dict[int, dict[str, Any]] = {}
    for name, value in span["attributes"].items():
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            calls.setdefault(int(number), {})[rest] = value
    return [
        (
            call.get("tool_call.id"),
            call.get("tool_call.function.name"),
            _parsed(call.get("tool_call.function.arguments", "{}")),
        )
        for _, call in sorted(calls.items())
    ] or None


def _parsed(arguments: Any) -> Any:
    try:
        return json.loads(arguments)
    except (TypeError, ValueError):
        return arguments


def _is_the_same_error(found: Any, row: Any) -> bool:
    return bool(row in found or (row == "GeneratorExit" and found.startswith("disconnected:")))


def _are_the_same_calls(found: Any, row: Any) -> bool:
    """Compare calls. Of one whose arguments are no JSON it is said what LangChain makes of it."""
    calls = [call for call in json.loads(row) if call["type"] != "server_tool_call"]
    wanted = {call["id"]: (call["name"], call["args"]) for call in calls}
    broken = {call["id"] for call in calls if call.get("error")}
    told = {call_id: (name, arguments) for call_id, name, arguments in found or ()}
    return (
        all(
            wanted.get(call_id) == said or (call_id in broken and wanted[call_id][0] == said[0])
            for call_id, said in told.items()
        )
        and wanted.keys() - told.keys() <= broken
    )


def _whole(span: Span) -> Any:
    return span["attributes"].get("output.value")


def _is_within(found: Any, row: Any) -> bool:
    return found is not None and json.dumps(row, ensure_ascii=False)[1:-1] in found


INTRODUCTION = """\
## The span in Arthur Engine

A second handler hears of the same calls and sends spans to [Arthur Engine](engine.md). The span of
each run says the same as its row, in the places of this table, and nothing where the row says
nothing.

| the row's field | the span has it in | |
| --- | --- | --- |"""

CALLS = (
    "of a call whose arguments are no JSON what LangChain made of it, or nothing; calls of the"
    " provider's own tools are in `output.value`"
)

SPAN_FIELDS = (
    SpanField("input_text", "`llm.input_messages`, `llm.prompts`", _input, _says_the_same),
    SpanField(
        "output_text",
        "`llm.output_messages`",
        _output,
        note="of a completion model, and of a refusal, in `output.value`",
    ),
    SpanField("finish_reason", "`llm.finish_reason`", attribute("llm.finish_reason")),
    SpanField("prompt_tokens", "`llm.token_count.prompt`", attribute("llm.token_count.prompt")),
    SpanField(
        "completion_tokens",
        "`llm.token_count.completion`",
        attribute("llm.token_count.completion"),
    ),
    SpanField("total_tokens", "`llm.token_count.total`", attribute("llm.token_count.total")),
    SpanField(
        "cached_tokens",
        "`llm.token_count.prompt_details.cache_read`",
        attribute("llm.token_count.prompt_details.cache_read"),
    ),
    SpanField(
        "cache_creation_tokens",
        "`llm.token_count.prompt_details.cache_write`",
        attribute("llm.token_count.prompt_details.cache_write"),
    ),
    SpanField(
        "reasoning_tokens",
        "`llm.token_count.completion_details.reasoning`",
        attribute("llm.token_count.completion_details.reasoning"),
    ),
    SpanField("tool_calls", "`message.tool_calls`", _calls, _are_the_same_calls, CALLS),
    SpanField(
        "model_name",
        "`llm.model_name`",
        attribute("llm.model_name"),
        note="of the whole answer, else the model that was asked for, as OpenInference has it; the"
        " name that a stream's answer gives is in `output.value`",
    ),
    SpanField(
        "provider",
        "`llm.provider`",
        attribute("llm.provider"),
        lambda found, row: bool(found == PROVIDERS.get(row, row)),
        "in OpenInference's words: `google` for LangChain's `google_genai`",
    ),
    SpanField("refusal", "`output.value`", _whole, _is_within),
    SpanField("reasoning_text", "`output.value`", _whole, _is_within),
    SpanField("response_id", "`output.value`", _whole, _is_within),
    SpanField("service_tier", "`output.value`", _whole, _is_within),
    SpanField("system_fingerprint", "`output.value`", _whole, _is_within),
    SpanField("error", "the status's message", lambda span: span["error"], _is_the_same_error),
)


def wrong_places(client: Client, span: Span, row: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a span says otherwise than the row of the same run."""
    for each in SPAN_FIELDS:
        found, said = each.read(span), row.get(each.field)
        if each.field == "model_name" and said and found == client.asked_for:
            continue  # as OpenInference has it
        if each.field == "output_text" and said == row.get("refusal"):
            continue  # it is in the whole answer
        if said in (None, "", 0):
            if each.place != "`output.value`" and found not in (None, "", 0):
                yield f"{each.field} should not be in the span: {found!r}"
        elif not each.is_same(found, said):
            yield f"{each.field} is {said!r} in the row, {found!r} in the span"


def span_section() -> list[str]:
    """Return the lines of the page that say where a span has the fields of a row."""
    rows = [f"| `{each.field}` | {each.place} | {each.note} |" for each in SPAN_FIELDS]
    return [*INTRODUCTION.splitlines(), *rows, ""]
