"""Amazon Bedrock's runtime: Converse and ConverseStream; InvokeModel is in `bedrock_invoke`."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from tests.providers.answers import Answer, Stop, answer_to

from . import Wire, aws_events
from .anthropic import WITHOUT_BROKEN_CALLS
from .bedrock_invoke import BLOCKED, failure
from .streaming import halves, pieces, streamed, visible, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

STOP_REASONS = {
    Stop.END: "end_turn",
    Stop.LENGTH: "max_tokens",
    Stop.TOOL: "tool_use",
    Stop.BLOCKED: "guardrail_intervened",
}

SERVICE_TIER = "priority"


def document(answer: Answer) -> dict[str, Any]:
    """Return a whole answer of Converse."""
    content: list[dict[str, Any]] = []
    if answer.reasoning:
        text = {"text": "".join(answer.reasoning), "signature": "c2lnbmF0dXJl"}
        content.append({"reasoningContent": {"reasoningText": text}})
    if text := BLOCKED if answer.prompt_blocked else visible(answer):
        content.append({"text": text})
    for call in answer.tool_calls:
        use = {"toolUseId": call.id, "name": call.name, "input": _parsed(call.arguments)}
        content.append({"toolUse": use})
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": STOP_REASONS[answer.stop],
        "usage": _usage(answer),
        "metrics": {"latencyMs": 12},
        "serviceTier": {"type": SERVICE_TIER},
        **_more_fields(answer),
    }


def events(answer: Answer) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events of ConverseStream, by name."""
    yield "messageStart", {"role": "assistant"}
    index = itertools.count()
    for kind, group in itertools.groupby(_pieces(answer), key=lambda piece: piece[0]):
        number = next(index)
        for _, piece in group:
            delta: dict[str, Any] = {"text": piece}
            if kind == "reasoning":
                delta = {"reasoningContent": {"text": piece}}
            yield "contentBlockDelta", {"delta": delta, "contentBlockIndex": number}
        if kind == "reasoning":
            delta = {"reasoningContent": {"signature": "c2lnbmF0dXJl"}}
            yield "contentBlockDelta", {"delta": delta, "contentBlockIndex": number}
        yield "contentBlockStop", {"contentBlockIndex": number}
    for call in answer.tool_calls:
        number = next(index)
        start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
        yield "contentBlockStart", {"start": start, "contentBlockIndex": number}
        for part in halves(call.arguments):
            delta = {"toolUse": {"input": part}}
            yield "contentBlockDelta", {"delta": delta, "contentBlockIndex": number}
        yield "contentBlockStop", {"contentBlockIndex": number}
    yield "messageStop", {"stopReason": STOP_REASONS[answer.stop], **_more_fields(answer)}
    yield (
        "metadata",
        {
            "usage": _usage(answer),
            "metrics": {"latencyMs": 12},
            "serviceTier": {"type": SERVICE_TIER},
        },
    )


async def _converse(request: Request) -> Response:
    answer = await _answer(request)
    if answer.status != 200:
        return failure(answer.status)
    return whole(answer, document(answer))


async def _converse_stream(request: Request) -> Response:
    answer = await _answer(request)
    if answer.status != 200:
        return failure(answer.status)
    messages = (aws_events.event(kind, payload) for kind, payload in events(answer))
    return streamed(messages, aws_events.MEDIA_TYPE)


async def _answer(request: Request) -> Answer:
    texts = []
    for block in (await request.json())["messages"][-1]["content"]:
        texts.append(block.get("text", ""))
        for inner in block.get("toolResult", {}).get("content", ()):
            texts.append(inner.get("text", ""))
    return answer_to("".join(texts))


def _pieces(answer: Answer) -> Iterator[tuple[str, str]]:
    if answer.prompt_blocked:
        yield "text", BLOCKED
    yield from pieces(answer)


def _parsed(arguments: str) -> Any:
    """Return arguments as the whole format has them: parsed, so that broken ones are lost."""
    try:
        return json.loads(arguments)
    except ValueError:
        return {}


def _more_fields(answer: Answer) -> dict[str, Any]:
    """Return the model's own usage, which Converse hands over when it is asked for `/usage`."""
    if not answer.usage.reasoning:
        return {}
    details = {"thinking_tokens": answer.usage.reasoning}
    return {"additionalModelResponseFields": {"usage": {"output_tokens_details": details}}}


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "inputTokens": usage.input - usage.cache_read - usage.cache_write,
        "outputTokens": usage.output,
        "totalTokens": usage.total,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write,
    }


WIRE = Wire(
    name="bedrock-converse",
    routes=lambda: [
        Route("/model/{model}/converse", _converse, methods=["POST"]),
        Route("/model/{model}/converse-stream", _converse_stream, methods=["POST"]),
    ],
    finish_reasons=STOP_REASONS,
    says={"service_tier": SERVICE_TIER},
    counts=frozenset({"cached_tokens", "cache_creation_tokens", "reasoning_tokens"}),
    differs={"prompt blocked": {"output_text": BLOCKED}},
    differs_whole=WITHOUT_BROKEN_CALLS,
)
