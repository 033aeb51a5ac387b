"""The HTTP protocol at the edge: uvicorn's, with limits on connections, slow senders and readers.

uvicorn itself bounds the size of a request's head (h11) and how long an idle connection is kept,
and nothing else of these.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from arthur_relay.daemon.access import Door, Peer, peer_uid

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send
    from uvicorn import Config
    from uvicorn.server import ServerState

    from arthur_relay.daemon.counts import IntakeCounts

logger = logging.getLogger("arthur_relay.daemon.connections")

PEER = "arthur_relay.peer"
"""Where the ASGI scope's extensions have the `Peer`."""

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Content-Length: 34\r\nConnection: close\r\n\r\n"
    b'{"error": "too many connections"}\n'
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may do.

    Attributes:
        door: Where it came in.
        counts: Where open connections are counted.
        max_connections: Open connections of all doors together, at most.
        timeout_seconds: How long a request may take to arrive, and an answer to be read.
    """

    door: Door
    counts: IntakeCounts
    max_connections: int
    timeout_seconds: Callable[[], float]


class GuardedProtocol(H11Protocol):
    """One connection. Its peer is in the ASGI scope's extensions.

    Args:
        config: uvicorn's.
        state: uvicorn's, shared by the connections of a front.
        loop: The daemon's loop.
        limits: What it may do.
        gone: Called when it has ended.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        gone: Callable[[], None],
    ) -> None:
        super().__init__(config, state, {}, loop)
        self._limits = limits
        self._gone = gone
        self._turned_away = False
        self._counted = False
        self._arriving: asyncio.TimerHandle | None = None
        self._arriving_cycle: Any = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # wider
        """Let the connection in, unless there are too many."""
        counts, limits = self._limits.counts, self._limits
        if counts.connections.total() >= limits.max_connections:
            self._turned_away = True
            transport.write(_BUSY)
            transport.close()
            self.loop.call_later(limits.timeout_seconds(), transport.abort)
            logger.warning("a connection is refused: there are %d", limits.max_connections)
            return
        counts.connections[limits.door.value] += 1
        self._counted = True
        super().connection_made(transport)
        uid = None
        if limits.door is Door.SOCKET:
            uid = peer_uid(transport.get_extra_info("socket"))
        peer = Peer(limits.door, uid)
        app = self.app

        async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {PEER: peer}
            await app(scope, receive, send)

        self.app = with_peer
        self._watch_arrival()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._turned_away:
            return
        if self._counted:
            self._counted = False
            self._limits.counts.connections[self._limits.door.value] -= 1
        self._stop_watching()
        super().connection_lost(exc)
        self._gone()

    def data_received(self, data: bytes) -> None:
        """Take what the client sends, for as long as it may take."""
        if self._turned_away:
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        their_state = self.conn.their_state
        arriving = their_state is h11.SEND_BODY or (
            their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        )
        if not arriving:
            self._cancel_arrival()
        elif self._arriving is None or self._arriving_cycle is not self.cycle:
            self._cancel_arrival()
            self._watch_arrival()

    def eof_received(self) -> None:
        """Let uvicorn end the connection."""
        if not self._turned_away:
            super().eof_received()

    def pause_writing(self) -> None:
        """Wait for a client that does not read, for as long as it may take."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(
                self._limits.timeout_seconds(), self.transport.abort
            )

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, also when the client never read its answer."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self._limits.timeout_seconds(), self.transport.abort)

    def _watch_arrival(self) -> None:
        self._arriving_cycle = self.cycle
        self._arriving = self.loop.call_later(self._limits.timeout_seconds(), self._too_slow)

    def _cancel_arrival(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _stop_watching(self) -> None:
        self._cancel_arrival()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _too_slow(self) -> None:
        """End a connection whose request does not arrive, with 408 where that can be said."""
        self._arriving = None
        if self.transport.is_closing():
            return
        logger.warning("a connection is closed: its request has not arrived in time")
        idle = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if not idle and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [("Connection", "close"), ("Content-Length", "0")]
            for event in (
                h11.Response(status_code=408, headers=headers, reason=b"Request Timeout"),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()
            self.loop.call_later(self._limits.timeout_seconds(), self.transport.abort)
        else:
            self.transport.abort()
