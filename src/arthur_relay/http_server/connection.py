"""A connection: its requests, their time limits, and what the application sees of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from arthur_relay.http_server.framing import LATE, FramedProtocol

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

    from arthur_relay.http_server.admission import Admission
    from arthur_relay.http_server.options import ServerOptions

CONNECTION = "arthur_relay.connection"
"""Where the ASGI scope's extensions have the `Connection`."""


class Connection(FramedProtocol):
    """One connection.

    Args:
        config: uvicorn's.
        state: uvicorn's, shared by the connections of a server.
        loop: The server's loop.
        options: How connections are treated.
        admission: Which are served, and how long they may take.
        one_ended: Set when this one has ended.

    Attributes:
        extensions: The extensions in the ASGI scope of each request; one is the connection itself.
        opening: The task that makes the connection, its handshake included.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        loop: asyncio.AbstractEventLoop,
        *,
        options: ServerOptions,
        admission: Admission,
        one_ended: asyncio.Event,
    ) -> None:
        super().__init__(config, state, loop, options)
        self.extensions: dict[str, Any] = {CONNECTION: self}
        self.opening: asyncio.Task[None] | None = None
        self._is_made = False
        self._admission = admission
        self._one_ended = one_ended
        self._arrival: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    @property
    def is_gone(self) -> bool:
        """Whether no answer can reach the client any more."""
        return self.transport.is_closing()

    @property
    def is_dispensable(self) -> bool:
        """Whether nobody who has sent a whole request waits for its answer, and reads it.

        A client that does not read its answer does not count: it could stay for ever.
        """
        return not self.has_whole_request or self.flow.write_paused

    def end(self) -> None:
        """End the connection at once, even during its handshake."""
        if self._is_made:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # wider
        """Start the time limit of the client's first request."""
        super().connection_made(transport)
        self._is_made = True
        self._admission.on_open(self)
        self._watch_arrival()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._admission.on_end(self)
        self._stop_watching()
        super().connection_lost(exc)
        if self.cycle is not None:
            # What came of a body that was refused unread. It goes at once, and not when the
            # collector finds us: connections are few objects, and hold many bytes.
            self.cycle.body = bytearray()
        self._one_ended.set()

    def on_message_begin(self) -> None:
        """Begin a request, and its time limit."""
        super().on_message_begin()
        if not self._is_replaying:
            self.scope["extensions"] = self.extensions
            self._cancel_arrival()
            self._watch_arrival()

    def on_message_complete(self) -> None:
        """End a request: it has arrived."""
        super().on_message_complete()
        if not self._is_arriving:
            self._cancel_arrival()

    def on_response_complete(self) -> None:
        """Go on with the next request, or become idle."""
        super().on_response_complete()
        self._rest_if_answered()

    def pause_writing(self) -> None:
        """Wait for a client that does not read, within its time limit."""
        super().pause_writing()
        seconds = self._admission.timeout_seconds
        if self._unread is None and seconds is not None:
            self._unread = self.loop.call_later(seconds, self.transport.abort)

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
        if (seconds := self._admission.timeout_seconds) is not None:
            self.loop.call_later(seconds, self.transport.abort)

    def _rest_if_answered(self) -> None:
        if not (self.has_whole_request or self.flow.write_paused):
            self._admission.on_rest(self)

    def _watch_arrival(self) -> None:
        if (seconds := self._admission.timeout_seconds) is not None:
            self._arrival = self.loop.call_later(seconds, self._too_slow)

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
        """End a connection whose request is late, with 408 if a part of it has arrived."""
        self._arrival = None
        if self.transport.is_closing() or self._has_ended:
            return
        if self._is_arriving:
            self._refuse(LATE)
            return
        options = self._options
        options.logger.log(options.unused_level, "a connection is closed: %s", self._reason(LATE))
        self.transport.abort()
