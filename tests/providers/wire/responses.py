"""OpenAI's Responses API: items and content blocks, and a stream of named events."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.providers.answers import Answer, Stop, answer_to

from . import (
    ANSWERED_BY,
    RIVAL,
    RIVAL_LOGPROB,
    Wire,
    arriving,
    server_sent_events,
    text_of,
    whole,
)

FINISH_REASONS = {
    Stop.END: "completed",
    Stop.TOOL: "completed",
    Stop.LENGTH: "max_output_tokens",
    Stop.BLOCKED: "content_filter",
}
"""Why an answer is incomplete, else its status."""


async def _respond(request: Request) -> Response:
    body = await request.json()
    inputs = body["input"]
    answer = answer_to(inputs if isinstance(inputs, str) else text_of(inputs[-1]["content"]))
    asked = "message.output_text.logprobs" in (body.get("include") or ())
    if body.get("stream"):
        numbers = itertools.count()
        events = ({"sequence_number": next(numbers), **each} for each in _events(answer, asked))
        return server_sent_events(answer, events, end="", named=True)
    return whole(answer, _response(answer, _items(answer, asked)))


def _response(answer: Answer, items: list[dict[str, Any]], status: str = "") -> dict[str, Any]:
    reason = FINISH_REASONS[answer.stop]
    complete = reason == "completed"
    usage = answer.usage
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_780_000_000,
        "status": status or ("completed" if complete else "incomplete"),
        "model": ANSWERED_BY,
        "output": items,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None if complete or status else {"reason": reason},
        "service_tier": "scale",
        "usage": None
        if status
        else {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": usage.cache_read},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.total,
        },
    }


def _items(answer: Answer, asked: bool) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if answer.reasoning:
        summary = [{"type": "summary_text", "text": "".join(answer.reasoning)}]
        items.append({"id": "rs_1", "type": "reasoning", "summary": summary})
    if answer.text:
        items.append(_message([_text_part(answer, asked)]))
    if answer.refusal is not None:
        items.append(_message([{"type": "refusal", "refusal": answer.refusal}]))
    items += [
        {
            "id": f"fc_{call.id}",
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }
        for call in answer.tool_calls
    ]
    return items


def _message(content: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _text_part(answer: Answer, asked: bool) -> dict[str, Any]:
    part: dict[str, Any] = {
        "type": "output_text",
        "text": answer.whole_text,
        "annotations": [],
    }
    if asked:
        part["logprobs"] = _logprobs(answer, answer.text)
    return part


def _logprobs(answer: Answer, pieces: tuple[str, ...]) -> list[dict[str, Any]]:
    if answer.logprobs is None:
        return []
    return [
        {
            "token": piece,
            "logprob": answer.logprobs[piece],
            "bytes": [],
            "top_logprobs": [
                {"token": piece, "logprob": answer.logprobs[piece], "bytes": []},
                {"token": RIVAL, "logprob": RIVAL_LOGPROB, "bytes": []},
            ],
        }
        for piece in pieces
    ]


def _events(answer: Answer, asked: bool) -> Iterator[dict[str, Any]]:
    sent = arriving(answer)
    begun = _response(answer, [], "in_progress")
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    items = _items(answer, asked)
    for index, item in enumerate(items):
        place = {"output_index": index, "item_id": item["id"]}
        if item["type"] == "reasoning":
            yield from _reasoning_events(sent, item, place)
        elif item["type"] == "function_call":
            yield from _call_events(item, place)
        elif answer.refusal is not None:
            yield from _refusal_events(answer.refusal, item, place)
        else:
            yield from _text_events(sent, item, place, asked)
            if answer.cut_after is not None:
                return
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    done = _response(answer, items)
    yield {"type": f"response.{done['status']}", "response": done}


def _reasoning_events(
    answer: Answer, item: dict[str, Any], place: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the reasoning's events; its item comes empty at once, before any of it is there."""
    index = place["output_index"]
    empty = {**item, "summary": []}
    yield {"type": "response.output_item.added", "output_index": index, "item": empty}
    place = {**place, "summary_index": 0}
    part = {"type": "summary_text", "text": ""}
    yield {"type": "response.reasoning_summary_part.added", **place, "part": part}
    for piece in answer.reasoning:
        yield {"type": "response.reasoning_summary_text.delta", **place, "delta": piece}
    text = "".join(answer.reasoning)
    yield {"type": "response.reasoning_summary_text.done", **place, "text": text}
    part = {"type": "summary_text", "text": text}
    yield {"type": "response.reasoning_summary_part.done", **place, "part": part}


def _text_events(
    answer: Answer, item: dict[str, Any], place: dict[str, Any], asked: bool
) -> Iterator[dict[str, Any]]:
    index = place["output_index"]
    empty = _message([], "in_progress")
    yield {"type": "response.output_item.added", "output_index": index, "item": empty}
    place = {**place, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    yield {"type": "response.content_part.added", **place, "part": part}
    for piece in answer.text:
        found = _logprobs(answer, (piece,)) if asked else []
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": found}
    if answer.cut_after is not None:
        return
    found = _logprobs(answer, answer.text) if asked else []
    text = answer.whole_text
    yield {"type": "response.output_text.done", **place, "text": text, "logprobs": found}
    yield {"type": "response.content_part.done", **place, "part": item["content"][0]}


def _refusal_events(
    refusal: str, item: dict[str, Any], place: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    index = place["output_index"]
    empty = _message([], "in_progress")
    yield {"type": "response.output_item.added", "output_index": index, "item": empty}
    place = {**place, "content_index": 0}
    part = {"type": "refusal", "refusal": ""}
    yield {"type": "response.content_part.added", **place, "part": part}
    yield {"type": "response.refusal.delta", **place, "delta": refusal}
    yield {"type": "response.refusal.done", **place, "refusal": refusal}
    yield {"type": "response.content_part.done", **place, "part": item["content"][0]}


def _call_events(item: dict[str, Any], place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    index = place["output_index"]
    empty = {**item, "arguments": "", "status": "in_progress"}
    yield {"type": "response.output_item.added", "output_index": index, "item": empty}
    arguments = item["arguments"]
    half = len(arguments) // 2
    for part in (arguments[:half], arguments[half:]):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": part}
    yield {"type": "response.function_call_arguments.done", **place, "arguments": arguments}


WIRE = Wire(
    name="openai-responses",
    routes=lambda: [Route("/v1/responses", _respond, methods=["POST"])],
    finish_reasons=FINISH_REASONS,
    says={"model_name": ANSWERED_BY, "response_id": "resp_1", "service_tier": "scale"},
    counts=frozenset({"cached_tokens", "reasoning_tokens"}),
    refuses=True,
)
