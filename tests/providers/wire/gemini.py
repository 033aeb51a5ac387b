"""Google's Gemini API: `generateContent`, and `streamGenerateContent` as server-sent events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.providers.answers import Answer, Stop, answer_to

from . import ANSWERED_BY, Wire
from .streaming import pieces, streamed, visible, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

FINISH_REASONS = {
    Stop.END: "STOP",
    Stop.LENGTH: "MAX_TOKENS",
    Stop.TOOL: "STOP",  # the API has no reason of its own for calls
    Stop.BLOCKED: "SAFETY",
}

RESPONSE_ID = "gemini-answer-1"
FINISH_MESSAGE = "The answer is blocked."
BLOCK_REASON = "PROHIBITED_CONTENT"
BLOCK_MESSAGE = "The prompt is blocked."

_RATING = {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}


def document(answer: Answer, model: str) -> dict[str, Any]:
    """Return a whole answer."""
    if answer.prompt_blocked:
        return _envelope(answer, model, None)
    parts = []
    if answer.reasoning:
        parts.append({"text": "".join(answer.reasoning), "thought": True})
    if text := visible(answer):
        parts.append({"text": text})
    candidate = _end(answer, parts + _calls(answer))
    if answer.logprobs is not None:
        candidate |= _logprobs(answer, list(answer.text))
    return _envelope(answer, model, candidate)


def chunks(answer: Answer, model: str) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a streamed answer; each tells the usage so far."""
    if answer.prompt_blocked:
        yield _envelope(answer, model, None)
        return
    for kind, piece in pieces(answer):
        part: dict[str, Any] = {"text": piece}
        if kind == "reasoning":
            part["thought"] = True
        candidate = {"content": {"parts": [part], "role": "model"}, "index": 0}
        if answer.logprobs is not None:
            candidate |= _logprobs(answer, [piece])
        yield _envelope(answer, model, candidate)
    # The last piece of text often comes with the reason; here it has come before.
    yield _envelope(answer, model, _end(answer, _calls(answer) or [{"text": ""}]))


def wire(name: str, model: str) -> Wire:
    """Return the API with a model; by its name LangChain's package decides on a message's form."""

    async def generate(request: Request) -> Response:
        answer = await _answer(request)
        if answer.status != 200:
            return _failure(answer.status)
        return whole(answer, document(answer, model))

    async def stream(request: Request) -> Response:
        answer = await _answer(request)
        if answer.status != 200:
            return _failure(answer.status)
        lines = (f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks(answer, model))
        return streamed(lines, "text/event-stream")

    return Wire(
        name=name,
        routes=lambda: [
            Route("/{version}/models/{model}:generateContent", generate, methods=["POST"]),
            Route("/{version}/models/{model}:streamGenerateContent", stream, methods=["POST"]),
        ],
        finish_reasons=FINISH_REASONS,
        says={"model_name": model, "response_id": RESPONSE_ID},
        counts=frozenset({"cached_tokens", "reasoning_tokens"}),
        counts_early=True,
        differs={
            "refused": {"refusal": FINISH_MESSAGE},
            "prompt blocked": {
                "finish_reason": BLOCK_REASON,
                "refusal": BLOCK_MESSAGE,
                "output_text": BLOCK_MESSAGE,  # a refusal's text, and there is no other
                "time_to_first_token": None,  # no model has answered
            },
            # There is no such call in the answer, so neither is there one in the row.
            "broken tool call": {"finish_reason": "MALFORMED_FUNCTION_CALL", "tool_calls": None},
        },
    )


async def _answer(request: Request) -> Answer:
    texts = []
    for part in (await request.json())["contents"][-1]["parts"]:
        if found := part.get("functionResponse"):
            texts.append(str(found["response"].get("output", "")))
        texts.append(part.get("text", ""))
    return answer_to("".join(texts))


def _failure(status: int) -> JSONResponse:
    error = {"code": status, "message": f"failed with {status}", "status": "INTERNAL"}
    return JSONResponse({"error": error}, status_code=status)


def _calls(answer: Answer) -> list[dict[str, Any]]:
    parts = []
    for call in answer.tool_calls:
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            continue  # told by the finish reason, see _end
        parts.append({"functionCall": {"name": call.name, "args": arguments, "id": call.id}})
    return parts


def _end(answer: Answer, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the candidate that ends an answer."""
    candidate: dict[str, Any] = {
        "content": {"parts": parts, "role": "model"},
        "finishReason": FINISH_REASONS[answer.stop],
        "index": 0,
    }
    if answer.stop is Stop.BLOCKED:
        candidate["safetyRatings"] = [_RATING]
        candidate["finishMessage"] = FINISH_MESSAGE
    if answer.tool_calls and len(_calls(answer)) < len(answer.tool_calls):
        # The API never sends arguments that are no JSON: it has nothing but this.
        candidate["finishReason"] = "MALFORMED_FUNCTION_CALL"
        raw = answer.tool_calls[0]
        candidate["finishMessage"] = f"Malformed function call: {raw.name}{raw.arguments}"
        candidate["content"] = {"role": "model"}
    return candidate


def _logprobs(answer: Answer, tokens: list[str]) -> dict[str, Any]:
    found = answer.logprobs or {}
    chosen = [{"token": t, "tokenId": n, "logProbability": found[t]} for n, t in enumerate(tokens)]
    top = [{"candidates": [each]} for each in chosen]
    average = sum(found[token] for token in tokens) / len(tokens)
    result = {"topCandidates": top, "chosenCandidates": chosen}
    return {"avgLogprobs": average, "logprobsResult": result}


def _envelope(answer: Answer, model: str, candidate: dict[str, Any] | None) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "promptTokenCount": answer.usage.input,
        "totalTokenCount": answer.usage.total,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": answer.usage.input}],
    }
    if answer.usage.output:
        usage["candidatesTokenCount"] = answer.usage.output - answer.usage.reasoning
    if answer.usage.reasoning:
        usage["thoughtsTokenCount"] = answer.usage.reasoning
    if answer.usage.cache_read:
        usage["cachedContentTokenCount"] = answer.usage.cache_read
    document: dict[str, Any] = {
        "usageMetadata": usage,
        "modelVersion": model,
        "responseId": RESPONSE_ID,
    }
    if candidate is None:
        document["promptFeedback"] = {
            "blockReason": BLOCK_REASON,
            "blockReasonMessage": BLOCK_MESSAGE,
            "safetyRatings": [_RATING],
        }
    else:
        document["candidates"] = [candidate]
    return document


WIRE = wire("gemini", ANSWERED_BY)

WIRE_3 = wire("gemini-3", "gemini-3-answering")
"""With a model of the third generation, whose messages are lists of content blocks."""
