"""The servers that these tests run are real: they sync, they keep what they acknowledged."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import nats
import nats.js.errors
import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import api

from tests.broker.servers import DEFAULT, NatsServer, messages_in, needed_binary
from tests.waiting import SECONDS, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.broker.servers import NatsCluster

pytestmark = pytest.mark.one_python


def publish(url: str, stream: str, numbers: Sequence[int], *, replicas: int | None = None) -> None:
    """Publish numbers, to a stream that is made where replicas are given."""

    async def main() -> None:
        async with await nats.connect(url.split(",")) as client:
            context = client.jetstream()
            if replicas:
                await context.add_stream(
                    api.StreamConfig(
                        name=stream,
                        subjects=[f"{stream}.>"],
                        num_replicas=replicas,
                        max_bytes=10 << 30,
                    )
                )
            for number in numbers:
                await context.publish(f"{stream}.x", str(number).encode(), timeout=SECONDS)

    asyncio.run(main())


def numbers_in(url: str, stream: str) -> list[int]:
    """Return the numbers in a stream."""
    return [int(each) for each in messages_in(url, stream)]


def has_messages(server: NatsServer, stream: str, count: int) -> bool:
    """Whether a server's own copy of a stream has so many messages."""
    found = server.streams().get(stream)
    return found is not None and found["state"]["messages"] == count


def test_a_server_syncs_every_write_and_takes_large_messages(server: NatsServer) -> None:
    said = server.ask("/varz")
    assert said is not None
    assert said["jetstream"]["config"]["sync_always"] is True
    assert said["max_payload"] == 8 << 20


def test_a_server_keeps_what_it_acknowledged_when_it_is_killed(tmp_path: Path, stream: str) -> None:
    with NatsServer(tmp_path) as server:
        address = server.url
        publish(address, stream, range(10), replicas=1)
        server.restart()
        assert server.url == address
        assert numbers_in(address, stream) == list(range(10))
        server.stop()
        assert not server.is_running
        server.restart()
        assert numbers_in(address, stream) == list(range(10))


def test_a_server_that_is_paused_answers_no_one_until_it_is_resumed(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        server.pause()
        assert not server.is_working
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
            client.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.recv(1)
        server.resume()
        server.wait_until_healthy()
        server.pause()  # and the end of the block ends it all the same


def test_a_port_stays_a_servers_own_while_it_does_not_run(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        server.kill()
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind(("127.0.0.1", port))


def test_options_reach_the_server(tmp_path: Path) -> None:
    options = replace(
        DEFAULT, sync="2m", max_payload="1MB", more="authorization { user: a, password: b }"
    )
    with NatsServer(tmp_path, options=options) as server:
        said = server.ask("/varz")
        assert said is not None
        assert not said["jetstream"]["config"].get("sync_always")
        assert said["max_payload"] == 1 << 20
        assert said["auth_required"] is True


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, options=replace(DEFAULT, more="no such thing"))
    with pytest.raises(AssertionError, match=r"alone has ended:\n.*Parse error"), server:
        pass


def test_nothing_of_a_server_is_left(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        assert server.process is not None
        pid = server.process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_missing_server_skips_a_test_and_fails_it_in_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTS_NATS_SERVER", str(tmp_path / "none"))
    monkeypatch.delenv("TESTS_NEED_NATS", raising=False)
    with pytest.raises(pytest.skip.Exception):
        needed_binary()
    monkeypatch.setenv("TESTS_NEED_NATS", "1")
    with pytest.raises(pytest.fail.Exception, match="TESTS_NEED_NATS"):
        needed_binary()


def test_a_cluster_keeps_what_it_acknowledged_when_its_leader_is_killed(
    cluster: NatsCluster, stream: str
) -> None:
    publish(cluster.url, stream, range(20), replicas=3)
    leader = cluster.leader_of(stream)
    leader.kill()
    assert cluster.leader_of(stream) is not leader
    publish(cluster.url, stream, range(20, 25))
    assert numbers_in(cluster.url, stream) == list(range(25))
    leader.start()
    for each in cluster.servers:
        wait_for(partial(has_messages, each, stream, 25))


def test_a_cluster_without_most_of_its_servers_takes_nothing(
    cluster: NatsCluster, stream: str
) -> None:
    publish(cluster.url, stream, range(1), replicas=3)
    leader = cluster.leader_of(stream)
    others = [each for each in cluster.servers if each is not leader]
    for each in others:
        each.kill()

    async def main() -> None:
        async with await nats.connect(leader.url) as client:
            with pytest.raises((nats.js.errors.NoStreamResponseError, NatsTimeoutError)):
                await client.jetstream().publish(f"{stream}.x", b"1", timeout=0.3)

    asyncio.run(main())
