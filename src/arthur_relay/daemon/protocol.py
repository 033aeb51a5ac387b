"""The HTTP protocol at the edge: one connection, its time limits, and who is at its other end."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arthur_relay.daemon.access import Door, Peer, peer_uid
from arthur_relay.daemon.framing import LATE, REASONS, FramedProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send
    from uvicorn import Config
    from uvicorn.server import ServerState

    from arthur_relay.daemon.places import Places

logger = logging.getLogger("arthur_relay.daemon.connections")

PEER = "arthur_relay.peer"
"""Where the ASGI scope's extensions have the `Peer`."""

CONNECTION = "arthur_relay.connection"
"""Where they have the `GuardedProtocol`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may do.

    Attributes:
        door: Where it came in.
        places: Who may be connected there.
        timeout_seconds: How long a request may take to arrive, and an answer to be read.
    """

    door: Door
    places: Places
    timeout_seconds: Callable[[], float]


class GuardedProtocol(FramedProtocol):
    """One connection. Its peer, and itself, are in the ASGI scope's extensions.

    Args:
        config: uvicorn's.
        state: uvicorn's, shared by the connections of a front.
        loop: The daemon's loop.
        limits: What it may do.
        gone: Called when it has ended.

    Attributes:
        opening: The task that makes the connection, its handshake included.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        gone: Callable[[], None],
    ) -> None:
        super().__init__(config, state, loop)
        self.opening: asyncio.Task[None] | None = None
        self._is_made = False
        self._limits = limits
        self._gone = gone
        self._arrival: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    @property
    def is_gone(self) -> bool:
        """Whether no answer can reach the client any more."""
        return self.transport.is_closing()

    @property
    def is_dispensable(self) -> bool:
        """Whether nobody who has sent a whole request waits for its answer, and reads it.

        Who asks and does not read would wait for ever, or for as long as a few bytes now and then
        make it.
        """
        return not self.has_whole_request or self.flow.write_paused

    def take_place(self) -> bool:
        """Take a place for good: the client was let in. False when there is none."""
        return self._limits.places.take(self)

    def take_place_for_view(self) -> bool:
        """Take a place until the view is answered, and read. False when there is none."""
        return self._limits.places.take_for_view(self)

    def end(self) -> None:
        """End the connection at once, also one whose handshake is not over."""
        if self._is_made:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # wider
        """Begin: the client has some time for its first request."""
        super().connection_made(transport)
        self._is_made = True
        uid = None
        if self._limits.door is Door.SOCKET:
            uid = peer_uid(transport.get_extra_info("socket"))
        extensions = {PEER: Peer(self._limits.door, uid), CONNECTION: self}
        app = self.app

        async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = extensions
            await app(scope, receive, send)

        self.app = with_peer
        self._watch_arrival()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._limits.places.leave(self)
        self._stop_watching()
        super().connection_lost(exc)
        self._gone()

    def on_message_begin(self) -> None:
        """Begin a request, which has to arrive in time."""
        super().on_message_begin()
        if not self._is_replaying:
            self._cancel_arrival()
            self._watch_arrival()

    def on_message_complete(self) -> None:
        """End a request: it has arrived."""
        super().on_message_complete()
        if not self._is_arriving:
            self._cancel_arrival()

    def on_response_complete(self) -> None:
        """Go on with the next request, or rest."""
        super().on_response_complete()
        self._rest_if_answered()

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
        self._rest_if_answered()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, also when the client never read its answer."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self._limits.timeout_seconds(), self.transport.abort)

    def _rest_if_answered(self) -> None:
        if not (self.has_whole_request or self.flow.write_paused):
            self._limits.places.rest(self)

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
        if self.transport.is_closing() or self._has_ended:
            return
        if self._is_arriving:
            self._refuse(LATE)
            return
        # Browsers that show the page open connections which they may not need.
        level = logging.DEBUG if self._limits.door is Door.VIEWS else logging.WARNING
        logger.log(level, "a connection is closed: %s", REASONS[LATE])
        self.transport.abort()
