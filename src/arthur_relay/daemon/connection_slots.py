"""Places: how many connections a listener has, and who has to make room for whom. One loop.

A connection that has just come is a newcomer, and has a place of its own only once a request on it
was let in (on TCP with tokens: one that shows a token). Newcomers are bounded too: when one more
comes, the oldest goes on which nobody waits for an answer and reads it. So those who connect and do
nothing can't shut out a client that has something to say, nor the probes, which newcomers get an
answer to as well.

A view takes its time, and anybody may ask for one who can connect to its listener. So the
connection has a place only for as long as it is answered, of which there are few, and is a newcomer
again behind it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arthur_relay.daemon.auth import Endpoint
    from arthur_relay.daemon.measurements import IntakeCounts

logger = logging.getLogger("arthur_relay.daemon.connections")

VIEWS_AT_ONCE = 32
"""Connections of a listener on which views are answered, at most; half of the newcomers if that is
less."""


class Connection(Protocol):
    """What is known of a connection here."""

    @property
    def is_dispensable(self) -> bool:
        """Whether nobody waits for an answer on it, or the answers are not read."""

    def end(self) -> None:
        """End it at once."""


class ConnectionSlots:
    """The connections of one listener.

    Args:
        endpoint: Which it is.
        most: Connections that were let in, at most, and newcomers beside them; 1 or more.
        counts: Where open connections are counted.
    """

    def __init__(self, endpoint: Endpoint, most: int, counts: IntakeCounts) -> None:
        self._door = endpoint.value
        self._most = most
        self._most_newcomers = max(2, most)  # so that a view leaves one to the probes
        self._most_views = min(VIEWS_AT_ONCE, self._most_newcomers // 2)
        self._counts = counts
        self._newcomers: dict[Connection, None] = {}  # in the order in which they came
        self._viewing: dict[Connection, None] = {}  # newcomers too, on which a view is answered
        self._settled: set[Connection] = set()

    def arrive(self, connection: Connection) -> bool:
        """Let a newcomer in. False when all others wait for an answer."""
        others = len(self._newcomers) + len(self._viewing)
        if others >= self._most_newcomers and not self.make_room():
            logger.warning("a connection is refused: %d others wait for an answer", others)
            return False
        self._newcomers[connection] = None
        self._counts.connections[self._door] += 1
        return True

    def make_room(self) -> bool:
        """End the oldest newcomer that can be spared. False when there is none."""
        return self._end_first(self._newcomers, "nothing was let in by it")

    def take(self, connection: Connection) -> bool:
        """Give a newcomer a place for good. False when there is none."""
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
        """Give a newcomer a place until a view is answered. False when there is none."""
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
        """Take back a place that was for a view; to be called when all is answered."""
        if connection in self._viewing:
            del self._viewing[connection]
            self._newcomers[connection] = None

    def leave(self, connection: Connection) -> None:
        """Forget a connection, if it is known."""
        known = any(connection in each for each in (self._newcomers, self._viewing, self._settled))
        if known:
            self._newcomers.pop(connection, None)
            self._viewing.pop(connection, None)
            self._settled.discard(connection)
            self._counts.connections[self._door] -= 1

    def _end_first(self, those: Iterable[Connection], why: str) -> bool:
        """End the first connection that can be spared. False when there is none."""
        found = next((each for each in those if each.is_dispensable), None)
        if found is None:
            return False
        logger.warning("a connection is closed, to make room: %s", why)
        self.leave(found)
        found.end()
        return True
