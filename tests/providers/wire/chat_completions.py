"""OpenAI's Chat Completions, with what differs between the providers that speak it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.providers.answers import Answer, Stop, ToolCall, answer_to

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

FINISH_REASONS: Mapping[Stop, str] = {
    Stop.END: "stop",
    Stop.LENGTH: "length",
    Stop.TOOL: "tool_calls",
    Stop.BLOCKED: "content_filter",
}


def openai_usage(answer: Answer) -> dict[str, Any]:
    """Return token counts with their details as OpenAI has them."""
    usage = answer.usage
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": 0},
    }


def plain_usage(answer: Answer) -> dict[str, Any]:
    """Return token counts without details."""
    usage = answer.usage
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total,
    }


def reasoning_content(text: str) -> dict[str, Any]:
    """Return reasoning as most have it: a text beside the content."""
    return {"reasoning_content": text}


def no_reasoning(_text: str) -> dict[str, Any]:
    """Say nothing of the reasoning, as OpenAI's own Chat Completions do."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What differs between the providers that speak Chat Completions.

    Attributes:
        id: The answer's.
        usage: Writes the token counts.
        reasoning: Makes a delta's fields of a piece of reasoning.
        more: More fields of every answer and every chunk.
        refuses: Whether a refusal has a field of its own.
        usage_on_last: Whether a stream's counts are in the chunk with the finish reason; else they
            come in a chunk behind it.
        usage_asked: Whether a stream's counts come only when they are asked for.
        wrap_usage: Where in a stream's chunk the counts are: makes fields of the chunk of them.
        logprobs: Writes the log probabilities of pieces of the text.
        whole_calls: Whether a stream has each tool call in one chunk.
    """

    id: str = "chatcmpl-1"
    usage: Callable[[Answer], dict[str, Any]] = openai_usage
    reasoning: Callable[[str], dict[str, Any]] = no_reasoning
    finish_reasons: Mapping[Stop, str] = field(default_factory=lambda: FINISH_REASONS)
    more: Mapping[str, Any] = field(default_factory=dict)
    refuses: bool = False
    usage_on_last: bool = False
    usage_asked: bool = False
    wrap_usage: Callable[[dict[str, Any]], dict[str, Any]] = lambda usage: {"usage": usage}
    logprobs: Callable[[Answer, tuple[str, ...]], dict[str, Any] | None] = field(
        default_factory=lambda: logprobs
    )
    whole_calls: bool = False

    def reason(self, message: dict[str, Any], text: str) -> dict[str, Any]:
        """Return a whole message with its reasoning: before its text, where both are content."""
        found = self.reasoning(text)
        if isinstance(blocks := found.get("content"), list):
            return {**message, "content": [*blocks, {"type": "text", "text": message["content"]}]}
        return message | found


def chat_completions(
    name: str,
    dialect: Dialect,
    *,
    path: str = "/v1/chat/completions",
    says: Mapping[str, Any] | None = None,
    counts: frozenset[str] = frozenset(),
    rivals: bool = True,
) -> Wire:
    """Return a wire format that is Chat Completions in a dialect.

    Args:
        name: Its name.
        dialect: How it differs.
        path: Where it is spoken.
        says: What a complete answer says beside the model's name and the id.
        counts: See `Wire`.
        rivals: See `Wire`.
    """

    async def endpoint(request: Request) -> Response:
        body = await request.json()
        return respond(body, dialect)

    return Wire(
        name=name,
        routes=lambda: [Route(path, endpoint, methods=["POST"])],
        finish_reasons=dialect.finish_reasons,
        says=_says(dialect, says),
        counts=counts,
        refuses=dialect.refuses,
        rivals=rivals,
    )


def respond(body: dict[str, Any], dialect: Dialect) -> Response:
    """Answer a request, whole or as a stream."""
    answer = answer_to(text_of(body["messages"][-1]["content"]))
    if not dialect.refuses and answer.refusal is not None:
        answer = replace(answer, text=(answer.refusal,), refusal=None)
    if body.get("stream"):
        return server_sent_events(answer, chunks(answer, body, dialect))
    return whole(answer, document(answer, body, dialect))


def document(answer: Answer, body: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Return a whole answer."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.whole_text or None}
    if answer.reasoning:
        message = dialect.reason(message, "".join(answer.reasoning))
    if dialect.refuses:
        message["refusal"] = answer.refusal
    if answer.tool_calls:
        message["tool_calls"] = [tool_call(call) for call in answer.tool_calls]
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": dialect.finish_reasons[answer.stop],
        "logprobs": dialect.logprobs(answer, answer.text) if body.get("logprobs") else None,
    }
    usage = dialect.usage(answer)
    return {**_envelope("chat.completion", dialect), "choices": [choice], "usage": usage}


def chunks(answer: Answer, body: dict[str, Any], dialect: Dialect) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a stream, up to where it is cut."""

    def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None, **more}
        return {**_envelope("chat.completion.chunk", dialect), "choices": [choice]}

    sent = arriving(answer)
    yield chunk({"role": "assistant", "content": ""})
    for piece in sent.reasoning:
        yield chunk(dialect.reasoning(piece))
    for piece in sent.text:
        found = dialect.logprobs(answer, (piece,)) if body.get("logprobs") else None
        yield chunk({"content": piece}, logprobs=found)
    if answer.cut_after is not None:
        return
    if answer.refusal is not None:
        yield chunk({"refusal": answer.refusal})
    for index, call in enumerate(answer.tool_calls):
        parts = [{"index": index, **tool_call(call)}]
        if not dialect.whole_calls:
            parts = list(tool_call_parts(index, call))
        yield from (chunk({"tool_calls": [part]}) for part in parts)
    usage: dict[str, Any] = {}
    asked = (body.get("stream_options") or {}).get("include_usage")
    if asked or not dialect.usage_asked:
        usage = dialect.wrap_usage(dialect.usage(answer))
    last = chunk({}, finish_reason=dialect.finish_reasons[answer.stop])
    yield last | usage if dialect.usage_on_last else last
    if usage and not dialect.usage_on_last:
        yield {**_envelope("chat.completion.chunk", dialect), "choices": [], **usage}


def tool_call(call: ToolCall) -> dict[str, Any]:
    """Return a whole call."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def tool_call_parts(index: int, call: ToolCall) -> Iterator[dict[str, Any]]:
    """Yield a call in three parts: its name, and its arguments in two."""
    function = {"name": call.name, "arguments": ""}
    yield {"index": index, "id": call.id, "type": "function", "function": function}
    half = len(call.arguments) // 2
    for part in (call.arguments[:half], call.arguments[half:]):
        yield {"index": index, "function": {"arguments": part}}


def logprobs(answer: Answer, pieces: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the log probabilities of pieces of the text, each with a rival."""
    if answer.logprobs is None:
        return None
    content = []
    for piece in pieces:
        found = {"token": piece, "logprob": answer.logprobs[piece], "bytes": None}
        rival = {"token": RIVAL, "logprob": RIVAL_LOGPROB, "bytes": None}
        content.append({**found, "top_logprobs": [found, rival]})
    return {"content": content, "refusal": None}


def _envelope(kind: str, dialect: Dialect) -> dict[str, Any]:
    return {
        "id": dialect.id,
        "object": kind,
        "created": 1_780_000_000,
        "model": ANSWERED_BY,
        **dialect.more,
    }


def _says(dialect: Dialect, more: Mapping[str, Any] | None) -> dict[str, Any]:
    said = {"model_name": ANSWERED_BY, **(more or {})}
    return said | {"response_id": dialect.id} if dialect.id else said
