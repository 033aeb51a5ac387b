"""Pools of connections, one after the other: each is given up when it is old or found to be dead.

A connection that was idle for a while may be dead without a sign: a firewall forgot it, or the
machine was asleep. Then the others of its pool are dead too, and each would cost a time-out. A
connection that is always in use would stay with an address after the DNS name has changed.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import anyio
import httpx

from arthur_relay.destinations import http_logging
from arthur_relay.system.clocks import monotonic
from arthur_relay.system.operating_system import seconds_since_boot
from arthur_relay.system.randomness import Randomness

KEEP_ALIVE_SECONDS = 2.0
"""How long an idle connection is kept. Where there are rows, some are sent at least once a second.
After a longer pause the connection may be dead: to find that out takes a whole time-out, for which
`flush(5)` can't wait, while a new connection takes some milliseconds."""

JITTER = 0.1
"""The largest part by which a pool's life is shortened, so that processes do not renew together."""

CLOSE_SECONDS = 1.0
"""How long closing a pool may take."""


@dataclass(slots=True, eq=False)
class Pool:
    """Connections that were opened in one period.

    Attributes:
        client: Owns the connections.
        expires_at: When no more requests are made with them, on the clock's scale.
        used_at: When a request was last begun or ended, on the clock's scale.
        in_use: Requests in flight.
        answers: Answers that came; before the first one, no connection in it can be idle.
        is_given_up: Whether it gets no more requests, and is closed when none is left in it.
    """

    client: httpx.AsyncClient
    expires_at: float
    used_at: float
    in_use: int = 0
    answers: int = 0
    is_given_up: bool = False


class MakesClients(Protocol):
    """Knows how a client is configured."""

    def make_client(self) -> httpx.AsyncClient:
        """Return a new client; raises when its configuration is not valid."""
        ...


class CountsSleep(Protocol):
    """A clock of durations."""

    def passed(self) -> float:
        """Return seconds on any scale, including those in which the machine was asleep."""
        ...


class Pools:
    """Gives each request the current pool. One loop; a cancellation leaves it usable.

    Args:
        maker: Makes clients.
        max_age_seconds: How long a pool gets new requests, at most.
        random: The randomness of jitter.
        clock: Measures durations.
    """

    def __init__(
        self,
        maker: MakesClients,
        *,
        max_age_seconds: float,
        random: Randomness,
        clock: CountsSleep,
    ) -> None:
        self._maker = maker
        self._max_age = max_age_seconds
        self._random = random
        self._clock = clock
        self._current: Pool | None = None
        self._given_up: list[Pool] = []
        self._parents: list[Pool] = []

    def enter(self) -> None:
        """Get ready for a loop, also in a forked process.

        Raises:
            Exception: A client can't be made.
        """
        # They belong to the process that forked this one. They are kept, so that nothing here
        # finds their connections unused and closes them.
        self._parents += self._given_up
        if self._current is not None:
            self._parents.append(self._current)
        self._given_up = []
        self._current = self._open()

    async def leave(self) -> None:
        """Close everything. Raises nothing but a cancellation."""
        pools = [*self._given_up, *([self._current] if self._current is not None else [])]
        self._given_up, self._current = [], None
        for pool in pools:
            await _close(pool)

    async def tidy(self) -> None:
        """Open a new pool if the current one is over, and close the unused ones before it."""
        if self._current is not None and self._is_over(self._current):
            self._renew()
        unused = [pool for pool in self._given_up if not pool.in_use]
        self._given_up = [pool for pool in self._given_up if pool.in_use]
        for pool in unused:
            await _close(pool)

    def take(self) -> Pool:
        """Return the current pool for one request, after which it is to be put back."""
        assert self._current is not None, "the client is used outside of its context"
        if self._is_over(self._current):
            self._renew()
        pool = self._current
        pool.in_use += 1
        pool.used_at = self._clock.passed()
        return pool

    def put_back(self, pool: Pool) -> None:
        """Record that the request has ended, in whatever way."""
        pool.in_use -= 1
        pool.used_at = self._clock.passed()

    def give_up(self, pool: Pool | None = None) -> None:
        """Make no more requests with a pool, the current one by default; it is closed later."""
        current = self._current
        if current is not None and pool in (None, current):
            current.is_given_up = True

    def _is_over(self, pool: Pool) -> bool:
        # The library drops connections that are idle for longer, but its clock stands still while
        # the machine is asleep; that also concerns those beside a request that was in flight.
        now = self._clock.passed()
        is_stale = now - pool.used_at > KEEP_ALIVE_SECONDS
        return pool.is_given_up or is_stale or now >= pool.expires_at

    def _renew(self) -> None:
        assert self._current is not None
        self._current.is_given_up = True
        self._given_up.append(self._current)
        self._current = self._open()

    def _open(self) -> Pool:
        now = self._clock.passed()
        age = self._max_age * (1 - JITTER * self._random.random())
        return Pool(self._maker.make_client(), now + age, now)


async def _close(pool: Pool) -> None:
    # An error here would be raised in an unrelated request, or end the worker.
    with (
        anyio.CancelScope(shield=True),
        anyio.move_on_after(CLOSE_SECONDS),
        http_logging.unlogged(),
        suppress(Exception),
    ):
        await pool.client.aclose()


class AwakeAndAsleep:
    """A clock that also counts the seconds in which the machine was asleep or frozen.

    No clock does so everywhere: on macOS and Windows those for durations stand still in sleep, and
    in a virtual machine that is suspended and resumed all but the wall clock do. So the wall clock
    counts where it is ahead. Setting it forward looks like sleep, and costs new connections. One
    thread.
    """

    def __init__(self) -> None:
        self._seen = steady_clock(), wall_clock()
        self._passed = 0.0

    def passed(self) -> float:
        """Return seconds since it was made."""
        steady, wall = steady_clock(), wall_clock()
        self._passed += max(steady - self._seen[0], wall - self._seen[1], 0.0)
        self._seen = steady, wall
        return self._passed


def steady_clock() -> float:
    """Return seconds of a clock that can't be set; on Linux it goes on while the machine sleeps."""
    since_boot = seconds_since_boot()
    return monotonic() if since_boot is None else since_boot


def wall_clock() -> float:
    """Return seconds since 1970."""
    return time.time()
