"""The daemon's views: liveness, readiness, metrics, status and a page."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from arthur_relay.daemon.metrics import CONTENT_TYPE, Metrics
from arthur_relay.daemon.responses import answer_json
from arthur_relay.daemon.state import liveness, readiness
from arthur_relay.daemon.status import status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from arthur_relay.daemon.state import DaemonState


class Page:
    """The page, with headers that keep it from loading or running anything else."""

    def __init__(self) -> None:
        self._html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
        (script,) = re.findall(r"<script>(.*?)</script>", self._html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        # Even if a name became markup, the browser would run nothing and load nothing.
        policy = (
            "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; img-src data:; "
            f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        self._headers = {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    def answer(self) -> Response:
        """Return the page."""
        return HTMLResponse(self._html, headers=self._headers)


def probe_routes(states: Sequence[DaemonState]) -> list[BaseRoute]:
    """Return the probes' routes, which are on every listener and require no token."""

    def answer(found: tuple[bool, str]) -> Response:
        good, sentence = found
        body = {"status": "ok" if good else "unavailable", "detail": sentence}
        return answer_json(body, 200 if good else 503)

    async def healthz(request: Request) -> Response:  # noqa: ARG001 - Starlette's
        return answer(liveness(states))

    async def readyz(request: Request) -> Response:  # noqa: ARG001 - Starlette's
        return answer(readiness(states))

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def view_routes(states: Sequence[DaemonState]) -> list[BaseRoute]:
    """Return the other views' routes, which are on the socket and the views' own port only."""
    own_version = _version()
    metrics, page = Metrics(states, own_version), Page()
    fresh = {"Cache-Control": "no-store"}

    # In threads, because both read the dead letters' file.
    async def show_metrics(request: Request) -> Response:  # noqa: ARG001 - Starlette's
        return Response(await run_in_threadpool(metrics.render), headers=_typed(fresh))

    async def show_status(request: Request) -> Response:  # noqa: ARG001 - Starlette's
        found = await run_in_threadpool(status, states, own_version)
        return answer_json(found, headers=fresh)

    async def show_page(request: Request) -> Response:  # noqa: ARG001 - Starlette's
        return page.answer()

    return [
        Route("/metrics", show_metrics),
        Route("/status", show_status),
        Route("/", show_page),
    ]


def _typed(headers: dict[str, str]) -> dict[str, str]:
    return {**headers, "Content-Type": CONTENT_TYPE}


def _version() -> str:
    try:
        return version("arthur-relay")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
