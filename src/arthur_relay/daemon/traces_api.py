"""The routes of Arthur Engine's API that clients need: spans, feedback, and questions for tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.routing import Route

from arthur_relay.daemon.admitted import admitted
from arthur_relay.daemon.engine_answers import TASK_NOT_ALLOWED, answer_problem, span_list
from arthur_relay.daemon.refusals import RefusedError
from arthur_relay.daemon.request_bodies import RequestBodies
from arthur_relay.daemon.responses import answer_json
from arthur_relay.daemon.tasks import NO_TASK, SeveralTasksError
from arthur_relay.destinations.engine.task import is_task_id
from arthur_relay.encoding.model import MAX_MODEL_CHARACTERS
from arthur_relay.errors import CredentialsError, UnreachableError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from arthur_relay.daemon.admitted import Handler
    from arthur_relay.daemon.auth import Principal
    from arthur_relay.daemon.current import Current
    from arthur_relay.daemon.traces_intake import TracesIntake

TRACES: Final = "/api/v1/traces"
OTLP_TRACES: Final = "/v1/traces"
"""Where OpenTelemetry's exporters send to, when they are given an address alone."""
TASKS: Final = "/api/v2/tasks"

SPANS_PER_QUESTION: Final = 5000
QUESTION_BYTES: Final = 64 * 1024


class TracesApi:
    """The routes of Arthur Engine's API.

    Args:
        current: The current access rules.
        intake: Takes spans and feedback in.
    """

    def __init__(self, current: Current, intake: TracesIntake) -> None:
        self._current = current
        self._intake = intake
        self._tasks = intake.tasks

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/health", self._health),
            self._route(TRACES, self._intake.take, "POST"),
            self._route(OTLP_TRACES, self._intake.take, "POST"),
            self._route(f"{TRACES}/spans", self._spans, "GET"),
            self._route(f"{TRACES}/{{trace_id}}/annotations", self._intake.take_feedback, "POST"),
            self._route(f"{TASKS}/search", self._search, "POST"),
            self._route(f"{TASKS}/{{task_id}}", self._task, "GET"),
        ]

    def _route(self, path: str, handler: Handler, method: str) -> Route:
        return Route(path, admitted(self._current, handler, answer_problem), methods=[method])

    async def _health(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's
        return answer_json({"message": "ok"})

    async def _spans(self, request: Request, principal: Principal) -> Response:
        """Return which spans were taken lately, for a client that got no answer."""
        span_ids = request.query_params.getlist("span_ids")
        if not span_ids or len(span_ids) > SPANS_PER_QUESTION:
            return answer_problem(400, f"give 1 to {SPANS_PER_QUESTION} span_ids")
        if request.query_params.get("page", "0") != "0":
            return answer_json(span_list([]))
        known = self._intake.known
        found = [
            row_id
            for row_id in known.with_span_ids(span_ids)
            if self._tasks.allows(principal, known.task_of(row_id) or "")
        ]
        return answer_json(span_list(found))

    async def _task(self, request: Request, principal: Principal) -> Response:
        task_id = request.path_params["task_id"]
        if not is_task_id(task_id):
            return answer_problem(400, "task_id must be a UUID")
        if not self._tasks.allows(principal, task_id):
            return answer_problem(403, TASK_NOT_ALLOWED)
        if not await self._tasks.exists(task_id):
            return answer_problem(404, NO_TASK)
        return answer_json({"id": task_id})

    async def _search(self, request: Request, principal: Principal) -> Response:
        with RequestBodies(self._current, self._intake.requests.counts).reader() as reader:
            try:
                name = _name(await reader.read(request))
            except RefusedError as error:
                wait = error.retry_after_seconds
                return answer_problem(error.status, str(error), retry_after_seconds=wait)
        if name is None or len(name) > MAX_MODEL_CHARACTERS:
            return answer_problem(400, "give the task's name as task_name")
        if not self._tasks.allows(principal, name):
            return answer_problem(403, TASK_NOT_ALLOWED)
        try:
            task_id = await self._tasks.id_of(name)
        except SeveralTasksError:
            return answer_problem(
                400, "Arthur Engine has several tasks of this name: give the id of one"
            )
        except (UnreachableError, CredentialsError):
            return answer_problem(
                503, "the Engine can't be asked for the task now", retry_after_seconds=5
            )
        found: list[dict[str, Any]] = [] if task_id is None else [{"id": task_id, "name": name}]
        if request.query_params.get("page", "0") != "0":
            found = []
        return answer_json({"tasks": found, "count": len(found)})


def _name(body: bytes) -> str | None:
    """Return the name in a search for a task, or None."""
    if len(body) > QUESTION_BYTES:
        return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    found = document.get("task_name") if isinstance(document, dict) else None
    return found if isinstance(found, str) and found.strip() else None
