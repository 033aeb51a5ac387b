"""Answers: how the API and the page write and read JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from arthur_relay.sandbox.gate import is_engines

if TYPE_CHECKING:
    from starlette.requests import Request


def answer_json(content: object, status: int = 200) -> Response:
    """A JSON answer. It is ASCII, because texts may hold what UTF-8 can't: lone surrogates.

    Args:
        content: What `json.dumps` takes.
        status: The HTTP status.
    """
    return Response(json.dumps(content), status, media_type="application/json")


async def answer_error(request: Request, error: Exception) -> Response:
    """The answer to a request that ended in an HTTPException, in the words of the API asked."""
    assert isinstance(error, HTTPException)
    key = "detail" if is_engines(request.url.path) else "error"
    return answer_json({key: error.detail}, error.status_code)


async def read_json_object(request: Request) -> dict[str, Any]:
    """A request's body, which must be a JSON object.

    Raises:
        HTTPException: 400, when it is not.
    """
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return given
