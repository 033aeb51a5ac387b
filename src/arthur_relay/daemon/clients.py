"""Who is connected at a listener of the daemon, and for how long: what its HTTP server asks."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arthur_relay.daemon.auth import Endpoint, Peer, peer_uid
from arthur_relay.http_server.options import ServerOptions

if TYPE_CHECKING:
    from starlette.types import Scope

    from arthur_relay.daemon.connection_slots import ConnectionSlots
    from arthur_relay.daemon.current import Current
    from arthur_relay.http_server.connection import Connection

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than clients of ours keep it, so that they end it."""

_CLIENT = "arthur_relay.client"
"""Where the ASGI scope's extensions have the `Client`."""


@dataclass(frozen=True, slots=True)
class Client:
    """The other end of a connection.

    Attributes:
        peer: Who it is.
    """

    peer: Peer
    _connection: Connection
    _places: ConnectionSlots

    @property
    def is_gone(self) -> bool:
        """Whether no answer can reach it any more."""
        return self._connection.is_gone

    def take_place(self) -> bool:
        """Take a place for good: the client was let in. False when there is none."""
        return self._places.take(self._connection)

    def take_place_for_view(self) -> bool:
        """Take a place until the view is answered, and read. False when there is none."""
        return self._places.take_for_view(self._connection)


def client_of(scope: Scope) -> Client:
    """Return who sent a request that came in by a `ClientAdmission`."""
    client: Client = scope["extensions"][_CLIENT]
    return client


@dataclass(frozen=True, slots=True)
class ClientAdmission:
    """An `Admission`: who may be connected at a listener.

    Attributes:
        endpoint: Which.
        slots: How many, and who makes room for whom.
        current: Knows how long a client may take.
    """

    endpoint: Endpoint
    slots: ConnectionSlots
    current: Current

    @property
    def timeout_seconds(self) -> float:
        """How long a request may take to arrive, and an answer to be read."""
        return self.current.settings.client_timeout_seconds

    def on_arrival(self, connection: Connection) -> bool:
        """Let a newcomer in, if there is room."""
        return self.slots.arrive(connection)

    def on_open(self, connection: Connection) -> None:
        """Find out who it is."""
        uid = None
        if self.endpoint is Endpoint.SOCKET:
            uid = peer_uid(connection.transport.get_extra_info("socket"))
        client = Client(Peer(self.endpoint, uid), connection, self.slots)
        connection.extensions[_CLIENT] = client

    def on_rest(self, connection: Connection) -> None:
        """Take back a place that was for a view."""
        self.slots.rest(connection)

    def on_end(self, connection: Connection) -> None:
        """Take back its place."""
        self.slots.leave(connection)

    def make_room(self) -> bool:
        """End the oldest newcomer that can be spared. False when there is none."""
        return self.slots.make_room()


def server_options(endpoint: Endpoint) -> ServerOptions:
    """Return how connections are treated that come in by a listener."""
    return ServerOptions(
        logger=logging.getLogger("arthur_relay.daemon.connections"),
        # Browsers that show the page open connections which they may not need.
        unused_level=logging.DEBUG if endpoint is Endpoint.VIEWS else logging.WARNING,
        keep_alive_seconds=KEEP_ALIVE_SECONDS,
        answers_half_closed=True,
        access_log=False,
        date_header=False,
    )
