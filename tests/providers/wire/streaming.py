"""Answers on their way: streamed in pieces, whole, and both cut in the middle on purpose."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from . import CutError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from tests.providers.answers import Answer


def streamed(parts: Iterable[bytes | str], media_type: str, **headers: str) -> Response:
    """Send the parts one by one; the iterator raises `CutError` where it is cut."""

    async def body() -> AsyncIterator[bytes | str]:
        for part in parts:
            yield part

    return StreamingResponse(body(), media_type=media_type, headers=headers)


def whole(answer: Answer, document: Mapping[str, Any], **headers: str) -> Response:
    """Send a JSON document, or its first half where the answer is to be cut."""
    if answer.cut_after is None:
        return JSONResponse(document, headers=headers)
    data = json.dumps(document).encode()

    async def half() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        raise CutError

    length = {"content-length": str(len(data))}
    return StreamingResponse(half(), media_type="application/json", headers={**headers, **length})


def pieces(answer: Answer) -> Iterable[tuple[str, str]]:
    """Yield `("reasoning", piece)` and `("text", piece)`; cut as the answer says.

    The refusal is text: for the formats that have no other place for it.
    """
    text = answer.text if answer.refusal is None else (answer.refusal,)
    kinds = [("reasoning", each) for each in answer.reasoning]
    kinds += [("text", each) for each in text]
    for number, piece in enumerate(kinds):
        if number == answer.cut_after:
            raise CutError
        yield piece


def visible(answer: Answer) -> str:
    """Return the text that the format shows: the answer's, or the refusal."""
    return answer.whole_text if answer.refusal is None else answer.refusal


def halves(text: str) -> tuple[str, str]:
    """Return a text in two parts, as arguments are streamed."""
    middle = len(text) // 2
    return text[:middle], text[middle:]
