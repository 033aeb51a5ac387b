"""The HTTP protocol at the edge: uvicorn's, with limits on connections, slow senders and readers.

uvicorn itself bounds how long an idle connection is kept, and nothing else of these. Its protocol
with the C parser, because what a body of rows costs on its way in is most of what the intake does.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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

HEAD_BYTES = 32 * 1024
"""A request's line and headers, at most."""

_LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
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


class GuardedProtocol(HttpToolsProtocol):
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
        self._began = False  # whether there was a whole head already
        self._in_head = False
        self._head_bytes = 0
        self._is_arriving = False
        self._arrival: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # wider
        """Let the connection in, unless there are too many."""
        counts, limits = self._limits.counts, self._limits
        if counts.connections.total() >= limits.max_connections:
            self._turned_away = True
            transport.write(_BUSY)
            self._close(transport)
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
        """Take what the client sends, as far as it may."""
        if self._turned_away or self.transport.is_closing():
            return
        before = self._head_bytes
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            # A head that began in these bytes is counted too high, by what came before it.
            self._head_bytes = before + len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("The request's head is too large.")

    def eof_received(self) -> None:
        """Let uvicorn end the connection."""
        if not self._turned_away:
            super().eof_received()

    def on_message_begin(self) -> None:
        """Begin a request, which has to arrive in time."""
        super().on_message_begin()
        self._unset_keepalive_if_required()  # also for one behind another in the same bytes
        self._in_head = self._is_arriving = True
        self._head_bytes = 0
        self._cancel_arrival()
        self._watch_arrival()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, if there are not too many."""
        self._head_bytes += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let the request be answered, unless its head is too large."""
        self._in_head = False
        if self._head_bytes > HEAD_BYTES:
            raise ValueError("the head is too large")  # uvicorn answers 400
        self._head_bytes = 0
        super().on_headers_complete()
        self._began = True

    def on_message_complete(self) -> None:
        """End a request: it has arrived."""
        self._is_arriving = False
        self._cancel_arrival()
        super().on_message_complete()

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
        self._arrival = self.loop.call_later(self._limits.timeout_seconds(), self._too_slow)

    def _cancel_arrival(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _stop_watching(self) -> None:
        self._cancel_arrival()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _too_slow(self) -> None:
        """End a connection whose request does not arrive, with 408 where that can be said."""
        self._arrival = None
        if self.transport.is_closing():
            return
        # Browsers that show the page open connections which they may not need.
        spare = self._limits.door is Door.VIEWS and not self._is_arriving
        level = logging.DEBUG if spare else logging.WARNING
        logger.log(level, "a connection is closed: its request has not arrived in time")
        if self._is_arriving and self._may_answer():
            self.transport.write(_LATE)
            self._close(self.transport)
        else:
            self.transport.abort()

    def _may_answer(self) -> bool:
        """Say whether no answer is being sent, to this request or to the one before it."""
        if not self._began:
            return True
        if self._in_head:
            return self.cycle.response_complete
        return not self.cycle.response_started and not self.pipeline

    def _close(self, transport: asyncio.Transport) -> None:
        """Close once all is sent, and soon in any case."""
        transport.close()
        self.loop.call_later(self._limits.timeout_seconds(), transport.abort)
