"""A local provider with OpenAI's API: answers as it is told, and fails as it is told."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.serving import Serving

from . import responses_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType

    from starlette.requests import Request

MODEL = "gpt-test"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


class CutError(Exception):
    """Ends a streamed answer without its end; uvicorn closes the connection."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How one request is answered.

    Attributes:
        text: The answer; None says the prompt back.
        finish_reason: Of a complete answer.
        tool_calls: In the API's form, with `arguments` as a string.
        status: Another one than 200 is an error of the provider.
        cut_after: Pieces of the text before the connection is cut; None cuts nothing.
        hold_after: Pieces before the answer waits for `Provider.release` or the client's leaving.
        hold_at_end: Whether it waits after the finish reason, before the usage.
    """

    text: str | None = None
    finish_reason: str = "stop"
    tool_calls: tuple[dict[str, Any], ...] = ()
    status: int = 200
    cut_after: int | None = None
    hold_after: int | None = None
    hold_at_end: bool = False


def said(prompt: str) -> str:
    """What the provider answers to a prompt unless told otherwise."""
    return f"You said: {prompt}"


def pieces(text: str) -> list[str]:
    """The words of a text as they are streamed; together they are the text."""
    return re.findall(r"\S+\s*|\s+", text)


@dataclass
class Provider:
    """The server, in a thread of its own while inside of the `with` block."""

    script: dict[str, Reply] = field(default_factory=dict)
    default: Reply = field(default_factory=Reply)
    requests: list[dict[str, Any]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._ids = itertools.count()
        self._released = asyncio.Event()
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/responses", self._responses, methods=["POST"]),
        ]
        self._serving = Serving(Starlette(routes=routes), "provider")

    @property
    def url(self) -> str:
        """What `base_url` of a client is set to."""
        return f"{self._serving.url}/v1"

    def __enter__(self) -> Self:
        self._serving.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
        self._serving.__exit__(kind, error, traceback)

    def forget(self) -> None:
        """Be as new, for the next test."""
        self.release()
        self.script.clear()
        self.requests.clear()
        self.default = Reply()
        self.held.clear()

    def release(self) -> None:
        """Let the answers go on that are held."""
        if self._serving.loop is not None:
            self._serving.loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    async def _hold(self) -> None:
        released = self._released
        self.held.set()
        await released.wait()

    async def _hold_request(self, request: Request) -> None:
        """Hold an answer that is not streamed, until the client goes away."""
        hold = asyncio.create_task(self._hold())
        gone = asyncio.create_task(_disconnected(request))
        await asyncio.wait({hold, gone}, return_when=asyncio.FIRST_COMPLETED)
        for task in (hold, gone):
            task.cancel()

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        prompt = _last_text(body["messages"])
        reply = self._reply(body, prompt)
        if reply.status != 200:
            return _failure(reply.status)
        if body.get("stream"):
            return _streamed(self._chat_chunks(body, prompt, reply))
        if reply.hold_after is not None:
            await self._hold_request(request)
        text = said(prompt) if reply.text is None else reply.text
        choices = []
        for index in range(body.get("n") or 1):
            content = text if index == 0 else f"{text} ({index})"
            message: dict[str, Any] = {"role": "assistant", "content": content}
            if reply.tool_calls:
                message |= {"content": None, "tool_calls": list(reply.tool_calls)}
            choices.append(
                {
                    "index": index,
                    "message": message,
                    "finish_reason": reply.finish_reason,
                    "logprobs": _chat_logprobs(body, pieces(content)),
                }
            )
        return JSONResponse(self._envelope("chat.completion", choices) | {"usage": USAGE})

    async def _chat_chunks(
        self, body: dict[str, Any], prompt: str, reply: Reply
    ) -> AsyncIterator[dict[str, Any]]:
        def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None} | more
            return self._envelope("chat.completion.chunk", [choice])

        yield chunk({"role": "assistant", "content": ""})
        text = said(prompt) if reply.text is None else reply.text
        parts = pieces("" if reply.tool_calls else text)
        for number, part in enumerate([*parts, None]):
            if number == reply.cut_after:
                raise CutError
            if number == reply.hold_after:
                await self._hold()
            if part is not None:
                yield chunk({"content": part}, logprobs=_chat_logprobs(body, [part]))
        for index, call in enumerate(reply.tool_calls):
            for delta in _tool_call_deltas(index, call):
                yield chunk({"tool_calls": [delta]})
        yield chunk({}, finish_reason=reply.finish_reason)
        if reply.hold_at_end:
            await self._hold()
        if (body.get("stream_options") or {}).get("include_usage"):
            yield self._envelope("chat.completion.chunk", []) | {"usage": USAGE}

    async def _completions(self, request: Request) -> Response:
        body = await request.json()
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        reply = self._reply(body, prompts[0])
        if reply.status != 200:
            return _failure(reply.status)
        if body.get("stream"):
            return _streamed(self._completion_chunks(body, prompts[0], reply))
        if reply.hold_after is not None:
            await self._hold_request(request)
        choices = []
        for prompt in prompts:
            text = said(prompt) if reply.text is None else reply.text
            for number in range(body.get("n") or 1):
                content = text if number == 0 else f"{text} ({number})"
                choices.append(_completion_choice(body, content, reply.finish_reason))
                choices[-1]["index"] = len(choices) - 1
        return JSONResponse(self._envelope("text_completion", choices) | {"usage": USAGE})

    async def _completion_chunks(
        self, body: dict[str, Any], prompt: str, reply: Reply
    ) -> AsyncIterator[dict[str, Any]]:
        text = said(prompt) if reply.text is None else reply.text
        for number, part in enumerate([*pieces(text), None]):
            if number == reply.cut_after:
                raise CutError
            if number == reply.hold_after:
                await self._hold()
            if part is not None:
                yield self._envelope("text_completion", [_completion_choice(body, part, None)])
        last = {"index": 0, "text": "", "finish_reason": reply.finish_reason, "logprobs": None}
        yield self._envelope("text_completion", [last])
        if reply.hold_at_end:
            await self._hold()

    async def _responses(self, request: Request) -> Response:
        body = await request.json()
        prompt = responses_api.prompt_of(body)
        reply = self._reply(body, prompt)
        if reply.status != 200:
            return _failure(reply.status)
        number = next(self._ids)
        text = said(prompt) if reply.text is None else reply.text
        # Two content blocks, so that nobody takes the first for all of it.
        parts = (text[: len(text) // 2], text[len(text) // 2 :])
        if not body.get("stream"):
            return JSONResponse(responses_api.response(MODEL, number, parts, "completed"))

        async def events() -> AsyncIterator[dict[str, Any]]:
            for event in responses_api.events(MODEL, number, parts, pieces):
                yield event

        return _streamed(events())

    def _reply(self, body: dict[str, Any], prompt: str) -> Reply:
        self.requests.append(body)
        return self.script.get(prompt, self.default)

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"answer-{next(self._ids)}",
            "object": kind,
            "created": 1_780_000_000,
            "model": MODEL,
            "choices": choices,
        }


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _streamed(chunks: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        async for chunk in chunks:
            yield f"data: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


def _failure(status: int) -> JSONResponse:
    error = {"message": f"told to fail with {status}", "type": "test", "code": None, "param": None}
    return JSONResponse({"error": error}, status_code=status, headers={"x-secret": "header-value"})


def _last_text(messages: list[dict[str, Any]]) -> str:
    content = messages[-1].get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


def _tool_call_deltas(index: int, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A call in three chunks: its name, and its arguments in two parts."""
    function = call["function"]
    yield {"index": index, **call, "function": {**function, "arguments": ""}}
    arguments, half = function["arguments"], len(function["arguments"]) // 2
    for part in (arguments[:half], arguments[half:]):
        yield {"index": index, "function": {"arguments": part}}


def _candidates(token: str, count: int) -> dict[str, float]:
    """The token and its rivals, the most likely first."""
    return {token if n == 0 else f"rival{n}": -0.1 - n for n in range(max(1, count))}


def _chat_logprobs(body: dict[str, Any], tokens: list[str]) -> dict[str, Any] | None:
    if not body.get("logprobs"):
        return None
    count = body.get("top_logprobs") or 0
    content = []
    for token in tokens:
        found = [
            {"token": name, "logprob": logprob, "bytes": None}
            for name, logprob in _candidates(token, count).items()
        ]
        content.append({**found[0], "top_logprobs": found if count else []})
    return {"content": content, "refusal": None}


def _completion_choice(
    body: dict[str, Any], text: str, finish_reason: str | None
) -> dict[str, Any]:
    logprobs = None
    if count := body.get("logprobs"):
        tops = [_candidates(token, count) for token in pieces(text)]
        logprobs = {
            "tokens": pieces(text),
            "token_logprobs": [-0.1] * len(tops),
            "top_logprobs": tops,
            "text_offset": [0] * len(tops),
        }
    return {"index": 0, "text": text, "finish_reason": finish_reason, "logprobs": logprobs}
