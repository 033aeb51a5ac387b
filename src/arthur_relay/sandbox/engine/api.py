"""The Engine's routes: traces in OTLP, spans, tasks, annotations, health."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from arthur_relay.sandbox.answers import answer_json, read_json_object
from arthur_relay.sandbox.engine.core import BrokenStatementError
from arthur_relay.sandbox.engine.keys import Permission, is_allowed, role_of
from arthur_relay.sandbox.engine.spans import NoLibraryError, NotProtobufError
from arthur_relay.sandbox.engine.views import full_span_view, span_view
from arthur_relay.sandbox.gate import ROW_FAULTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from arthur_relay.sandbox.engine.core import EngineCore
    from arthur_relay.sandbox.engine.store import Task

    Handler = Callable[[Request], Awaitable[Response]]

MOST_PER_PAGE: Final = 5000


def engine_routes(core: EngineCore) -> list[Route]:
    """Return the Engine's routes."""
    api = _Api(core)
    traces, tasks = "/api/v1/traces", "/api/v2/tasks"
    paths: list[tuple[str, str, Permission, Handler]] = [
        ("POST", traces, Permission.WRITE_TRACES, api.add_spans),
        ("GET", f"{traces}/spans", Permission.READ_TRACES, api.spans),
        ("GET", f"{traces}/spans/{{span_id}}", Permission.READ_TRACES, api.span),
        ("GET", f"{traces}/{{trace_id}}", Permission.READ_TRACES, api.trace),
        ("POST", f"{traces}/{{trace_id}}/annotations", Permission.ANNOTATE, api.annotate),
        ("POST", f"{tasks}/search", Permission.READ_TASKS, api.search),
        ("GET", f"{tasks}/{{task_id}}", Permission.READ_TASKS, api.task),
        ("POST", tasks, Permission.WRITE_TASKS, api.add_task),
    ]
    return [
        Route("/health", api.health, methods=["GET"]),
        *(
            Route(path, api.permitted(permission, handler), methods=[method])
            for method, path, permission, handler in paths
        ),
    ]


class _Api:
    """The handlers. They raise HTTPException for all but success."""

    def __init__(self, core: EngineCore) -> None:
        self._core = core

    def permitted(self, permission: Permission, handler: Handler) -> Handler:
        """Return a handler that answers only those whose role may do it."""

        async def checked(request: Request) -> Response:
            role = role_of(self._core.keys, request.headers.get("Authorization"))
            if role is None:
                raise HTTPException(401, "Not authenticated")
            if not is_allowed(role, permission):
                raise HTTPException(403, f"The role {role} may not {permission.value}.")
            return await handler(request)

        return checked

    async def health(self, request: Request) -> Response:  # noqa: ARG002  # Starlette's signature
        return answer_json({"message": "ok", "build_version": "sandbox"})

    async def add_spans(self, request: Request) -> Response:
        body = await request.body()
        limit = self._core.max_body_bytes
        if limit is not None and len(body) > limit:
            raise HTTPException(413, f"the body has {len(body)} bytes; {limit} are allowed")
        faults = request.scope["state"][ROW_FAULTS]
        try:
            answer = await run_in_threadpool(self._core.add_spans, body, faults)
        except NotProtobufError as error:
            raise HTTPException(400, str(error)) from error
        except BrokenStatementError as error:
            raise HTTPException(500, str(error)) from error
        except NoLibraryError as error:
            raise HTTPException(501, str(error)) from error
        status = {"success": 200, "partial_success": 206}.get(answer["status"], 422)
        return answer_json(answer, status)

    async def spans(self, request: Request) -> Response:
        query = request.query_params
        task_ids = set(query.getlist("task_ids"))
        if not task_ids:
            raise HTTPException(400, "task_ids: Field required")
        page, size = _page(request)
        store = self._core.store
        if span_ids := query.getlist("span_ids"):
            found = await run_in_threadpool(store.with_ids, span_ids, task_ids)
        else:
            found = await run_in_threadpool(store.in_tasks, task_ids)
        shown = found[::-1][page * size : (page + 1) * size]
        return answer_json({"count": len(found), "spans": [span_view(each) for each in shown]})

    async def span(self, request: Request) -> Response:
        span_id = request.path_params["span_id"]
        tasks = {task.id for task in self._core.store.tasks()}
        found = await run_in_threadpool(self._core.store.with_ids, [span_id], tasks)
        if not found:
            raise HTTPException(404, f"Span {span_id} not found")
        return answer_json(full_span_view(found[-1]))

    async def trace(self, request: Request) -> Response:
        trace_id = request.path_params["trace_id"]
        found = await run_in_threadpool(self._core.trace, trace_id)
        if found is None:
            raise HTTPException(404, f"Trace {trace_id} not found")
        return answer_json(found)

    async def annotate(self, request: Request) -> Response:
        given = await read_json_object(request)
        score, text = given.get("annotation_score"), given.get("annotation_description")
        if isinstance(score, bool) or score not in (0, 1):
            raise HTTPException(400, "annotation_score must be 0 or 1")
        if text is not None and (not isinstance(text, str) or "\0" in text):
            raise HTTPException(400, "annotation_description must be a text without NUL")
        trace_id = request.path_params["trace_id"]
        found = await run_in_threadpool(self._core.store.annotate, trace_id, int(score), text)
        if found is None:
            raise HTTPException(404, f"Trace {trace_id} not found")
        self._core.journal.changes.advance()
        return answer_json(found)

    async def task(self, request: Request) -> Response:
        try:
            task_id = str(uuid.UUID(request.path_params["task_id"]))
        except ValueError:
            raise HTTPException(400, "task_id: Input should be a valid UUID") from None
        found = self._core.store.task(task_id)
        if found is None:
            raise HTTPException(404, f"Task {task_id} not found.")
        return answer_json(_task_view(found))

    async def search(self, request: Request) -> Response:
        given = await read_json_object(request)
        name, ids = given.get("task_name"), given.get("task_ids")
        found = [
            task
            for task in self._core.store.tasks()
            if (name is None or str(name).lower() in task.name.lower())
            and (not ids or task.id in ids)
        ]
        page, size = _page(request)
        shown = found[page * size : (page + 1) * size]
        return answer_json({"tasks": [_task_view(each) for each in shown], "count": len(found)})

    async def add_task(self, request: Request) -> Response:
        given = await read_json_object(request)
        name = given.get("name")
        if not isinstance(name, str) or not name.strip():
            raise HTTPException(400, "Task names cannot contain only white space characters")
        return answer_json(_task_view(self._core.store.add_task(name)))


def _page(request: Request) -> tuple[int, int]:
    """Return the number of the page that is asked for, from 0 on, and its size."""
    found = []
    for name, usual in (("page", 0), ("page_size", 10)):
        text = request.query_params.get(name, str(usual))
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise HTTPException(400, f"{name}: Input should be a valid integer")
        found.append(int(text))
    if not 1 <= found[1] <= MOST_PER_PAGE:
        raise HTTPException(400, f"page_size must be 1 to {MOST_PER_PAGE}")
    return found[0], found[1]


def _task_view(task: Task) -> dict[str, Any]:
    milliseconds = round(task.created_at * 1000)
    return {
        "id": task.id,
        "name": task.name,
        "created_at": milliseconds,
        "updated_at": milliseconds,
        "is_agentic": True,
        "rules": [],
    }
