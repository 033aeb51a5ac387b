"""The page: what a person sees of the sandbox, the JSON that feeds it, and the faults' switch."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route

from arthur_relay.sandbox.answers import answer_json, read_json_object

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.datastructures import QueryParams
    from starlette.requests import Request
    from starlette.responses import Response

    from arthur_relay.sandbox.core import Core
    from arthur_relay.sandbox.ticks import Ticks

USUAL_PAGE_ROWS: Final = 50
MAX_PAGE_ROWS: Final = 200
# Under load the page hears of changes this often, not once a request.
_PAUSE_SECONDS: Final = 0.1
# So often an idle stream says something, so that a browser and what is in between keep it open.
_HEARTBEAT_SECONDS: Final = 15.0


def page_routes(core: Core, stopping: Ticks) -> list[Route]:
    """The routes outside of the API: they ask for no credential.

    Args:
        core: The sandbox's parts.
        stopping: Ticks once when the server stops; event streams end then.
    """
    page = _Page(core, stopping)
    paths: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "/", page.html),
        ("GET", "/sandbox/state", page.state),
        ("GET", "/sandbox/events", page.events),
        ("GET", "/sandbox/inferences", page.inferences),
        ("GET", "/sandbox/inferences/{seq:int}", page.inference),
        ("GET", "/sandbox/traces", page.traces),
        ("GET", "/sandbox/traces/{trace_id}", page.trace),
        ("GET", "/sandbox/faults", page.faults),
        ("POST", "/sandbox/faults", page.set_fault),
        ("DELETE", "/sandbox/faults", page.reset_faults),
    ]
    return [Route(path, handler, methods=[method]) for method, path, handler in paths]


class _Page:
    """The handlers. They raise HTTPException for all but success."""

    def __init__(self, core: Core, stopping: Ticks) -> None:
        self._core = core
        self._stopping = stopping
        self._html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
        script = re.findall(r"<script>(.*?)</script>", self._html, re.DOTALL)[0]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        # Should a text ever be taken for markup, the browser still runs nothing and loads nothing.
        self._policy = (
            "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; img-src data:; "
            f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )

    async def html(self, request: Request) -> Response:  # noqa: ARG002  # Starlette's signature
        headers = {
            "Content-Security-Policy": self._policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return HTMLResponse(self._html, headers=headers)

    async def state(self, request: Request) -> Response:  # noqa: ARG002  # Starlette's signature
        return answer_json(await run_in_threadpool(self._core.state))

    async def events(self, request: Request) -> Response:  # noqa: ARG002  # Starlette's signature
        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers=headers)

    async def inferences(self, request: Request) -> Response:
        query = request.query_params
        before, limit = _part(query)
        page = await run_in_threadpool(
            self._core.page,
            model_id=query.get("model_id") or None,
            search=query.get("q", ""),
            before=before,
            limit=limit,
        )
        return answer_json(page)

    async def inference(self, request: Request) -> Response:
        found = await run_in_threadpool(self._core.store.inference_at, request.path_params["seq"])
        if found is None:
            raise HTTPException(404, "no such inference")
        return answer_json(found.row)

    async def traces(self, request: Request) -> Response:
        before, limit = _part(request.query_params)
        page = await run_in_threadpool(self._core.engine.traces, before=before, limit=limit)
        return answer_json(page)

    async def trace(self, request: Request) -> Response:
        found = await run_in_threadpool(self._core.engine.trace, request.path_params["trace_id"])
        if found is None:
            raise HTTPException(404, "no such trace")
        return answer_json(found)

    async def faults(self, request: Request) -> Response:  # noqa: ARG002  # Starlette's signature
        return answer_json([fault.describe() for fault in self._core.faults.active])

    async def set_fault(self, request: Request) -> Response:
        # Another site's page may post plain text without asking, but not JSON.
        if request.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            raise HTTPException(415, "the Content-Type must be application/json")
        options: dict[str, Any] = await read_json_object(request)
        kind = options.pop("kind", None)
        try:
            self._core.faults.set(kind, **options)
        except (TypeError, ValueError) as error:
            raise HTTPException(400, str(error)) from error
        return await self.faults(request)

    async def reset_faults(self, request: Request) -> Response:
        self._core.faults.reset()
        return await self.faults(request)

    async def _stream(self) -> AsyncIterator[str]:
        changes = self._core.journal.changes
        while self._stopping.count == 0:
            seen = changes.count
            state = await run_in_threadpool(self._core.state)
            yield f"data: {json.dumps(state)}\n\n"
            await _first(changes.wait_past(seen), self._stopping.wait_past(0), _HEARTBEAT_SECONDS)
            await _first(self._stopping.wait_past(0), None, _PAUSE_SECONDS)


async def _first(one: Awaitable[Any], other: Awaitable[Any] | None, seconds: float) -> None:
    """Wait for the first of two, but not longer than some seconds."""
    waits = [asyncio.ensure_future(wait) for wait in (one, other) if wait is not None]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _part(query: QueryParams) -> tuple[int | None, int]:
    """Return which part of a list is asked for: before which number, and at most how many."""
    before, limit = _number(query.get("before"), "before"), _number(query.get("limit"), "limit")
    return before, USUAL_PAGE_ROWS if limit is None else min(limit, MAX_PAGE_ROWS)


def _number(text: str | None, name: str) -> int | None:
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15 or int(text) == 0:
        raise HTTPException(400, f"{name} must be a whole number above 0")
    return int(text)
