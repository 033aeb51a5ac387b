"""Gateways and workers in processes: what a gateway accepts arrives, whoever is killed."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from arthur_relay.broker.settings import BrokerSettings
from tests.broker.fleet import (
    SETTLED,
    Fleet,
    at_arthur,
    counts,
    send,
    wait_until_all_arrived,
)
from tests.broker.servers import NatsCluster
from tests.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox


def ids(requests: int, rows: int, prefix: str = "r") -> list[list[str]]:
    return [[f"{prefix}{request}-{row}" for row in range(rows)] for request in range(requests)]


def test_what_a_gateway_accepts_a_worker_delivers(
    sandbox: ArthurSandbox, tmp_path: Path, broker: BrokerSettings
) -> None:
    with Fleet(sandbox, tmp_path, broker) as fleet:
        client = fleet.gateway()
        (worker,) = fleet.start("worker")
        accepted = [one for each in ids(20, 50) for one in send(client, sandbox.model_id, each)]
        assert len(accepted) == 1000
        wait_until_all_arrived(sandbox, accepted)
        wait_for(lambda: counts(worker)["pending"] == 0)
        found = counts(worker)
        assert found["captured"] == found["delivered"] == 1000
        assert set(at_arthur(sandbox).values()) == {1}
        assert worker.end() == 0


def test_a_worker_that_stops_gives_back_what_it_has_not_sent(
    sandbox: ArthurSandbox, tmp_path: Path, broker: BrokerSettings
) -> None:
    sandbox.faults.status(503, times=None)
    with Fleet(sandbox, tmp_path, broker) as fleet:
        client = fleet.gateway()
        (first,) = fleet.start("worker")
        accepted = [one for each in ids(10, 20) for one in send(client, sandbox.model_id, each)]
        wait_for(lambda: counts(first)["captured"])
        assert first.end() == 0
        sandbox.faults.reset()
        (second,) = fleet.start("worker")
        # At once, and not when the first one's time is over.
        wait_until_all_arrived(sandbox, accepted)
        assert len(accepted) == 200
        wait_for(lambda: counts(second)["delivered"] == 200)


def test_what_a_killed_worker_had_others_deliver(
    sandbox: ArthurSandbox, tmp_path: Path, broker: BrokerSettings
) -> None:
    sandbox.faults.slow(0.2, times=None)
    with Fleet(sandbox, tmp_path, broker) as fleet:
        client = fleet.gateway()
        first, second = fleet.start("worker", 2)
        accepted = [one for each in ids(30, 20) for one in send(client, sandbox.model_id, each)]
        wait_for(lambda: counts(first)["captured"])
        first.end(signal.SIGKILL)
        sandbox.faults.reset()
        wait_until_all_arrived(sandbox, accepted)
        wait_for(lambda: counts(second)["pending"] == 0)
        settled = sum(counts(second)[name] for name in SETTLED)
        assert settled <= len(accepted) == 600


@pytest.mark.one_python
def test_nothing_accepted_is_lost_when_the_brokers_leader_dies(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    with NatsCluster(tmp_path) as cluster:
        broker = BrokerSettings(url=cluster.url, bytes=64 << 20, ack_wait_seconds=5.0)
        with Fleet(sandbox, tmp_path, broker) as fleet:
            client = fleet.gateway()
            fleet.start("worker")
            accepted = [one for each in ids(5, 20) for one in send(client, sandbox.model_id, each)]
            leader = cluster.leader_of(broker.stream)
            with ThreadPoolExecutor(4) as pool:
                waiting = [
                    pool.submit(send, client, sandbox.model_id, each) for each in ids(40, 20, "k")
                ]
                leader.kill()
                during = [one for each in waiting for one in each.result()]
            assert during, "the election was not waited for"
            leader.start()
            wait_until_all_arrived(sandbox, [*accepted, *during])
            for each in cluster.servers:
                each.kill()
            for each in cluster.servers:
                each.start()
            cluster.wait_until_healthy()
            after = send(client, sandbox.model_id, ["last"])
            assert after == ["last"]
            wait_until_all_arrived(sandbox, after)
