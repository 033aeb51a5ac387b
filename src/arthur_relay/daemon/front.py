"""A front: one door of the daemon, its sockets, and the connections that came in there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.server import ServerState

from arthur_relay.daemon.protocol import GuardedProtocol, Limits
from arthur_relay.daemon.sockets import BACKLOG

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence

    from starlette.types import ASGIApp

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than clients of ours keep it, so that they end it."""


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
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Begin to accept connections."""
        loop = asyncio.get_running_loop()

        def connection() -> GuardedProtocol:
            return GuardedProtocol(
                self._config, self._state, loop, self._limits, self._one_is_gone.set
            )

        for listener in self._sockets:
            self._servers.append(
                await loop.create_server(
                    connection,
                    sock=listener,
                    backlog=BACKLOG,  # which asyncio sets anew: its own is 100
                    ssl=self._tls,
                    ssl_handshake_timeout=self._limits.timeout_seconds() if self._tls else None,
                )
            )

    def stop_accepting(self) -> None:
        """Accept no more connections, end idle ones, and let requests in progress be answered."""
        for server in self._servers:
            server.close()
        for listener in self._sockets:
            listener.close()
        for connection in list(self._state.connections):
            connection.shutdown()

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
