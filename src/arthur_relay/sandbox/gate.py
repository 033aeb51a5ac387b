"""The gate: the ASGI layer around the API that records requests and lets faults happen to them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from arthur_relay.http_server.connection import CONNECTION
from arthur_relay.sandbox.faults import Fault, Kind, Route
from arthur_relay.sandbox.journal import Journal, RecordedRequest

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from arthur_relay.sandbox.faults import Faults
    from arthur_relay.sandbox.ticks import Ticks

PREFIX: Final = "/api/v3"
ENGINE_PREFIXES: Final = ("/api/v1", "/api/v2")
# A key of the ASGI scope's state.
ROW_FAULTS: Final = "row_faults"


def is_engines(path: str) -> bool:
    """Whether a path is of the Engine's API."""
    return path.startswith(tuple(f"{prefix}/" for prefix in ENGINE_PREFIXES))


def route_of(method: str, path: str) -> Route:
    """The route that a request to one of the APIs is for."""
    return _engine_route(method, path) if is_engines(path) else _scope_route(method, path)


def _engine_route(method: str, path: str) -> Route:
    match path.strip("/").split("/")[1:]:
        case ["v1", "traces"] if method == "POST":
            return Route.TRACES
        case ["v1", "traces", _, "annotations"]:
            return Route.ANNOTATIONS
        case ["v1", "traces", *_]:
            return Route.SPANS
        case ["v2", "tasks", *_]:
            return Route.TASKS
        case _:
            return Route.OTHER


def _scope_route(method: str, path: str) -> Route:
    match path.removeprefix(PREFIX).strip("/").split("/"):
        case ["login"]:
            return Route.LOGIN
        case ["users", *_]:
            return Route.USERS
        case ["models", _, "inferences", "query", *_]:
            return Route.QUERY
        case ["models", _, "inferences"]:
            return Route.GROUND_TRUTH if method == "PATCH" else Route.INFERENCES
        case ["models", *_]:
            return Route.MODELS
        case _:
            return Route.OTHER


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer in full, so that it can be replaced or cut before it is sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(slots=True)
class _Exchange:
    """One request on its way through the gate."""

    scope: Scope
    receive: Receive
    send: Send
    body: bytes = b""

    async def read(self) -> bool:
        """Read the body. False when the client went away before its end."""
        parts: list[bytes] = []
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                return False
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                self.body = b"".join(parts)
                return True

    async def gone(self) -> None:
        """Wait until the connection is closed."""
        while (await self.receive())["type"] != "http.disconnect":
            pass  # pragma: no cover  # the body was read to its end

    async def cut(self) -> None:
        """Close the connection at once. The server is told, so that it does not complain."""
        self.scope["extensions"][CONNECTION].transport.abort()
        await self.gone()

    async def run(self, app: ASGIApp) -> _Answer:
        """Let the API answer the request that was read."""
        unread = [self.body]
        start: Message = {}
        parts: list[bytes] = []

        async def receive() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await self.receive()  # pragma: no cover  # only a streaming answer asks again

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        await app(self.scope, receive, send)
        return _Answer(start["status"], list(start["headers"]), b"".join(parts))

    async def answer(self, answer: _Answer, *, cut_midbody: bool = False) -> None:
        """Send an answer, or its head and half of its body and then close the connection."""
        await self.send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": answer.headers,
            }
        )
        body = answer.body[: len(answer.body) // 2] if cut_midbody else answer.body
        await self.send({"type": "http.response.body", "body": body, "more_body": cut_midbody})
        if cut_midbody:
            self.scope["extensions"][CONNECTION].transport.close()
            await self.gone()


class Gate:
    """The ASGI application around the API's.

    Args:
        app: The API and the page.
        faults: What goes wrong.
        journal: Where requests are written down.
        stopping: Ticks once when the server stops; what waits then is cut.
    """

    def __init__(self, app: ASGIApp, *, faults: Faults, journal: Journal, stopping: Ticks) -> None:
        self._app = app
        self._faults = faults
        self._journal = journal
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope["path"]
        if not (path.startswith(f"{PREFIX}/") or is_engines(path)):
            await self._app(scope, receive, send)
            return
        route = route_of(scope["method"], path)
        exchange = _Exchange(scope, receive, send)
        if not await exchange.read():
            return
        record = RecordedRequest(
            scope["method"],
            scope["path"],
            scope["query_string"].decode("latin-1"),
            {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            exchange.body,
            port=(scope.get("client") or ("", 0))[1],
        )
        self._journal.arrived(record)
        plan = self._faults.take(route)
        scope["state"] = {**scope.get("state", {}), ROW_FAULTS: plan.rows}
        fault = plan.fault
        answer = None
        if await self._waited(exchange, plan.delay_seconds):
            answer = await self._answer(exchange, fault)
        record.status = None if answer is None else answer.status
        self._journal.answered(route, record.status)
        if answer is None:
            await exchange.cut()
        else:
            midbody = fault is not None and fault.kind is Kind.CUT_MIDBODY
            await exchange.answer(answer, cut_midbody=midbody)

    async def _answer(self, exchange: _Exchange, fault: Fault | None) -> _Answer | None:
        """The answer, after all waiting; None when the connection is to be cut."""
        if fault is None:
            return await exchange.run(self._app)
        answer = await exchange.run(self._app) if fault.store else None
        match fault.kind:
            case Kind.CUT:
                return None
            case Kind.HANG:
                if not await self._waited(exchange, None, until=fault.released):
                    return None
                return answer or await exchange.run(self._app)
            case Kind.STATUS | Kind.REDIRECT | Kind.NOT_JSON:
                return _instead(fault, exchange.scope["path"])
            case _:
                return None if answer is None else _spoilt(answer, fault)

    async def _waited(
        self, exchange: _Exchange, seconds: float | None, *, until: Ticks | None = None
    ) -> bool:
        """Wait; False when the client went away or the server stops meanwhile."""
        if seconds == 0:
            return True
        ends = [
            asyncio.ensure_future(exchange.gone()),
            asyncio.ensure_future(self._stopping.wait_past(0)),
        ]
        released = [] if until is None else [asyncio.ensure_future(until.wait_past(0))]
        waits: list[asyncio.Future[Any]] = [*ends, *released]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return not any(end.done() for end in ends)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


def _instead(fault: Fault, path: str) -> _Answer:
    """The answer that a fault gives in place of the API's."""
    body = fault.body
    if fault.status in {204, 304}:
        body = ""  # these have none, by the protocol
    elif body is None:
        key = "detail" if is_engines(path) else "error"
        body = json.dumps({key: f"the sandbox was told to answer {fault.status}"})
    response = Response(body, fault.status, {"Content-Type": "application/json", **fault.headers})
    return _Answer(response.status_code, response.raw_headers, bytes(response.body))


def _spoilt(answer: _Answer, fault: Fault) -> _Answer:
    """An answer of the API with the results or counts that a fault makes wrong."""
    if fault.kind is Kind.CUT_MIDBODY:
        return answer
    content = json.loads(answer.body)
    if "accepted_spans" in content:
        content["accepted_spans"] += fault.shift
    elif answer.status != 207:
        return answer
    elif fault.kind is Kind.WRONG_COUNTS:
        content["counts"]["success"] += fault.shift
    elif fault.shift < 0:
        del content["results"][fault.shift :]
    else:
        content["results"] += [{"message": "success", "status": 200}] * fault.shift
    body = json.dumps(content).encode()
    headers = [(name, value) for name, value in answer.headers if name != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    return replace(answer, headers=headers, body=body)
