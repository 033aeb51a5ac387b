"""What all wire formats share: how a format is described, streams of events, cut connections."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.providers.answers import Answer, Stop, error_body

ANSWERED_BY = "answering-model"
"""The model's name in every answer; clients ask for another, so that the two can be told apart."""

RIVAL = "rival"
"""The second candidate of every token, where the log probabilities are asked for."""

RIVAL_LOGPROB = -2.5


class CutError(Exception):
    """Ends an answer without its end; uvicorn closes the connection."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """A provider's wire format.

    Attributes:
        name: Its own, and the first part of its URLs: `/<name>/…`.
        routes: Makes the routes that speak it, without that first part.
        finish_reasons: The provider's word for each reason to stop.
        says: What a complete answer says beside, by the row's fields: `model_name`,
            `response_id`, `service_tier`, `system_fingerprint`, `cost`. Values that no other part
            of an answer has.
        counts: Which details of the token counts it has: `cached_tokens`, `reasoning_tokens`,
            `cache_creation_tokens`.
        refuses: Whether a refusal has a place of its own; else it is the text.
        rivals: Whether log probabilities have a second candidate (`RIVAL`) beside the chosen token.
        differs: By an answer's name, the fields whose right values do not follow from the rest,
            because the provider has a way of its own; None where nothing is to be there.
        differs_whole: The same, of answers that come whole.
        counts_early: Whether a stream tells the counts before its end, so that one that is cut may
            have told them.
    """

    name: str
    routes: Callable[[], list[Route]]
    finish_reasons: Mapping[Stop, str]
    says: Mapping[str, Any] = field(default_factory=lambda: {"model_name": ANSWERED_BY})
    counts: frozenset[str] = frozenset()
    refuses: bool = False
    rivals: bool = True
    differs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    differs_whole: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    counts_early: bool = False


def arriving(answer: Answer) -> Answer:
    """Return what of an answer arrives when its stream is cut: the first pieces."""
    if answer.cut_after is None:
        return answer
    reasoning = answer.reasoning[: answer.cut_after]
    text = answer.text[: max(0, answer.cut_after - len(answer.reasoning))]
    return Answer(reasoning=reasoning, text=text, usage=answer.usage, cut_after=answer.cut_after)


def whole(answer: Answer, document: Any) -> Response:
    """Answer with a document in one piece; with half of it when the connection is to be cut."""
    if answer.status != 200:
        return JSONResponse(error_body(answer.status), status_code=answer.status)
    if answer.cut_after is None:
        return JSONResponse(document)

    async def half() -> AsyncIterator[bytes]:
        body = json.dumps(document).encode()
        yield body[: len(body) // 2]
        raise CutError

    return StreamingResponse(half(), media_type="application/json")


def server_sent_events(
    answer: Answer, events: Iterable[Any], *, end: str = "[DONE]", named: bool = False
) -> Response:
    """Answer with a stream of events.

    Args:
        answer: What is answered; its `cut_after` decides whether the connection is cut behind the
            last event, so give only the events of `arriving(answer)` then.
        events: Each is written as JSON.
        end: The last line's data; empty for none.
        named: Whether an event's `type` is written as its name.
    """
    if answer.status != 200:
        return JSONResponse(error_body(answer.status), status_code=answer.status)

    async def lines() -> AsyncIterator[str]:
        for event in events:
            name = f"event: {event['type']}\n" if named else ""
            yield f"{name}data: {json.dumps(event)}\n\n"
        if answer.cut_after is not None:
            raise CutError
        if end:
            yield f"data: {end}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


def text_of(content: Any) -> str:
    """Return the text of a message's content: a string, or a list of blocks with texts."""
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content or ())
