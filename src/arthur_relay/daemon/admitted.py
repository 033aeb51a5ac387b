"""Lets only admitted clients through to a route's handler, with who they are."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from arthur_relay.daemon.auth import Denied
from arthur_relay.daemon.clients import client_of
from arthur_relay.daemon.responses import answer_error
from arthur_relay.settings.variables import DAEMON_PREFIX

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Scope

    from arthur_relay.daemon.auth import Peer, Principal
    from arthur_relay.daemon.current import Current

    Handler = Callable[[Request, Principal], Awaitable[Response]]

logger = logging.getLogger("arthur_relay.daemon")


class AnswersErrors(Protocol):
    """Makes the answer to a request that failed, in the words of one API."""

    def __call__(
        self, status: int, sentence: str, *, retry_after_seconds: int | None = None
    ) -> Response:
        """Return the answer."""
        ...


def admitted(
    current: Current, handler: Handler, answer: AnswersErrors = answer_error
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that hands the requests of admitted clients to a handler.

    Args:
        current: The current access rules.
        handler: Answers a request, given whose it is.
        answer: Answers the others.
    """

    async def checked(request: Request) -> Response:
        given = request.headers.get("authorization") or request.cookies.get("Authorization")
        principal = current.access.admit(peer_of(request), given)
        if isinstance(principal, Denied):
            logger.warning("a client is refused (%d): %s", principal.status, principal.sentence)
            return answer(principal.status, principal.sentence)
        if not take_slot(request.scope):
            return no_slot(answer)
        return await handler(request, principal)

    return checked


def peer_of(request: Request) -> Peer:
    """Return the other end of a request's connection."""
    return client_of(request.scope).peer


def take_slot(scope: Scope, *, for_view: bool = False) -> bool:
    """Take a slot for the connection: until it is closed, or until a view is answered."""
    client = client_of(scope)
    if client.take_slot_for_view() if for_view else client.take_slot():
        return True
    logger.warning(
        "a request is put off: the listener has no free connection slot; raise %sMAX_CONNECTIONS",
        DAEMON_PREFIX,
    )
    return False


def no_slot(answer: AnswersErrors = answer_error) -> Response:
    """Return the answer to a request for which there is no slot."""
    response = answer(503, "too many connections", retry_after_seconds=1)
    response.headers["Connection"] = "close"
    return response
