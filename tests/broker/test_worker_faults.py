"""What a worker does when the broker is away or hangs, to the row; see also `test_faults`."""

from __future__ import annotations

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
