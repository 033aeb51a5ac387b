"""A port that can be shut: clients are refused then, and nobody else can get it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from tests.benchmarks.sink.wire import Connection

if TYPE_CHECKING:
    from tests.benchmarks.sink.wire import Owner

_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 1024


class Door:
    """A port of this machine, shut at first; used on one loop.

    Args:
        owner: What the connections belong to, which tells the door of each one.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._bound = _bind(0)
        self.port: int = self._bound.getsockname()[1]

    async def open(self) -> None:
        """Let clients connect."""
        if self._listener is None:
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(
                lambda: Connection(self._owner), sock=self._bound, backlog=_BACKLOG
            )

    def shut(self) -> None:
        """Cut every connection, and refuse new ones."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        for connection in self._connections:
            connection.cut()
        # Bound, but not listened on: connects are refused, and nobody else can get the port. Were
        # it free, a client could be given it as its own, and would be connected to itself.
        self._bound = _bind(self.port)

    def entered(self, connection: Connection) -> None:
        """Know a connection."""
        self._connections.add(connection)
        if self._listener is None:
            connection.cut()  # it was being accepted while the others were cut

    def left(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)


def _bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((_HOST, port))
    return bound
