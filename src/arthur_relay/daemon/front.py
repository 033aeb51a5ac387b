"""A front: one door of the daemon, its sockets, and the connections that came in there."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.server import ServerState

from arthur_relay.daemon.protocol import GuardedProtocol, Limits

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence

    from starlette.types import ASGIApp

logger = logging.getLogger("arthur_relay.daemon.connections")

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than clients of ours keep it, so that they end it."""


ACCEPTED_AT_ONCE = 64
"""Connections that are accepted before others have their turn."""

ACCEPT_PAUSE_SECONDS = 1.0
"""How long nobody is let in after that failed: for want of file descriptors, most likely."""

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Content-Length: 34\r\nConnection: close\r\n\r\n"
    b'{"error": "too many connections"}\n'
)


class Front:
    """Serves an application on some sockets. Belongs to the daemon's loop.

    Args:
        app: The application.
        sockets: Listening sockets; closed at the end.
        limits: What a connection may do.
        tls: For TLS, else None.
    """

    def __init__(
        self,
        app: ASGIApp,
        sockets: Sequence[socket.socket],
        limits: Limits,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._sockets = sockets
        self._limits = limits
        self._tls = tls
        self._state = ServerState()
        # Without log_config and log_level uvicorn leaves the process's logging alone.
        self._config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self._config.load()
        self._one_is_gone = asyncio.Event()
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

    def _listen(self, listener: socket.socket) -> None:
        # Not by asyncio's server, which tells of a connection when its handshake is over: until
        # then nobody would count it.
        if not self._has_stopped:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("connections can't be accepted: %s", error.strerror)  # noqa: TRY400 - it is told
                self._limits.places.make_room()
                loop.remove_reader(listener)
                loop.call_later(ACCEPT_PAUSE_SECONDS, self._listen, listener)
                return
            self._let_in(connection, loop)

    def _let_in(self, connection: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        protocol = GuardedProtocol(
            self._config, self._state, loop, self._limits, self._one_is_gone.set
        )
        if self._limits.places.arrive(protocol):
            protocol.opening = loop.create_task(self._open(protocol, connection))
            self._opening.add(protocol.opening)
            protocol.opening.add_done_callback(partial(self._opened, protocol, connection))
            return
        with connection, suppress(OSError):
            if self._tls is None:
                connection.settimeout(0)
                connection.send(_BUSY)

    def _opened(
        self, protocol: GuardedProtocol, connection: socket.socket, task: asyncio.Task[None]
    ) -> None:
        self._opening.discard(task)
        if task.cancelled():  # before it began, perhaps
            self._limits.places.leave(protocol)
            connection.close()

    async def _open(self, protocol: GuardedProtocol, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._limits.timeout_seconds() if self._tls else None,
            )
        except OSError as error:  # of TLS as well
            logger.debug("a connection has not come about: %s", type(error).__name__)
            self._limits.places.leave(protocol)

    async def finish(self, seconds: float) -> int:
        """Wait until the requests in progress are answered, then cut what is left.

        A connection is closed behind its answer, and gone once that is sent.

        Returns:
            How many requests were cut.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                while self._state.connections:
                    self._one_is_gone.clear()
                    await self._one_is_gone.wait()
        tasks = set(self._state.tasks)
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        return len(tasks)
