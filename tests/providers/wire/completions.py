"""OpenAI's Completions, of the models that go on with a text."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.providers.answers import Answer, answer_to

from . import ANSWERED_BY, RIVAL, RIVAL_LOGPROB, Wire, arriving, server_sent_events, whole
from .chat_completions import FINISH_REASONS, openai_usage

_ENVELOPE = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1_780_000_000,
    "model": ANSWERED_BY,
    "system_fingerprint": "fp_4711",
}


async def _respond(request: Request) -> Response:
    body = await request.json()
    prompt = body["prompt"][0] if isinstance(body["prompt"], list) else body["prompt"]
    answer = answer_to(prompt)
    if body.get("stream"):
        return server_sent_events(answer, _chunks(answer, body))
    choice = _choice(answer, answer.text, body, FINISH_REASONS[answer.stop])
    return whole(answer, {**_ENVELOPE, "choices": [choice], "usage": openai_usage(answer)})


def _chunks(answer: Answer, body: dict[str, Any]) -> Any:
    for piece in arriving(answer).text:
        yield {**_ENVELOPE, "choices": [_choice(answer, (piece,), body, None)]}
    if answer.cut_after is not None:
        return
    last = _choice(answer, (), {}, FINISH_REASONS[answer.stop])
    yield {**_ENVELOPE, "choices": [last]}
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**_ENVELOPE, "choices": [], "usage": openai_usage(answer)}


def _choice(
    answer: Answer, pieces: tuple[str, ...], body: dict[str, Any], finish_reason: str | None
) -> dict[str, Any]:
    logprobs = None
    if body.get("logprobs") and answer.logprobs is not None:
        found = [answer.logprobs[piece] for piece in pieces]
        logprobs = {
            "tokens": list(pieces),
            "token_logprobs": found,
            "top_logprobs": [
                {piece: logprob, RIVAL: RIVAL_LOGPROB}
                for piece, logprob in zip(pieces, found, strict=True)
            ],
            "text_offset": [0] * len(pieces),
        }
    text = "".join(pieces)
    return {"index": 0, "text": text, "finish_reason": finish_reason, "logprobs": logprobs}


WIRE = Wire(
    name="openai-completions",
    routes=lambda: [Route("/v1/completions", _respond, methods=["POST"])],
    finish_reasons=FINISH_REASONS,
    says={
        "model_name": ANSWERED_BY,
        "response_id": "cmpl-1",
        "system_fingerprint": "fp_4711",
    },
    counts=frozenset({"cached_tokens", "reasoning_tokens"}),
)
