"""A worker delivers each packet, acknowledges it, and gives back what it does not deliver."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.broker.workers import Arthur, Broker, FleetWorker, blocked
from tests.waiting import wait_for

if TYPE_CHECKING:
    from arthur_relay.broker.settings import BrokerSettings

pytestmark = pytest.mark.one_python


def test_rows_are_delivered_and_forgotten_by_the_broker(broker: BrokerSettings) -> None:
    arthur = Arthur()
    with Broker(broker) as there, FleetWorker(broker, arthur) as worker:
        for number in range(20):
            there.publish_rows(*(f"r{number}-{n}" for n in range(5)), model=f"m{number}")
        there.wait_until_empty()
        wait_for(lambda: worker.puller.packets == 0)
        worker.check(captured=100, delivered=100, pending=0)
        assert worker.puller.redelivered_rows == 0
    assert len(arthur.stored) == 100
    assert arthur.twice == 0


def test_a_packet_that_comes_alone_is_sent_at_once(broker: BrokerSettings) -> None:
    """Whatever else a question for several might bring."""
    arthur = Arthur()
    with Broker(broker) as there, FleetWorker(broker, arthur):
        for number in range(3):
            there.publish_rows(f"r{number}")
            wait_for(partial(arthur.stored.get, f"r{number}"), 1.0)


def test_a_stop_gives_back_what_is_not_sent_and_waits_for_what_is(broker: BrokerSettings) -> None:
    arthur = Arthur()
    with Broker(broker) as there, blocked(arthur) as go_on:
        with FleetWorker(broker, arthur, max_in_flight=1, batch_size=10) as worker:
            for number in range(6):
                there.publish_rows(*(f"r{number}-{n}" for n in range(10)))
            wait_for(lambda: arthur.asked and worker.puller.packets == 6)
            worker.puller.prepare_stop()
            worker.pipeline.call(worker.puller.stop)
            wait_for(lambda: worker.pipeline.ledger.totals().returned)
            go_on.set()
            worker.stop()
            worker.check(captured=60, delivered=10, returned=50)
        assert there.waiting() == 5
        with FleetWorker(broker, arthur) as other:
            there.wait_until_empty(1.5)  # less than the broker's own time
            wait_for(lambda: other.puller.packets == 0)
            assert other.puller.redelivered_rows == 50
    assert len(arthur.stored) == 60
    assert arthur.twice == 0
