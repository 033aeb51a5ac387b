"""The daemon's edge in this process: its front and application, with rows that end in a list."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from starlette.responses import PlainTextResponse
from starlette.routing import Route

from arthur_relay.daemon.api import Api, create_app
from arthur_relay.daemon.auth import Authenticator, Endpoint, Token
from arthur_relay.daemon.browsers import Browsers
from arthur_relay.daemon.clients import ClientAdmission, server_options
from arthur_relay.daemon.connection_slots import ConnectionSlots
from arthur_relay.daemon.current import Current
from arthur_relay.daemon.intake import Intake
from arthur_relay.daemon.known_spans import KnownSpans
from arthur_relay.daemon.measurements import IntakeCounts
from arthur_relay.daemon.settings import DaemonSettings
from arthur_relay.daemon.tasks import Tasks
from arthur_relay.daemon.traces_api import TracesApi
from arthur_relay.daemon.traces_intake import TracesIntake
from arthur_relay.http_server.server import HttpServer
from tests.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from starlette.requests import Request
    from starlette.responses import Response

    from arthur_relay.daemon.auth import Principal
    from arthur_relay.daemon.handover import Handover
    from arthur_relay.daemon.models import Models
    from arthur_relay.http_server.connection import Connection
    from arthur_relay.row import Row
    from arthur_relay.worker.ingest import IngestRefusal

MODEL = "11111111-1111-4111-8111-111111111111"
PATH = f"/api/v3/models/{MODEL}/inferences"

LARGE_BYTES = 1 << 24
"""More than the kernel takes for a client that does not read."""


@dataclass
class Taken:
    """Stands for the worker: keeps rows, and answers when it may."""

    rows: list[Row] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    offers: int = 0
    most_row_bytes = None

    async def hand_over(
        self,
        rows: Sequence[Row],
        *,
        timeout_seconds: float,
        is_gone: Callable[[], bool] = bool,
    ) -> IngestRefusal | None:
        self.offers += 1
        self.rows += rows
        async with asyncio.timeout(timeout_seconds):
            await self.may_answer.wait()
        return None


class AnyModel:
    """Stands for Arthur: it has every model."""

    async def answer(self, name: str, *, by_partner_id: bool, principal: Principal) -> Response:
        return PlainTextResponse("{}", media_type="application/json")

    async def refusal(self, model_id: str) -> str:
        return ""

    async def describe(self, name: str) -> dict[str, Any]:
        return {"id": name, "task_id": name}

    def kept(self) -> list[dict[str, Any]]:
        return []


async def _probe(request: Request) -> Response:
    return PlainTextResponse("{}", media_type="application/json")


async def _large(request: Request) -> Response:
    return PlainTextResponse("x" * LARGE_BYTES)


class Edge:
    """One door, served on the running loop.

    Args:
        door: Which.
        tokens: Who may use TCP; None for anyone.
        most: Connections that may be let in, and newcomers.
        timeout_seconds: How long a request may take to arrive.
        for_engine: Whether it takes spans, and no inferences.
        **settings: Of the daemon.
    """

    def __init__(
        self,
        endpoint: Endpoint = Endpoint.SOCKET,
        *,
        tokens: tuple[Token, ...] | None = None,
        most: int = 100,
        timeout_seconds: float = SECONDS,
        for_engine: bool = False,
        **settings: Any,
    ) -> None:
        self.taken = Taken()
        self.taken.may_answer.set()
        self.counts = IntakeCounts()
        self.settings = DaemonSettings(client_timeout_seconds=timeout_seconds, **settings)
        self._directory = tempfile.TemporaryDirectory(prefix="arthur-")
        self._listener = self._listen(endpoint)
        self.may_view = asyncio.Event()
        self.may_view.set()
        access = Authenticator(tokens, allowed_uids=self.settings.allowed_uids)
        current = Current(self.settings, access, products=1)

        async def view(request: Request) -> Response:
            await self.may_view.wait()
            return PlainTextResponse("{}")

        intake = Intake.of(
            worker=cast("Handover", self.taken),
            current=current,
            counts=self.counts,
            models=AnyModel(),
        )
        api: Api | TracesApi = Api(current, intake, cast("Models", AnyModel()))
        if for_engine:
            worker, tasks = cast("Handover", self.taken), Tasks(AnyModel())
            traces = TracesIntake.of(worker, current, self.counts, tasks, KnownSpans())
            api = TracesApi(current, traces)
        browsers = Browsers(endpoint, current)
        views = [Route("/status", view), Route("/metrics", _large)]
        routes = [Route("/healthz", _probe), *views, *api.routes()]
        self.slots = ConnectionSlots(endpoint, most, self.counts.connections)
        app = create_app(routes, browsers, current)
        self.front = HttpServer(
            app,
            [self._listener],
            options=server_options(endpoint),
            admission=ClientAdmission(endpoint, self.slots, current),
        )

    def _listen(self, endpoint: Endpoint) -> socket.socket:
        if endpoint is Endpoint.SOCKET:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(Path(self._directory.name) / "s"))
        else:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        return listener

    async def __aenter__(self) -> Self:
        self.address = self._listener.getsockname()
        self.front.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.taken.may_answer.set()
        self.may_view.set()
        self.front.stop_accepting()
        await self.front.finish(0.0)
        self._directory.cleanup()

    @property
    def connections(self) -> set[Connection]:
        """The connections that there are."""
        return cast("set[Connection]", set(self.front._state.connections))

    @property
    def connection(self) -> Connection | None:
        """The only connection, or None."""
        return next(iter(self.connections), None)

    async def connect(self) -> Client:
        """Return a connection."""
        if isinstance(self.address, str):
            return Client(*await asyncio.open_unix_connection(self.address))
        return Client(*await asyncio.open_connection(*self.address))

    async def exchange(self, *pieces: bytes, half_close: bool = True) -> bytes:
        """Send something on a connection of its own, piece by piece, and return all that comes."""
        client = await self.connect()
        try:
            for piece in pieces:
                await client.send(piece)
            if half_close:
                client.half_close()
            return await client.read_all()
        finally:
            await client.close()


class Client:
    """The client's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send, and let the other end read it."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            return  # it was closed: what it said is read later
        for _ in range(3):
            await asyncio.sleep(0)

    def half_close(self) -> None:
        """Send no more."""
        if not self.writer.is_closing():
            try:
                self.writer.write_eof()
            except OSError:
                return

    async def read_all(self) -> bytes:
        """Return all that comes until the other end closes."""
        found = b""
        async with asyncio.timeout(SECONDS):
            try:
                while part := await self.reader.read(65536):
                    found += part
            except ConnectionError:
                pass
        return found

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return the next answer: its status, its headers, its body."""
        async with asyncio.timeout(SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode().strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split(" ")[1]), headers, body

    async def close(self) -> None:
        """Close it."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


def request(
    method: str = "GET", path: str = "/healthz", body: bytes | None = None, **headers: str
) -> bytes:
    """Return a request; underscores in headers' names are hyphens."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def rows(*ids: str, **headers: str) -> bytes:
    """Return a request with rows."""
    body = b",".join(b'{"partner_inference_id":"%b","inference_data":{}}' % i.encode() for i in ids)
    return request("POST", PATH, b"[%b]" % body, Content_Type="application/json", **headers)


def statuses(answer: bytes) -> list[int]:
    """Return the statuses of answers, each of which has a `Content-Length`."""
    found = []
    while answer:
        head, separator, rest = answer.partition(b"\r\n\r\n")
        assert separator, answer
        assert head.startswith(b"HTTP/1.1 "), answer
        status = int(head[9:12])
        if status == 100:
            answer = rest
            continue
        (length,) = [
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        assert len(rest) >= length, answer
        found.append(status)
        answer = rest[length:]
    return found


def run(test: Callable[[], Any]) -> None:
    """Run a coroutine function on a loop of its own."""
    asyncio.run(test())
