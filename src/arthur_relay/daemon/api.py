"""The daemon's web application: the part of Arthur's API that clients need, and the views."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from arthur_relay.daemon.admitted import admitted, no_slot, peer_of, take_slot
from arthur_relay.daemon.auth import Endpoint
from arthur_relay.daemon.browsers import PROBES, is_api
from arthur_relay.daemon.clients import client_of
from arthur_relay.daemon.responses import NOT_ALLOWED, answer_error, answer_json
from arthur_relay.encoding.model import MAX_MODEL_CHARACTERS, is_path_segment
from arthur_relay.errors import safe_traceback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

    from arthur_relay.daemon.auth import Principal
    from arthur_relay.daemon.browsers import Browsers
    from arthur_relay.daemon.current import Current
    from arthur_relay.daemon.intake import Intake
    from arthur_relay.daemon.models import Models

logger = logging.getLogger("arthur_relay.daemon")

PREFIX = "/api/v3"
ORGANIZATION = "arthur-relay"
"""The organisation that clients get. They send it with each request, and it is ignored: the daemon
has its own organisation at Arthur."""

LOGIN_BYTES = 64 * 1024


class Api:
    """The routes of Arthur's API.

    Args:
        current: The current access rules.
        intake: Takes rows in.
        models: Answers requests for models.
    """

    def __init__(self, current: Current, intake: Intake, models: Models) -> None:
        self._current = current
        self._intake = intake
        self._models = models

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        inferences = admitted(self._current, self._inferences)
        return [
            Route(f"{PREFIX}/models/{{model_id}}/inferences", inferences, methods=list(_ROWS)),
            Route(f"{PREFIX}/models/{{model_id}}", admitted(self._current, self._model)),
            Route(f"{PREFIX}/login", self._log_in, methods=["POST"]),
            Route(f"{PREFIX}/users/me", admitted(self._current, self._user)),
            Route(f"{PREFIX}/users/me/auth_info", admitted(self._current, self._auth_info)),
        ]

    async def _inferences(self, request: Request, principal: Principal) -> Response:
        model_id = request.path_params["model_id"]
        if not principal.allows(model_id):
            return _not_allowed()
        if not _may_be_model(model_id):
            return answer_error(404, "no such model")
        if (
            peer_of(request).endpoint is Endpoint.TCP
            and not self._current.access.has_tokens
            and not _is_json(request.headers.get("content-type", ""))
        ):
            # A browser lets a page of any site post text to this machine, but not JSON.
            return answer_error(415, "the Content-Type must be application/json")
        return await self._intake.take(request, model_id)

    async def _model(self, request: Request, principal: Principal) -> Response:
        model_id = request.path_params["model_id"]
        id_type = request.query_params.get("id_type", "id")
        if id_type not in ("id", "partner_model_id"):
            return answer_error(400, "id_type must be id or partner_model_id")
        by_partner_id = id_type == "partner_model_id"
        if not (by_partner_id or principal.allows(model_id)):
            return _not_allowed()  # without asking Arthur, so that nobody learns whether it exists
        if not _may_be_model(model_id):
            return _not_allowed() if principal.is_restricted else answer_error(404, "no such model")
        return await self._models.answer(model_id, by_partner_id=by_partner_id, principal=principal)

    async def _log_in(self, request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LOGIN_BYTES:
                return answer_error(413, "the body is too large")
        try:
            given = msgspec.json.decode(bytes(body), type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return answer_error(400, "the body must be a JSON object")
        login = given.get("login")
        token = self._current.access.log_in(peer_of(request), login, given.get("password"))
        if token is None:
            logger.warning("a login is refused")
            return answer_error(401, "login or password is wrong: they are a token's name and it")
        response = answer_json(_user(login if isinstance(login, str) else "guest"))
        response.set_cookie("Authorization", token, httponly=True, samesite="strict")
        return response

    async def _user(self, request: Request, principal: Principal) -> Response:  # noqa: ARG002 - a handler's
        return answer_json(_user(principal.name))

    async def _auth_info(
        self,
        request: Request,  # noqa: ARG002 - a handler's
        principal: Principal,
    ) -> Response:
        user = _user(principal.name)
        del user["organization_id"]
        return answer_json({"username": principal.name, **user, "organization_ids": [ORGANIZATION]})


_ROWS = ("POST", "PATCH")


def create_app(
    routes: Sequence[BaseRoute],
    browsers: Browsers,
    current: Current,
) -> ASGIApp:
    """Return the application of some routes; its errors are JSON and quote nothing.

    Args:
        routes: The routes.
        browsers: Refuses requests of foreign pages in a browser.
        current: The current access rules.
    """
    app = Starlette(
        routes=list(routes),
        exception_handlers={HTTPException: _on_http_error},
    )

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if sentence := browsers.refusal(scope["path"], Headers(scope=scope)):
                logger.warning("a request is refused: %s", sentence)
                await answer_error(403, sentence)(scope, receive, send)
                return
            if _is_view(scope):
                if refused := current.access.refuse_view(client_of(scope).peer):
                    logger.warning("a client is refused (%d): %s", refused.status, refused.sentence)
                    await answer_error(refused.status, refused.sentence)(scope, receive, send)
                    return
                if not take_slot(scope, for_view=True):
                    await no_slot()(scope, receive, send)
                    return
            await app(scope, receive, send)
        except ClientDisconnect:
            logger.debug("a client went away before its request was whole")
        except Exception as error:  # noqa: BLE001 - its text or its frames might show a row
            logger.error(  # noqa: TRY400 - the same
                "a request failed by an unexpected error: %s", safe_traceback(error)
            )

    return guarded


async def _on_http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's
    assert isinstance(error, HTTPException)
    sentence = {404: "the daemon has no such route", 405: "the route has no such method"}
    response = answer_error(error.status_code, sentence.get(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response


def _is_view(scope: Scope) -> bool:
    """Return whether a request is for a view, which anybody who can connect may ask for."""
    endpoint = client_of(scope).peer.endpoint
    path = scope["path"]
    return endpoint is not Endpoint.TCP and path not in PROBES and not is_api(path)


def _may_be_model(model_id: str) -> bool:
    return len(model_id) <= MAX_MODEL_CHARACTERS and is_path_segment(model_id)


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _not_allowed() -> Response:
    return answer_error(403, NOT_ALLOWED)


def _user(name: str) -> dict[str, Any]:
    return {
        "id": "00000000-0000-4000-8000-000000000000",
        "login": name,
        "email": f"{ORGANIZATION}@localhost",
        "first_name": "arthur-relay",
        "last_name": "daemon",
        "organization_id": ORGANIZATION,
        "roles": [],
    }
