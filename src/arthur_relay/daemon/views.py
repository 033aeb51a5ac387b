"""What can be seen of the daemon: whether it lives, and whether it takes rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from arthur_relay.daemon.answers import answer_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from arthur_relay.daemon.state import DaemonState


def probe_routes(state: DaemonState) -> list[BaseRoute]:
    """Return the routes of the probes, which are on every door and ask for no token."""

    def answer(found: tuple[bool, str]) -> Response:
        good, sentence = found
        body = {"status": "ok" if good else "unavailable", "detail": sentence}
        return answer_json(body, 200 if good else 503)

    async def healthz(request: Request) -> Response:  # noqa: ARG001 - Starlette's
        return answer(state.liveness())

    async def readyz(request: Request) -> Response:  # noqa: ARG001 - Starlette's
        return answer(state.readiness())

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def view_routes(state: DaemonState) -> list[BaseRoute]:  # noqa: ARG001 - for the views to come
    """Return the other views' routes, which are on the socket and on the views' own port only."""
    return []
