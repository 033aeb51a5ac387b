"""Admits clients to a listener of the daemon, for its HTTP server."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arthur_relay.daemon.auth import Endpoint, Peer
from arthur_relay.http_server.options import ServerOptions
from arthur_relay.settings.variables import DAEMON_PREFIX
from arthur_relay.system.operating_system import peer_uid

if TYPE_CHECKING:
    from starlette.types import Scope

    from arthur_relay.daemon.connection_slots import ConnectionSlots
    from arthur_relay.daemon.current import Current
    from arthur_relay.http_server.connection import Connection

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than our clients keep it, so that they close it."""

_CLIENT = "arthur_relay.client"
"""The key of the `Client` in the extensions of an ASGI scope."""


@dataclass(frozen=True, slots=True)
class Client:
    """The other end of a connection.

    Attributes:
        peer: Who it is.
    """

    peer: Peer
    _connection: Connection
    _slots: ConnectionSlots

    @property
    def is_gone(self) -> bool:
        """Whether no answer can reach it any more."""
        return self._connection.is_gone

    def take_slot(self) -> bool:
        """Take a slot for an admitted client. Returns False when none is free."""
        return self._slots.take(self._connection)

    def take_slot_for_view(self) -> bool:
        """Take a slot until the view is answered, and read. Returns False when none is free."""
        return self._slots.take_for_view(self._connection)


def client_of(scope: Scope) -> Client:
    """Return the sender of a request that a `ClientAdmission` let in."""
    client: Client = scope["extensions"][_CLIENT]
    return client


@dataclass(frozen=True, slots=True)
class ClientAdmission:
    """An `Admission`: decides who may be connected to a listener.

    Attributes:
        endpoint: The listener.
        slots: Its connections.
        current: The current time limit for clients.
    """

    endpoint: Endpoint
    slots: ConnectionSlots
    current: Current

    @property
    def timeout_seconds(self) -> float:
        """How long a request may take to arrive, and an answer to be read."""
        return self.current.settings.client_timeout_seconds

    def on_arrival(self, connection: Connection) -> bool:
        """Accept a newcomer if the slots allow it."""
        return self.slots.arrive(connection)

    def on_open(self, connection: Connection) -> None:
        """Find out who the client is."""
        uid = None
        if self.endpoint is Endpoint.SOCKET:
            uid = peer_uid(connection.transport.get_extra_info("socket"))
        client = Client(Peer(self.endpoint, uid), connection, self.slots)
        connection.extensions[_CLIENT] = client

    def on_rest(self, connection: Connection) -> None:
        """Take back the slot for a view."""
        self.slots.rest(connection)

    def on_end(self, connection: Connection) -> None:
        """Take back its slot."""
        self.slots.leave(connection)

    def make_room(self) -> bool:
        """Close the oldest dispensable newcomer. Returns False when there is none."""
        return self.slots.make_room()


def server_options(endpoint: Endpoint) -> ServerOptions:
    """Return the options for the connections of a listener."""
    return ServerOptions(
        logger=logging.getLogger("arthur_relay.daemon.connections"),
        # Browsers that show the page open connections that they may not need.
        unused_level=logging.DEBUG if endpoint is Endpoint.VIEWS else logging.WARNING,
        keep_alive_seconds=KEEP_ALIVE_SECONDS,
        answers_half_closed=True,
        access_log=False,
        date_header=False,
        time_limit=f"{DAEMON_PREFIX}CLIENT_TIMEOUT_SECONDS",
    )
