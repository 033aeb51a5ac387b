"""Connections that are dead without a sign, or old: others are made."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from arthur_relay import Relay, RelaySettings
from arthur_relay.credentials import resolve_credentials
from arthur_relay.destinations.pools import KEEP_ALIVE_SECONDS, AwakeAndAsleep, Pools
from arthur_relay.destinations.scope.client import ScopeDestination
from tests.end_to_end.conftest import QUICK, capture
from tests.end_to_end.fronts import Front, read_message
from tests.randomness import Always

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox


class Forgetful(Front):
    """Passes requests on, until it forgets the connections that there are: a firewall.

    What comes by them afterwards goes nowhere, and nothing is ever said; new ones pass.
    """

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.passed = 0
        self._lock = threading.Lock()
        self._period = 0

    def forget(self) -> None:
        """Forget the connections that there are."""
        self._period += 1

    def serve(self, connection: socket.socket, there: socket.socket) -> None:
        period = self._period
        while request := read_message(connection):
            if period == self._period:
                with self._lock:
                    self.passed += 1
                there.sendall(request)
                connection.sendall(read_message(there))


# httpcore 1.0.0 leaves the socket of a request that is cancelled; the fixture has it collected.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("left_sockets_are_collected")
def test_after_a_time_out_what_was_idle_beside_it_is_not_used(sandbox: ArthurSandbox) -> None:
    with Forgetful(int(sandbox.url.rpartition(":")[2])) as front:
        relay = Relay.from_credentials(
            sandbox.model_id,
            f"http://127.0.0.1:{front.port}",
            sandbox.login,
            sandbox.password,
            settings=RelaySettings(
                **{**QUICK, "batch_size": 1, "max_in_flight": 8, "request_timeout_seconds": 1.5}
            ),
        )
        sandbox.faults.slow(0.5)
        capture(relay, *(f"r{number}" for number in range(40)))
        assert relay.flush(60).delivered == 40
        sandbox.faults.reset()
        connections = sum(1 for _ in iter(lambda: front.attempts.acquire(blocking=False), False))
        assert connections > 4  # each of them would take a second and a half
        front.forget()
        capture(relay, "thawed")
        result = relay.flush(5)
        assert (result.delivered, result.pending) == (41, 0)
        relay.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("left_sockets_are_collected")
@pytest.mark.parametrize("seconds", [KEEP_ALIVE_SECONDS + 1, 3600.0])
def test_after_a_silence_a_flush_does_not_wait_for_a_dead_connection(
    seconds: float, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = 0.0  # seconds in which only the wall clock goes on, as where a machine is asleep
    monkeypatch.setattr("arthur_relay.destinations.pools.wall_clock", lambda: time.time() + away)
    with Forgetful(int(sandbox.url.rpartition(":")[2])) as front:
        relay = Relay.from_credentials(
            sandbox.model_id,
            f"http://127.0.0.1:{front.port}",
            sandbox.login,
            sandbox.password,
            settings=RelaySettings(),  # a request may take 30 s
        )
        capture(relay, "before")
        assert relay.flush(30).delivered == 1
        front.forget()
        away += seconds
        capture(relay, "thawed")
        result = relay.flush(5)
        assert (result.delivered, result.pending) == (2, 0)
        assert relay.stats().retries == 0
        relay.close()


def test_a_steady_stream_does_not_stay_with_a_connection_for_ever(sandbox: ArthurSandbox) -> None:
    with Forgetful(int(sandbox.url.rpartition(":")[2])) as front:
        relay = Relay.from_credentials(
            sandbox.model_id,
            f"http://127.0.0.1:{front.port}",
            sandbox.login,
            sandbox.password,
            settings=RelaySettings(**{**QUICK, "connection_max_age_seconds": 0.05}),
        )
        for number in range(1000):
            capture(relay, f"r{number}")
            assert not relay.flush(30).timed_out
            if front.attempts.acquire(timeout=0.01) and number > 2:
                break
        else:
            pytest.fail("no other connection was made")
        relay.close()


def test_a_renewal_which_sighup_asks_for_makes_new_connections(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None is made for another reason, however slow the machine is.
    monkeypatch.setattr("arthur_relay.destinations.pools.KEEP_ALIVE_SECONDS", 3600.0)
    with Forgetful(int(sandbox.url.rpartition(":")[2])) as front:
        credentials = resolve_credentials(
            url=f"http://127.0.0.1:{front.port}",
            login=sandbox.login,
            password=sandbox.password,
            allow_insecure=False,
        )
        settings = RelaySettings(**QUICK)
        destination = ScopeDestination.of(credentials, settings)
        relay = Relay(destination, model_id=sandbox.model_id, settings=settings)
        for number in range(3):
            capture(relay, f"r{number}")
            assert not relay.flush(30).timed_out
        assert front.attempts.acquire(timeout=30)
        assert not front.attempts.acquire(blocking=False)
        renewed = threading.Event()
        relay._host.pipeline.runtime.call(lambda: destination.renew(credentials))
        relay._host.pipeline.runtime.call(renewed.set)
        assert renewed.wait(30)
        capture(relay, "renewed")
        assert relay.flush(30).delivered == 4
        assert front.attempts.acquire(timeout=30)
        relay.close()


class Clients:
    """Makes clients, and knows which are open."""

    def __init__(self) -> None:
        self.made: list[httpx.AsyncClient] = []

    def make_client(self) -> httpx.AsyncClient:
        self.made.append(httpx.AsyncClient())
        return self.made[-1]

    @property
    def open(self) -> list[int]:
        return [number for number, client in enumerate(self.made) if not client.is_closed]


class Clock:
    now = 1000.0

    def passed(self) -> float:
        return self.now


@pytest.fixture
def clients() -> Clients:
    return Clients()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pools(clients: Clients, clock: Clock) -> Pools:
    return Pools(clients, max_age_seconds=300.0, random=Always(0.5), clock=clock)


def test_a_pool_is_replaced_at_its_age_and_closed_when_nobody_uses_it(
    pools: Pools, clients: Clients, clock: Clock
) -> None:
    async def use() -> None:
        pools.enter()
        long = pools.take()
        while clock.now < 1280:
            clock.now += KEEP_ALIVE_SECONDS
            await pools.tidy()
            pool = pools.take()
            assert pool is long
            pools.put_back(pool)
        clock.now = 1286  # the limit is five minutes, less half of the jitter: 285 s
        await pools.tidy()
        pool = pools.take()
        assert pool is not long
        assert clients.open == [0, 1]  # a request is still on its way in the first
        pools.put_back(long)
        await pools.tidy()
        assert clients.open == [1]
        await pools.leave()
        assert clients.open == []

    anyio.run(use)


def test_a_pool_that_nobody_used_while_the_machine_was_asleep_is_not_used_again(
    pools: Pools, clients: Clients, clock: Clock
) -> None:
    async def use() -> None:
        pools.enter()
        pool = pools.take()
        pools.put_back(pool)
        clock.now += KEEP_ALIVE_SECONDS - 1
        again = pools.take()
        assert again is pool
        pools.put_back(again)
        clock.now += KEEP_ALIVE_SECONDS + 1
        assert pools.take() is not pool
        await pools.tidy()
        assert clients.open == [1]
        await pools.leave()

    anyio.run(use)


def test_a_request_on_its_way_keeps_no_idle_connections_beside_it(
    pools: Pools, clients: Clients, clock: Clock
) -> None:
    async def use() -> None:
        pools.enter()
        slow, other = pools.take(), pools.take()
        assert slow is other
        pools.put_back(other)
        clock.now += 60  # asleep
        assert pools.take() is not slow
        await pools.tidy()
        assert clients.open == [0, 1]
        pools.put_back(slow)
        await pools.tidy()
        assert clients.open == [1]
        await pools.leave()

    anyio.run(use)


def test_the_clock_counts_what_any_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    steady, wall = Clock(), Clock()
    monkeypatch.setattr("arthur_relay.destinations.pools.steady_clock", steady.passed)
    monkeypatch.setattr("arthur_relay.destinations.pools.wall_clock", wall.passed)
    now = AwakeAndAsleep().passed
    assert now() == 0
    steady.now += 3
    wall.now += 3
    assert now() == 3
    wall.now += 100  # asleep, on macOS
    assert now() == 103
    steady.now += 100  # asleep on Linux, and the wall clock is set later
    assert now() == 203
    wall.now -= 5000  # set back
    steady.now += 1
    assert now() == 204
    steady.now += 1
    assert now() == 205


def test_connections_are_renewed_when_that_is_asked_for(
    pools: Pools, clients: Clients, clock: Clock
) -> None:
    async def use() -> None:
        pools.enter()
        pool = pools.take()
        pools.give_up()
        other = pools.take()
        assert other is not pool
        pools.give_up(pool)  # it is given up already: the other stays
        third = pools.take()
        assert third is other
        for each in (pool, other, third):
            pools.put_back(each)
        await pools.tidy()
        assert clients.open == [1]
        await pools.leave()

    anyio.run(use)
