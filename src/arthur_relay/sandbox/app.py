"""The app: Arthur's REST API v3 and the Engine's, as far as clients that send need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import Route as Path

from arthur_relay.http_server.web_origins import foreign_host
from arthur_relay.sandbox.answers import answer_error, answer_json, read_json_object
from arthur_relay.sandbox.core import NotRowsError
from arthur_relay.sandbox.engine.api import engine_routes
from arthur_relay.sandbox.gate import PREFIX, ROW_FAULTS, Gate
from arthur_relay.sandbox.models import InvalidModelError
from arthur_relay.sandbox.page import page_routes
from arthur_relay.sandbox.store import ModelExistsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from arthur_relay.sandbox.core import Core
    from arthur_relay.sandbox.ticks import Ticks

    Handler = Callable[[Request], Awaitable[Response]]


def build_app(core: Core, stopping: Ticks) -> ASGIApp:
    """The whole ASGI application: the API, the page, and the faults around them.

    Args:
        core: The sandbox's parts.
        stopping: Ticks once when the server stops.
    """
    api = _Api(core)
    paths: list[tuple[str, str, Handler]] = [
        ("GET", "/users/me", api.user),
        ("GET", "/users/me/auth_info", api.auth_info),
        ("GET", "/models", api.models),
        ("POST", "/models", api.add_model),
        ("GET", "/models/{model_id}", api.model),
        ("POST", "/models/{model_id}/inferences", api.add_inferences),
        ("PATCH", "/models/{model_id}/inferences", api.add_ground_truth),
        ("GET", "/models/{model_id}/inferences/query/{inference_id:path}", api.inference),
    ]
    app = Starlette(
        routes=[
            Path(f"{PREFIX}/login", api.log_in, methods=["POST"]),
            *(
                Path(f"{PREFIX}{path}", api.authenticated(handler), methods=[method])
                for method, path, handler in paths
            ),
            *engine_routes(core.engine),
            *page_routes(core, stopping),
        ],
        exception_handlers={HTTPException: answer_error},
    )
    gate = Gate(app, faults=core.faults, journal=core.journal, stopping=stopping)
    return _without_other_sites(gate) if core.loopback_only else gate


def _without_other_sites(app: ASGIApp) -> ASGIApp:
    """Return an application that refuses what was asked for by a foreign name.

    A site that a browser shows can point its own name at the loopback address (DNS rebinding), and
    would then read the prompts, and send others.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if foreign_host(Headers(scope=scope).get("host", "")):
            sentence = "open the sandbox by its IP address or as localhost"
            await answer_json({"error": sentence}, 403)(scope, receive, send)
            return
        await app(scope, receive, send)

    return checked


class _Api:
    """The API's routes. They raise HTTPException for all but success."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def authenticated(self, handler: Handler) -> Handler:
        """A handler that answers only who may call it."""

        async def checked(request: Request) -> Response:
            given = request.headers.get("Authorization") or request.cookies.get("Authorization")
            if not self._core.auth.allows(given):
                raise HTTPException(401, "the API key or token is unknown or expired")
            organization_id = request.headers.get("Arthur-Organization-ID")
            if not self._core.auth.allows_organization(organization_id):
                raise HTTPException(403, "you do not belong to this organization")
            return await handler(request)

        return checked

    async def log_in(self, request: Request) -> Response:
        given = await read_json_object(request)
        token = self._core.auth.log_in(given.get("login"), given.get("password"))
        if token is None:
            raise HTTPException(401, "login or password is wrong")
        self._core.journal.count_login()
        response = answer_json(self._core.auth.user())
        response.set_cookie("Authorization", token, httponly=True, samesite="strict")
        return response

    async def user(self, request: Request) -> Response:  # noqa: ARG002  # Starlette's signature
        if self._core.auth.outside:
            raise HTTPException(403, "you come from an outside identity provider")
        return answer_json(self._core.auth.user())

    async def auth_info(self, request: Request) -> Response:  # noqa: ARG002  # Starlette's
        return answer_json(self._core.auth.auth_info())

    async def models(self, request: Request) -> Response:  # noqa: ARG002  # Starlette's
        models = await run_in_threadpool(self._core.store.models)
        page = {"page": 1, "page_size": len(models), "total_pages": 1, "total_count": len(models)}
        return answer_json({"data": models, **page})

    async def add_model(self, request: Request) -> Response:
        given = await read_json_object(request)
        try:
            model = await run_in_threadpool(self._core.add_model, given)
        except InvalidModelError as error:
            raise HTTPException(400, str(error)) from error
        except ModelExistsError as error:
            raise HTTPException(409, str(error)) from error
        return answer_json(model, 201)

    async def model(self, request: Request) -> Response:
        return answer_json(await self._model(request))

    async def add_inferences(self, request: Request) -> Response:
        return await self._add_rows(request, self._core.add_inferences)

    async def add_ground_truth(self, request: Request) -> Response:
        return await self._add_rows(request, self._core.add_ground_truth)

    async def inference(self, request: Request) -> Response:
        model = await self._model(request)
        found = await run_in_threadpool(
            self._core.store.inference, model["id"], request.path_params["inference_id"]
        )
        if found is None:
            raise HTTPException(404, "no inference has this partner_inference_id")
        return answer_json(found.row)

    async def _add_rows(self, request: Request, add: Callable[..., dict[str, Any]]) -> Response:
        model = await self._model(request)
        body = await request.body()
        limit = self._core.max_body_bytes
        if limit is not None and len(body) > limit:
            raise HTTPException(413, f"the body has {len(body)} bytes; {limit} are allowed")
        try:
            answer = await run_in_threadpool(add, model, body, request.scope["state"][ROW_FAULTS])
        except NotRowsError as error:
            raise HTTPException(400, str(error)) from error
        return answer_json(answer, 207)

    async def _model(self, request: Request) -> dict[str, Any]:
        id_type = request.query_params.get("id_type", "id")
        if id_type not in {"id", "partner_model_id"}:
            raise HTTPException(400, "id_type must be id or partner_model_id")
        model = await run_in_threadpool(
            self._core.store.model,
            request.path_params["model_id"],
            by_partner_id=id_type == "partner_model_id",
        )
        if model is None:
            raise HTTPException(404, "no such model")
        return model
