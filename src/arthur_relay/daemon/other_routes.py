"""Answers what is asked of an API that the daemon does not have, by a sentence that says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from arthur_relay.daemon.responses import answer_json

if TYPE_CHECKING:
    from collections.abc import Iterable

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

FOR_BOTH: Final = (
    "this is an arthur-relay daemon: it takes inferences for Arthur Scope, and traces and feedback"
    " for Arthur Engine; for anything else ask the Engine itself"
)

OF_ENGINE: Final = ("/api/v1/{path:path}", "/api/v2/{path:path}", "/v1/{path:path}")
"""The paths of Arthur Engine's API, and of OpenTelemetry's."""

ALL: Final = ("/api/{path:path}", "/v1/{path:path}")

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def other_routes(paths: Iterable[str], sentence: str) -> list[BaseRoute]:
    """Return the routes of some paths, for a list in which the daemon's own come first."""

    async def answer(request: Request) -> Response:  # noqa: ARG001 - Starlette's
        # Each product's clients find the sentence under another name.
        return answer_json({"error": sentence, "detail": sentence, "arthur_relay": True}, 404)

    return [Route(path, answer, methods=list(_METHODS)) for path in paths]
