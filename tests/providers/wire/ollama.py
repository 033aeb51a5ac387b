"""Ollama's `/api/chat` and `/api/generate`: JSON, or one JSON object a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.providers.answers import ANSWERS, Answer, Stop, ToolCall, answer_to

from . import ANSWERED_BY, RIVAL, RIVAL_LOGPROB, Wire
from .streaming import pieces, streamed, visible, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request

DONE_REASONS = {
    Stop.END: "stop",
    Stop.LENGTH: "length",
    # Ollama has no reasons of its own for these.
    Stop.TOOL: "stop",
    Stop.BLOCKED: "stop",
}


def lines(answer: Answer, said: Callable[..., dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a streamed answer's objects.

    Args:
        answer: The answer.
        said: Makes the endpoint's part of an object, of a text, reasoning and calls.
    """
    for kind, piece in pieces(answer):
        text, thinking = ("", piece) if kind == "reasoning" else (piece, "")
        line = _envelope() | said(text, thinking) | {"done": False}
        if answer.logprobs is not None:
            line["logprobs"] = _logprobs(answer, [piece])
        yield line
    if answer.tool_calls:
        yield _envelope() | said("", "", _calls(answer)) | {"done": False}
    yield _envelope() | said("", "") | _end(answer)


async def _chat(request: Request) -> Response:
    body = await request.json()
    answer = answer_to(body["messages"][-1]["content"])
    return _respond(body, answer, _message)


async def _generate(request: Request) -> Response:
    body = await request.json()
    answer = answer_to(body["prompt"])
    return _respond(body, answer, _response)


def _respond(body: dict[str, Any], answer: Answer, said: Callable[..., dict[str, Any]]) -> Response:
    if answer.status != 200:
        return _failure(f"failed with {answer.status}", answer.status)
    for call in answer.tool_calls:
        if not _is_json(call.arguments):
            # Ollama parses the model's text itself, and this is all that it says.
            return _failure(f"error parsing tool call: raw='{call.arguments}'", 500)
    if body.get("stream", True):
        parts = (json.dumps(line) + "\n" for line in lines(answer, said))
        return streamed(parts, "application/x-ndjson")
    document = _envelope() | _end(answer)
    document |= said(visible(answer), "".join(answer.reasoning), _calls(answer))
    if answer.logprobs is not None:
        document["logprobs"] = _logprobs(answer, list(answer.text))
    return whole(answer, document)


def _failure(text: str, status: int) -> JSONResponse:
    return JSONResponse({"error": text}, status_code=status)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _message(text: str, thinking: str, calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def _response(
    text: str,
    thinking: str,
    calls: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    # This endpoint has no calls.
    return {"response": text, **({"thinking": thinking} if thinking else {})}


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"function": {"name": call.name, "arguments": json.loads(call.arguments)}}
        for call in answer.tool_calls
    ]


def _logprobs(answer: Answer, tokens: list[str]) -> list[dict[str, Any]]:
    found = answer.logprobs or {}
    each = [{"token": t, "logprob": found[t], "bytes": list(t.encode())} for t in tokens]
    rival = {"token": RIVAL, "logprob": RIVAL_LOGPROB, "bytes": list(RIVAL.encode())}
    return [{**token, "top_logprobs": [token, rival]} for token in each]


def _envelope() -> dict[str, Any]:
    return {"model": ANSWERED_BY, "created_at": "2026-11-27T12:00:00.000000Z"}


def _end(answer: Answer) -> dict[str, Any]:
    return {
        "done": True,
        "done_reason": DONE_REASONS[answer.stop],
        "total_duration": 4_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": answer.usage.input,
        "prompt_eval_duration": 1_000_000,
        "eval_count": answer.usage.output,
        "eval_duration": 2_000_000,
    }


WIRE = Wire(
    name="ollama",
    routes=lambda: [
        Route("/api/chat", _chat, methods=["POST"]),
        Route("/api/generate", _generate, methods=["POST"]),
    ],
    finish_reasons=DONE_REASONS,
    differs={
        "tool call": {
            "tool_calls": tuple(  # they have no ids: the client makes them up
                ToolCall(id="", name=call.name, arguments=call.arguments)
                for call in ANSWERS["tool call"].tool_calls
            )
        }
    },
)
