"""Places: how many connections a listener has, and who has to make room for whom. One loop.

A connection that has just come is a newcomer, and has a place of its own only once a request on it
was let in (on TCP with tokens: one that shows a token). Newcomers are bounded too: when one more
comes, the oldest that waits for no answer goes. So those who connect and do nothing can't shut out
a client that has something to say, nor the probes, which newcomers get an answer to as well.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from arthur_relay.daemon.access import Door
    from arthur_relay.daemon.counts import IntakeCounts

logger = logging.getLogger("arthur_relay.daemon.connections")


class Connection(Protocol):
    """What is known of a connection here."""

    @property
    def is_dispensable(self) -> bool:
        """Whether nobody waits for an answer on it."""

    def end(self) -> None:
        """End it at once."""


class Places:
    """The connections of one listener.

    Args:
        door: Which it is.
        most: Connections that were let in, at most, and newcomers beside them.
        counts: Where open connections are counted.
    """

    def __init__(self, door: Door, most: int, counts: IntakeCounts) -> None:
        self._door = door.value
        self._most = most
        self._counts = counts
        self._newcomers: dict[Connection, None] = {}  # in the order in which they came
        self._settled: set[Connection] = set()

    def arrive(self, connection: Connection) -> bool:
        """Let a newcomer in. False when all others wait for an answer."""
        if len(self._newcomers) >= self._most and not self.make_room():
            logger.warning("a connection is refused: %d others wait for an answer", self._most)
            return False
        self._newcomers[connection] = None
        self._counts.connections[self._door] += 1
        return True

    def make_room(self) -> bool:
        """End the oldest newcomer that can be spared. False when there is none."""
        for other in self._newcomers:
            if other.is_dispensable:
                logger.warning("a connection is closed, to make room: nothing was let in by it")
                self.leave(other)
                other.end()
                return True
        return False

    def take(self, connection: Connection) -> bool:
        """Give a newcomer a place for good. False when there is none."""
        if connection in self._settled:
            return True
        if len(self._settled) >= self._most or connection not in self._newcomers:
            return False
        del self._newcomers[connection]
        self._settled.add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """Forget a connection, if it is known."""
        known = connection in self._newcomers or connection in self._settled
        if known:
            self._newcomers.pop(connection, None)
            self._settled.discard(connection)
            self._counts.connections[self._door] -= 1
