"""What a server asks about its connections, and what it reports of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from arthur_relay.http_server.connection import Connection


class Admission(Protocol):
    """Decides which connections are served. Called on the server's loop; nothing here raises."""

    @property
    def timeout_seconds(self) -> float | None:
        """How long a request may take to arrive, a handshake to end and an answer to be read.

        Asked for each of them; None sets no limit.
        """

    def on_arrival(self, connection: Connection) -> bool:
        """Return whether a connection that was accepted is served."""

    def on_open(self, connection: Connection) -> None:
        """Note that a connection is open, its handshake included, before its first request."""

    def on_rest(self, connection: Connection) -> None:
        """Note that all requests on a connection are answered, and their answers were read."""

    def on_end(self, connection: Connection) -> None:
        """Note that a connection has ended, even if it was never open; may be called twice."""

    def make_room(self) -> bool:
        """End a connection, because no more can be accepted. False when none may be ended."""


class AdmitAll:
    """Serves every connection, for as long as it takes."""

    timeout_seconds = None

    def on_arrival(self, connection: Connection) -> bool:  # noqa: ARG002 - the protocol's
        """Serve it."""
        return True

    def on_open(self, connection: Connection) -> None:
        """Do nothing."""

    def on_rest(self, connection: Connection) -> None:
        """Do nothing."""

    def on_end(self, connection: Connection) -> None:
        """Do nothing."""

    def make_room(self) -> bool:
        """Return that none may be ended."""
        return False
