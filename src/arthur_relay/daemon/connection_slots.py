"""Connection slots: how many connections a listener keeps, and which one is closed for another.

A new connection is a newcomer. It gets a slot once one of its requests is admitted (on TCP with
tokens: once it shows a valid token). Newcomers are bounded too: for one more, the oldest newcomer
is closed that waits for no answer or does not read it. So clients that connect and do nothing can't
shut out a client that sends rows, nor the probes, which are answered for newcomers as well.

A view takes time to answer, and anybody who can connect to its listener may ask for one. So its
connection has one of a few slots only while the view is answered. Then it is a newcomer again.

For the daemon's event loop only.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from arthur_relay.settings.variables import DAEMON_PREFIX

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

    from arthur_relay.daemon.auth import Endpoint

logger = logging.getLogger("arthur_relay.daemon.connections")

VIEWS_AT_ONCE = 32
"""Connections of a listener on which views are answered, at most; half of the newcomers if that is
less."""


class Connection(Protocol):
    """A connection, as the slots need it."""

    @property
    def is_dispensable(self) -> bool:
        """Whether the client waits for no answer, or does not read the answers."""

    def end(self) -> None:
        """Close it at once."""


class ConnectionSlots:
    """The connections of one listener.

    Args:
        endpoint: The listener.
        most: The maximum number of connections with slots, and of newcomers; 1 or more.
        counts: Counts open connections, by listener.
    """

    def __init__(self, endpoint: Endpoint, most: int, counts: Counter[str]) -> None:
        self._listener = endpoint.value
        self._most = most
        self._most_newcomers = max(2, most)  # so that a view leaves one for the probes
        self._most_views = min(VIEWS_AT_ONCE, self._most_newcomers // 2)
        self._counts = counts
        self._newcomers: dict[Connection, None] = {}  # in the order in which they came
        self._viewing: dict[Connection, None] = {}  # newcomers too, on which a view is answered
        self._settled: set[Connection] = set()

    def arrive(self, connection: Connection) -> bool:
        """Accept a newcomer. Returns False when all others wait for an answer."""
        others = len(self._newcomers) + len(self._viewing)
        if others >= self._most_newcomers and not self.make_room():
            logger.warning(
                "a connection is refused: %d others wait for an answer; raise %sMAX_CONNECTIONS",
                others,
                DAEMON_PREFIX,
            )
            return False
        self._newcomers[connection] = None
        self._counts[self._listener] += 1
        return True

    def make_room(self) -> bool:
        """Close the oldest dispensable newcomer. Returns False when there is none."""
        return self._end_first(self._newcomers, "nothing was let in by it")

    def take(self, connection: Connection) -> bool:
        """Give a newcomer a slot until it is closed. Returns False when none is free."""
        if connection in self._settled:
            return True
        is_known = connection in self._newcomers or connection in self._viewing
        if len(self._settled) >= self._most or not is_known:
            return False
        self._newcomers.pop(connection, None)
        self._viewing.pop(connection, None)
        self._settled.add(connection)
        return True

    def take_for_view(self, connection: Connection) -> bool:
        """Give a newcomer a slot until a view is answered. Returns False when none is free."""
        if connection in self._settled or connection in self._viewing:
            return True
        if connection not in self._newcomers:
            return False
        if len(self._viewing) >= self._most_views and not self._end_first(
            self._viewing, "its answer is not read"
        ):
            return False
        del self._newcomers[connection]
        self._viewing[connection] = None
        return True

    def rest(self, connection: Connection) -> None:
        """Take back the slot for a view, after everything was answered."""
        if connection in self._viewing:
            del self._viewing[connection]
            self._newcomers[connection] = None

    def leave(self, connection: Connection) -> None:
        """Forget a closed connection, if it is known."""
        known = any(connection in each for each in (self._newcomers, self._viewing, self._settled))
        if known:
            self._newcomers.pop(connection, None)
            self._viewing.pop(connection, None)
            self._settled.discard(connection)
            self._counts[self._listener] -= 1

    def _end_first(self, those: Iterable[Connection], why: str) -> bool:
        """Close the first dispensable connection. Returns False when there is none."""
        found = next((each for each in those if each.is_dispensable), None)
        if found is None:
            return False
        logger.warning(
            "a connection is closed, to make room: %s; %sMAX_CONNECTIONS says how many may be open",
            why,
            DAEMON_PREFIX,
        )
        self.leave(found)
        found.end()
        return True
