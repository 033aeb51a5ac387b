"""A server: its sockets, the connections that come in there, and their orderly end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.server import ServerState

from arthur_relay.http_server.connection import Connection

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence

    from starlette.types import ASGIApp

    from arthur_relay.http_server.admission import Admission
    from arthur_relay.http_server.options import ServerOptions

ACCEPTED_AT_ONCE = 64
"""Connections that are accepted before others have their turn."""

ACCEPT_PAUSE_SECONDS = 1.0
"""The pause after a failure to accept, most likely for lack of file descriptors."""

CANCEL_SECONDS = 1.0
"""How long cancelled tasks may take to end."""

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Content-Length: 34\r\nConnection: close\r\n\r\n"
    b'{"error": "too many connections"}\n'
)


class HttpServer:
    """Serves an application on some sockets; handles no signal. Belongs to one loop.

    Args:
        app: The application.
        sockets: Listening sockets; closed at the end.
        options: How connections are treated.
        admission: Which connections are served.
        tls: For TLS, else None.
    """

    def __init__(
        self,
        app: ASGIApp,
        sockets: Sequence[socket.socket],
        *,
        options: ServerOptions,
        admission: Admission,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._sockets = sockets
        self._options = options
        self._admission = admission
        self._tls = tls
        self._state = ServerState()
        # Without log_config and log_level uvicorn leaves the process's logging alone.
        self._config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level=None,
            access_log=options.access_log,
            proxy_headers=False,
            server_header=False,
            date_header=False,  # it is `uvicorn.Server` that would make it
            timeout_keep_alive=options.keep_alive_seconds,
        )
        self._config.load()
        self._one_ended = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()
        self._has_stopped = False

    def start(self) -> None:
        """Begin to accept connections."""
        for listener in self._sockets:
            listener.settimeout(0)
            self._listen(listener)

    def stop_accepting(self) -> None:
        """Accept no more connections, end idle ones, and let requests in progress be answered."""
        self._has_stopped = True
        loop = asyncio.get_running_loop()
        for listener in self._sockets:
            if listener.fileno() >= 0:
                loop.remove_reader(listener)
                listener.close()
        for task in self._opening:
            task.cancel()
        for connection in list(self._state.connections):
            connection.shutdown()

    async def finish(self, seconds: float, *, after_cut_seconds: float = 0.0) -> int:
        """Wait until the requests in progress are answered, then cut what is left.

        A connection is closed after its answer, and ends once that is sent.

        Args:
            seconds: How long requests may take.
            after_cut_seconds: How long the application may then take to notice that its clients are
                gone, before it is cancelled.

        Returns:
            How many requests were cut.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                while self._state.connections:
                    self._one_ended.clear()
                    await self._one_ended.wait()
        tasks = set(self._state.tasks)
        for connection in list(self._state.connections):
            connection.transport.abort()
        cut = len(tasks)
        if tasks and after_cut_seconds:
            _, tasks = await asyncio.wait(tasks, timeout=after_cut_seconds)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
        if self._opening:
            await asyncio.wait(self._opening, timeout=CANCEL_SECONDS)
        await asyncio.sleep(0)  # a transport closes its socket in the next turn of the loop
        return cut

    def _listen(self, listener: socket.socket) -> None:
        # Not by asyncio's server, which reports a connection only after its handshake: until then
        # nobody would count it.
        if not self._has_stopped:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                reason = error.strerror
                self._options.logger.error("connections can't be accepted: %s", reason)  # noqa: TRY400 - it is told
                self._admission.make_room()
                loop.remove_reader(listener)
                loop.call_later(ACCEPT_PAUSE_SECONDS, self._listen, listener)
                return
            self._let_in(accepted, loop)

    def _let_in(self, accepted: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        connection = Connection(
            self._config,
            self._state,
            loop,
            options=self._options,
            admission=self._admission,
            one_ended=self._one_ended,
        )
        if self._admission.on_arrival(connection):
            connection.opening = loop.create_task(self._open(connection, accepted))
            self._opening.add(connection.opening)
            connection.opening.add_done_callback(partial(self._opened, connection, accepted))
            return
        with accepted, suppress(OSError):
            if self._tls is None:
                accepted.settimeout(0)
                accepted.send(_BUSY)

    def _opened(
        self, connection: Connection, accepted: socket.socket, task: asyncio.Task[None]
    ) -> None:
        self._opening.discard(task)
        if task.cancelled():  # perhaps before it began
            self._admission.on_end(connection)
            accepted.close()

    async def _open(self, connection: Connection, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=self._admission.timeout_seconds if self._tls else None,
            )
        except OSError as error:  # of TLS as well
            self._options.logger.debug("a connection has not come about: %s", type(error).__name__)
            self._admission.on_end(connection)
