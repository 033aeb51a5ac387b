"""What a worker does when the broker is away, hangs or loses its leader."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from arthur_relay.broker.settings import BrokerSettings
from arthur_relay.row import Attempt, Batch
from tests.broker.fleet import Arthur, Broker, FleetWorker, blocked, taken
from tests.broker.servers import NatsServer
from tests.waiting import Gate, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker.servers import NatsCluster

pytestmark = pytest.mark.one_python


def settings_for(server: NatsServer, stream: str, **fields: float) -> BrokerSettings:
    return BrokerSettings(
        url=server.url,
        stream=stream,
        replicas=1,
        allow_unreplicated=True,
        bytes=64 << 20,
        **{"ack_wait_seconds": 60.0, **fields},
    )


def test_what_was_delivered_is_acknowledged_once_the_broker_is_back(
    tmp_path: Path, stream: str
) -> None:
    arthur = Arthur()
    with NatsServer(tmp_path) as server:
        broker = settings_for(server, stream)
        with Broker(broker) as there, FleetWorker(broker, arthur) as worker:
            with blocked(arthur) as go_on:
                for number in range(5):
                    there.publish_rows(f"r{number}")
                wait_for(lambda: worker.puller.packets == 5)
                server.kill()
                go_on.set()
                wait_for(lambda: worker.pipeline.ledger.totals().delivered == 5)
                wait_for(lambda: worker.puller.failed_acknowledgements)
            server.restart()
            wait_for(lambda: worker.puller.packets == 0)
            with Broker(broker) as again:
                again.publish_rows("later")
                again.wait_until_empty()
            worker.check(captured=6, delivered=6)
            assert worker.puller.redelivered_rows == 0
    assert arthur.twice == 0


def test_rows_that_others_may_have_by_now_are_not_sent(tmp_path: Path, stream: str) -> None:
    """A worker that was cut off from the broker for too long does not know who has them."""
    first, others = Gate(), Gate()

    async def script(batch: Batch) -> Attempt:
        await (first if batch.rows[0].id == "r0" else others).wait()
        return taken(batch)

    arthur = Arthur(script)
    with NatsServer(tmp_path) as server:
        broker = settings_for(server, stream, ack_wait_seconds=1.0)
        with (
            Broker(broker) as there,
            FleetWorker(broker, arthur, max_in_flight=2, batch_size=1) as worker,
        ):
            for number in range(8):
                there.publish_rows(f"r{number}")
            wait_for(lambda: worker.puller.packets == 8 and len(arthur.asked) == 2)
            server.pause()
            wait_for(lambda: worker.pipeline.ledger.totals().returned >= 4)
            server.resume()
            others.set()
            # What is still on its way, and not ours any more, keeps nothing else.
            wait_for(lambda: len(arthur.stored) == 7)
            first.set()
            there.wait_until_empty()
            worker.check(pending=0)
    assert len(arthur.stored) == 8
    assert arthur.twice <= 3  # two were on their way, and one was next


@pytest.mark.parametrize("fault", ["leader", "all"])
def test_nothing_is_lost_when_nodes_are_killed_while_two_workers_deliver(
    cluster: NatsCluster, stream: str, fault: str
) -> None:
    arthur = Arthur()
    broker = BrokerSettings(url=cluster.url, stream=stream, bytes=64 << 20, ack_wait_seconds=5.0)
    with ExitStack() as stack:
        there = stack.enter_context(Broker(broker))
        workers = [
            stack.enter_context(FleetWorker(broker, arthur, name, max_in_flight=2, batch_size=10))
            for name in ("one", "two")
        ]
        accepted = 0
        for number in range(20):
            there.publish_rows(*(f"r{number}-{n}" for n in range(20)), model=f"m{number % 5}")
            accepted += 20
        wait_for(lambda: len(arthur.stored) > 20)
        if fault == "leader":
            cluster.leader_of(stream).kill()
        else:
            cluster.kill_all()
            for each in cluster.servers:
                each.start()
        wait_for(partial(all_arrived, arthur, accepted), 60.0)
        wait_for(lambda: not any(worker.puller.packets for worker in workers), 60.0)
        totals = [worker.pipeline.ledger.totals() for worker in workers]
        done = sum(each.delivered + each.rejected for each in totals)
        assert done == accepted + arthur.twice
        redelivered = sum(worker.puller.redelivered_rows for worker in workers)
        assert arthur.twice <= redelivered


def all_arrived(arthur: Arthur, accepted: int) -> bool:
    return len(arthur.stored) == accepted


def test_a_stop_while_the_broker_is_away_ends_in_time(tmp_path: Path, stream: str) -> None:
    arthur = Arthur()
    with NatsServer(tmp_path) as server:
        broker = settings_for(server, stream)
        with Broker(broker) as there, FleetWorker(broker, arthur) as worker, blocked(arthur):
            there.publish_rows("r0")
            wait_for(lambda: worker.puller.packets == 1)
            server.kill()
            began = monotonic()
            worker.stop(seconds=3.0)
            assert monotonic() - began < 4.0
            worker.check(captured=1, returned=1)
