"""Amazon Bedrock's runtime: Converse and ConverseStream; InvokeModel is in `bedrock_invoke`."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from tests.providers.answers import GUARDRAIL_TEXT, Answer, Stop, answer_to

from . import Wire, aws_events
from .anthropic import SIGNATURE, WITHOUT_BROKEN_CALLS
from .bedrock_invoke import failure
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


def document(answer: Answer, *, with_usage: bool) -> dict[str, Any]:
    """Return a whole answer of Converse; with the model's own usage where it was asked for."""
    content: list[dict[str, Any]] = []
    if answer.reasoning:
        signed = {"text": "".join(answer.reasoning), "signature": SIGNATURE}
        content.append({"reasoningContent": {"reasoningText": signed}})
    if text := GUARDRAIL_TEXT if answer.prompt_blocked else visible(answer):
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
        **(_more_fields(answer) if with_usage else {}),
    }


def events(answer: Answer, *, with_usage: bool) -> Iterator[tuple[str, dict[str, Any]]]:
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
            delta = {"reasoningContent": {"signature": SIGNATURE}}
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
    more = _more_fields(answer) if with_usage else {}
    yield "messageStop", {"stopReason": STOP_REASONS[answer.stop], **more}
    yield (
        "metadata",
        {
            "usage": _usage(answer),
            "metrics": {"latencyMs": 12},
            "serviceTier": {"type": SERVICE_TIER},
        },
    )


async def _converse(request: Request) -> Response:
    body = await request.json()
    answer = _answer(body)
    if answer.status != 200:
        return failure(answer.status)
    return whole(answer, document(answer, with_usage=_asks_for_usage(body)))


async def _converse_stream(request: Request) -> Response:
    body = await request.json()
    answer = _answer(body)
    if answer.status != 200:
        return failure(answer.status)
    found = events(answer, with_usage=_asks_for_usage(body))
    messages = (aws_events.event(kind, payload) for kind, payload in found)
    return streamed(messages, aws_events.MEDIA_TYPE)


def _asks_for_usage(body: dict[str, Any]) -> bool:
    return "/usage" in body.get("additionalModelResponseFieldPaths", ())


def _answer(body: dict[str, Any]) -> Answer:
    texts = []
    for block in body["messages"][-1]["content"]:
        texts.append(block.get("text", ""))
        results = block.get("toolResult", {}).get("content", ())
        texts += [inner.get("text", "") for inner in results]
    return answer_to("".join(texts))


def _pieces(answer: Answer) -> Iterator[tuple[str, str]]:
    if answer.prompt_blocked:
        yield "text", GUARDRAIL_TEXT
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
    differs={"prompt blocked": {"output_text": GUARDRAIL_TEXT}},
    differs_whole=WITHOUT_BROKEN_CALLS,
)
