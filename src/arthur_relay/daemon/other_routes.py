"""Answers what is asked of an API that the daemon does not have, by a sentence that says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from arthur_relay.daemon.responses import answer_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

FOR_SCOPE: Final = (
    "this is an arthur-relay daemon that delivers to Arthur Scope: it takes inferences, and no"
    " traces (for Arthur Engine, start one with ARTHUR_BASE_URL)"
)
FOR_ENGINE: Final = (
    "this is an arthur-relay daemon that delivers to Arthur Engine: it takes traces and feedback;"
    " for anything else ask the Engine itself"
)

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def other_routes(sentence: str) -> list[BaseRoute]:
    """Return the routes of all paths of an API; to be put behind the daemon's own."""

    async def answer(request: Request) -> Response:  # noqa: ARG001 - Starlette's
        # Each product's clients find the sentence under another name.
        return answer_json({"error": sentence, "detail": sentence, "arthur_relay": True}, 404)

    paths = ("/api/{path:path}", "/v1/{path:path}")
    return [Route(path, answer, methods=list(_METHODS)) for path in paths]
