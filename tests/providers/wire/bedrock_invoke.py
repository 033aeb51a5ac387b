"""Amazon Bedrock's InvokeModel: each vendor's own body, and its chunks in AWS's event stream."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.providers.answers import GUARDRAIL_TEXT, Answer, Stop, Usage, answer_to

from . import Wire, anthropic, aws_events
from .streaming import pieces, streamed, visible, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

# The completion formats have no calls and no reasoning: nothing but the text.
TITAN = {
    Stop.END: "FINISH",
    Stop.LENGTH: "LENGTH",
    Stop.TOOL: "FINISH",
    Stop.BLOCKED: "CONTENT_FILTERED",
}
CLAUDE_2 = dict.fromkeys(Stop, "stop_sequence") | {Stop.LENGTH: "max_tokens"}
STOP_OR_LENGTH = dict.fromkeys(Stop, "stop") | {Stop.LENGTH: "length"}


async def _invoke(request: Request) -> Response:
    model, body = request.path_params["model"], await request.json()
    answer = _guarded(answer_to(_prompt(body)))
    if answer.status != 200:
        return failure(answer.status)
    document = _document(answer, model, body)
    if answer.prompt_blocked:
        document["amazon-bedrock-guardrailAction"] = "INTERVENED"
    usage = _usage(answer, body)
    counts = {
        "x-amzn-bedrock-input-token-count": str(usage.input - usage.cache_read - usage.cache_write),
        "x-amzn-bedrock-output-token-count": str(usage.output),
        "x-amzn-bedrock-cache-read-input-token-count": str(usage.cache_read),
        "x-amzn-bedrock-cache-write-input-token-count": str(usage.cache_write),
    }
    return whole(answer, document, **counts)


async def _invoke_stream(request: Request) -> Response:
    model, body = request.path_params["model"], await request.json()
    answer = _guarded(answer_to(_prompt(body)))
    if answer.status != 200:
        return failure(answer.status)
    messages = (_chunk(part) for part in _parts(answer, model, body))
    content = {"x-amzn-bedrock-content-type": "application/json"}
    return streamed(messages, aws_events.MEDIA_TYPE, **content)


def failure(status: int) -> JSONResponse:
    """Return an error in the form of AWS's JSON protocols."""
    headers = {"x-amzn-errortype": "InternalServerException"}
    return JSONResponse({"message": f"failed with {status}"}, status_code=status, headers=headers)


def _usage(answer: Answer, body: dict[str, Any]) -> Usage:
    """Return the counts; the vendors of completions have no cache."""
    usage = answer.usage
    return usage if "messages" in body else Usage(input=usage.input, output=usage.output)


def _guarded(answer: Answer) -> Answer:
    """Return what a guardrail makes of an answer to a prompt that it blocks."""
    return (
        replace(answer, text=(GUARDRAIL_TEXT,), stop=Stop.END) if answer.prompt_blocked else answer
    )


def _chunk(part: dict[str, Any]) -> bytes:
    data = base64.b64encode(json.dumps(part).encode()).decode()
    return aws_events.event("chunk", {"bytes": data, "p": "abcdefgh"})


def _prompt(body: dict[str, Any]) -> str:
    """Return the prompt; the vendors' templates put their marks around it."""
    if "messages" in body:
        return anthropic.prompt_of(body["messages"])
    prompt = str(body.get("prompt") or body.get("inputText"))
    return prompt.removesuffix("Assistant:").removesuffix("[/INST]").strip()


def _document(answer: Answer, model: str, body: dict[str, Any]) -> dict[str, Any]:
    text = visible(answer)
    if "messages" in body:
        return anthropic.document(answer, model)
    match model.split(".", maxsplit=1)[0]:
        case "anthropic":
            return {
                "type": "completion",
                "completion": text,
                "stop_reason": CLAUDE_2[answer.stop],
                "stop": None,
            }
        case "meta":
            return {
                "generation": text,
                "prompt_token_count": answer.usage.input,
                "generation_token_count": answer.usage.output,
                "stop_reason": STOP_OR_LENGTH[answer.stop],
            }
        case "mistral":
            return {"outputs": [{"text": text, "stop_reason": STOP_OR_LENGTH[answer.stop]}]}
        case _:
            result = {
                "tokenCount": answer.usage.output,
                "outputText": text,
                "completionReason": TITAN[answer.stop],
            }
            return {"inputTextTokenCount": answer.usage.input, "results": [result]}


def _parts(answer: Answer, model: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the vendor's chunks; the last has Bedrock's own counts."""
    usage = _usage(answer, body)
    metrics: dict[str, Any] = {
        "inputTokenCount": usage.input - usage.cache_read - usage.cache_write,
        "outputTokenCount": usage.output,
        "invocationLatency": 12,
        "firstByteLatency": 6,
    }
    if usage.cache_read or usage.cache_write:
        metrics["cacheReadInputTokenCount"] = usage.cache_read
        metrics["cacheWriteInputTokenCount"] = usage.cache_write
    end = {"amazon-bedrock-invocationMetrics": metrics}
    if "messages" in body:
        for event in anthropic.events(answer, model):
            yield event | end if event["type"] == "message_stop" else event
        return
    vendor = model.split(".", maxsplit=1)[0]
    for kind, piece in pieces(answer):
        if kind == "text":
            yield _part(vendor, piece, None, answer)
    yield _part(vendor, "", answer.stop, answer) | end


def _part(vendor: str, text: str, stop: Stop | None, answer: Answer) -> dict[str, Any]:
    match vendor:
        case "anthropic":
            reason = None if stop is None else CLAUDE_2[stop]
            return {"type": "completion", "completion": text, "stop_reason": reason, "stop": None}
        case "meta":
            return {
                "generation": text,
                "prompt_token_count": None,
                "generation_token_count": 1,
                "stop_reason": None if stop is None else STOP_OR_LENGTH[stop],
            }
        case "mistral":
            reason = None if stop is None else STOP_OR_LENGTH[stop]
            return {"outputs": [{"text": text, "stop_reason": reason}]}
        case _:
            return {
                "outputText": text,
                "index": 0,
                "totalOutputTextTokenCount": None if stop is None else answer.usage.output,
                "completionReason": None if stop is None else TITAN[stop],
                "inputTextTokenCount": None if stop is None else answer.usage.input,
            }


def _completions(name: str, reasons: dict[Stop, str]) -> Wire:
    """Return the format of a vendor's completions."""
    return Wire(
        name=f"bedrock-{name}",
        routes=_routes,
        finish_reasons=reasons,
        says={},
    )


def _routes() -> list[Route]:
    return [
        Route("/model/{model}/invoke", _invoke, methods=["POST"]),
        Route("/model/{model}/invoke-with-response-stream", _invoke_stream, methods=["POST"]),
    ]


MESSAGES = Wire(
    name="bedrock-invoke",
    routes=_routes,
    finish_reasons=anthropic.STOP_REASONS,
    says={"response_id": anthropic.RESPONSE_ID},
    counts=frozenset({"cached_tokens", "cache_creation_tokens", "reasoning_tokens"}),
    differs={
        "prompt blocked": {
            "output_text": GUARDRAIL_TEXT,
            "finish_reason": anthropic.STOP_REASONS[Stop.END],
        }
    },
    differs_whole=anthropic.WITHOUT_BROKEN_CALLS,
)
"""Anthropic's Messages by way of Bedrock."""

GUARDED = replace(
    MESSAGES,
    name="bedrock-guarded",
    # LangChain's package says so beside the answer, when it asks for whole ones.
    differs_whole={"prompt blocked": {"finish_reason": "GUARDRAIL_INTERVENED"}},
)
"""The same with a guardrail whose trace the client asks for."""

AMAZON = _completions("amazon", TITAN)
ANTHROPIC = _completions("anthropic", CLAUDE_2)
META = _completions("meta", STOP_OR_LENGTH)
MISTRAL = _completions("mistral", STOP_OR_LENGTH)
