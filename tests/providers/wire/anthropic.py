"""Anthropic's Messages API: content blocks, and a stream of server-sent events."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.providers.answers import ANSWERS, Answer, Stop, ToolCall, Usage, answer_to

from . import ANSWERED_BY, Wire
from .streaming import halves, pieces, streamed, visible, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

STOP_REASONS = {
    Stop.END: "end_turn",
    Stop.LENGTH: "max_tokens",
    Stop.TOOL: "tool_use",
    Stop.BLOCKED: "refusal",
}

RESPONSE_ID = "msg_01Answer"

SIGNATURE = "c2lnbmF0dXJl"
"""What Anthropic signs a thinking block with; base64 of nothing in particular."""


def prompt_of(messages: list[dict[str, Any]]) -> str:
    """Return the text of the last message, that of a tool's result among it."""
    content = messages[-1]["content"]
    if isinstance(content, str):
        return content
    texts = []
    for block in content:
        inner = block.get("content") if block["type"] == "tool_result" else block.get("text", "")
        texts.append(inner if isinstance(inner, str) else "".join(b["text"] for b in inner or ()))
    return "".join(texts)


def document(answer: Answer, model: str = ANSWERED_BY) -> dict[str, Any]:
    """Return a whole answer."""
    return {
        "id": RESPONSE_ID,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": _blocks(answer),
        "stop_reason": STOP_REASONS[answer.stop],
        "stop_sequence": None,
        **_stop_details(answer),
        "usage": {
            **_usage(answer.usage),
            "cache_creation": {
                "ephemeral_5m_input_tokens": answer.usage.cache_write,
                "ephemeral_1h_input_tokens": 0,
            },
            "service_tier": "standard",
        },
    }


def events(answer: Answer, model: str = ANSWERED_BY) -> Iterator[dict[str, Any]]:
    """Yield the events of a streamed answer."""
    start = document(answer, model) | {"content": [], "stop_reason": None, "stop_details": None}
    start["usage"] = start["usage"] | {"output_tokens": 1, "output_tokens_details": None}
    yield {"type": "message_start", "message": start}
    index = itertools.count()
    for call in answer.server_calls:
        yield from _streamed_call(
            next(index), "server_tool_use", call.id, call.name, call.arguments
        )
        yield from _block(next(index), _search_result(call.id), ())
    for kind, group in itertools.groupby(pieces(answer), key=lambda piece: piece[0]):
        if kind == "reasoning":
            thinking = [{"type": "thinking_delta", "thinking": piece} for _, piece in group]
            signed = {"type": "signature_delta", "signature": SIGNATURE}
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            yield from _block(next(index), empty, [*thinking, signed])
        else:
            number = next(index)
            block = {"type": "text", "text": ""}
            yield {"type": "content_block_start", "index": number, "content_block": block}
            yield {"type": "ping"}
            for _, piece in group:  # one by one: the connection may be cut behind any
                delta = {"type": "text_delta", "text": piece}
                yield {"type": "content_block_delta", "index": number, "delta": delta}
            yield {"type": "content_block_stop", "index": number}
    for call in answer.tool_calls:
        yield from _streamed_call(next(index), "tool_use", call.id, call.name, call.arguments)
    yield {
        "type": "message_delta",
        "delta": {
            "stop_reason": STOP_REASONS[answer.stop],
            "stop_sequence": None,
            **_stop_details(answer),
        },
        "usage": _usage(answer.usage),
    }
    yield {"type": "message_stop"}


async def _messages(request: Request) -> Response:
    body = await request.json()
    answer = answer_to(prompt_of(body["messages"]))
    if answer.status != 200:
        error = {"type": "api_error", "message": f"failed with {answer.status}"}
        return JSONResponse({"type": "error", "error": error}, status_code=answer.status)
    if not body.get("stream"):
        return whole(answer, document(answer))
    lines = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events(answer))
    return streamed(lines, "text/event-stream")


def _blocks(answer: Answer) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for call in answer.server_calls:
        arguments = json.loads(call.arguments)
        blocks.append(
            {"type": "server_tool_use", "id": call.id, "name": call.name, "input": arguments}
        )
        blocks.append(_search_result(call.id))
    if answer.reasoning:
        thinking = "".join(answer.reasoning)
        blocks.append({"type": "thinking", "thinking": thinking, "signature": SIGNATURE})
    if text := visible(answer):
        blocks.append({"type": "text", "text": text})
    blocks += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _parsed(call.arguments)}
        for call in answer.tool_calls
    ]
    return blocks


def _parsed(arguments: str) -> Any:
    """Return arguments as the whole format has them: parsed, so that broken ones are lost."""
    try:
        return json.loads(arguments)
    except ValueError:
        return {}


def _search_result(call_id: str) -> dict[str, Any]:
    found = {
        "type": "web_search_result",
        "title": "Weather",
        "url": "https://weather.test/ulm",
        "encrypted_content": "ZW5jcnlwdGVk",
        "page_age": None,
    }
    return {"type": "web_search_tool_result", "tool_use_id": call_id, "content": [found]}


def _block(
    index: int, block: dict[str, Any], deltas: list[dict[str, Any]] | tuple[()]
) -> Iterator[dict[str, Any]]:
    yield {"type": "content_block_start", "index": index, "content_block": block}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _streamed_call(
    index: int, kind: str, call_id: str, name: str, arguments: str
) -> Iterator[dict[str, Any]]:
    block = {"type": kind, "id": call_id, "name": name, "input": {}}
    parts = ("", *halves(arguments))
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
    yield from _block(index, block, deltas)


def _stop_details(answer: Answer) -> dict[str, Any]:
    if answer.stop is not Stop.BLOCKED:
        return {}
    return {"stop_details": {"type": "refusal", "category": "cyber", "explanation": None}}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input - usage.cache_read - usage.cache_write,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


WITHOUT_BROKEN_CALLS = {
    "broken tool call": {
        "tool_calls": tuple(
            ToolCall(id=call.id, name=call.name, arguments="{}")
            for call in ANSWERS["broken tool call"].tool_calls
        )
    }
}
"""A whole answer has its calls' arguments as objects, so that broken ones can't be told."""

WIRE = Wire(
    name="anthropic",
    routes=lambda: [Route("/v1/messages", _messages, methods=["POST"])],
    finish_reasons=STOP_REASONS,
    says={
        "model_name": ANSWERED_BY,
        "response_id": RESPONSE_ID,
        "service_tier": "standard",
    },
    counts=frozenset({"cached_tokens", "cache_creation_tokens", "reasoning_tokens"}),
    differs_whole=WITHOUT_BROKEN_CALLS,
)
