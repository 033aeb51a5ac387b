"""Cohere's chat API, version 2: content items, and a stream of server-sent events."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.providers.answers import Answer, Stop, answer_to

from . import Wire
from .streaming import halves, pieces, streamed, visible, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

FINISH_REASONS = {
    Stop.END: "COMPLETE",
    Stop.LENGTH: "MAX_TOKENS",
    Stop.TOOL: "TOOL_CALL",
    Stop.BLOCKED: "COMPLETE",  # the API has no reason of its own
}

RESPONSE_ID = "cohere-answer-1"

TOOL_PLAN = "I will ask."
"""What the model says before it calls a tool."""


def document(answer: Answer) -> dict[str, Any]:
    """Return a whole answer."""
    content: list[dict[str, Any]] = []
    if answer.reasoning:
        content.append({"type": "thinking", "thinking": "".join(answer.reasoning)})
    if text := visible(answer):
        content.append({"type": "text", "text": text})
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if answer.tool_calls:
        message = {"role": "assistant", "tool_plan": TOOL_PLAN, "tool_calls": _calls(answer)}
    whole_answer: dict[str, Any] = {
        "id": RESPONSE_ID,
        "message": message,
        "finish_reason": FINISH_REASONS[answer.stop],
        "usage": _usage(answer),
    }
    if answer.logprobs is not None:
        whole_answer["logprobs"] = [_logprob(answer, piece) for piece in answer.text]
    return whole_answer


def events(answer: Answer) -> Iterator[dict[str, Any]]:
    """Yield the events of a streamed answer."""
    start = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
    yield {"type": "message-start", "id": RESPONSE_ID, "delta": {"message": start}}
    index = itertools.count()
    for kind, group in itertools.groupby(pieces(answer), key=lambda piece: piece[0]):
        number, name = next(index), "thinking" if kind == "reasoning" else "text"
        yield _content("content-start", number, {"type": name, name: ""})
        for _, piece in group:
            event = _content("content-delta", number, {name: piece})
            if answer.logprobs is not None:
                event["logprobs"] = _logprob(answer, piece)
            yield event
        yield {"type": "content-end", "index": number}
    if answer.tool_calls:
        yield {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": TOOL_PLAN}}}
    for number, call in enumerate(_calls(answer)):
        arguments = call["function"]["arguments"]
        call["function"]["arguments"] = ""
        yield {
            "type": "tool-call-start",
            "index": number,
            "delta": {"message": {"tool_calls": call}},
        }
        for part in halves(arguments):
            delta = {"message": {"tool_calls": {"function": {"arguments": part}}}}
            yield {"type": "tool-call-delta", "index": number, "delta": delta}
        yield {"type": "tool-call-end", "index": number}
    end = {"finish_reason": FINISH_REASONS[answer.stop], "usage": _usage(answer)}
    yield {"type": "message-end", "id": RESPONSE_ID, "delta": end}


async def _chat(request: Request) -> Response:
    body = await request.json()
    answer = answer_to(_text(body["messages"][-1]["content"]))
    if answer.status != 200:
        return JSONResponse({"message": f"failed with {answer.status}"}, status_code=answer.status)
    if not body.get("stream"):
        return whole(answer, document(answer))
    lines = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events(answer))
    return streamed(lines, "text/event-stream")


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for block in content:
        if block["type"] == "document":
            texts.append("".join(str(each) for each in block["document"]["data"].values()))
        else:
            texts.append(block.get("text", ""))
    return "".join(texts)


def _content(kind: str, index: int, content: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "index": index, "delta": {"message": {"content": content}}}


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in answer.tool_calls
    ]


def _logprob(answer: Answer, piece: str) -> dict[str, Any]:
    return {"text": piece, "token_ids": [1], "logprobs": [(answer.logprobs or {})[piece]]}


def _usage(answer: Answer) -> dict[str, Any]:
    counts = {"input_tokens": answer.usage.input, "output_tokens": answer.usage.output}
    return {
        "billed_units": counts,
        "tokens": counts,
        "cached_tokens": answer.usage.cache_read,
    }


WIRE = Wire(
    name="cohere",
    routes=lambda: [Route("/v2/chat", _chat, methods=["POST"])],
    finish_reasons=FINISH_REASONS,
    says={"response_id": RESPONSE_ID},
    counts=frozenset({"cached_tokens"}),
    rivals=False,
    differs={name: {"output_text": TOOL_PLAN} for name in ("tool call", "broken tool call")},
)
