"""A worker delivers each packet, acknowledges it, and gives back what it does not deliver."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from arthur_relay.broker.link import Link
from arthur_relay.broker.models import SharedModels
from arthur_relay.dead_letters import DeadLetters
from arthur_relay.encoding.product import Product
from arthur_relay.row import Attempt, Batch, Outcome, Verdict
from tests.broker.fleet import (
    Arthur,
    Broker,
    DyingOnce,
    FleetWorker,
    blocked,
    drain,
    packet,
    rows_of,
    taken,
)
from tests.dead_letters.test_dead_letters import Broken
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
            wait_for(partial(arthur.stored.get, f"r{number}"), 4.0)  # a question waits for 5 s


def test_a_stop_gives_back_what_is_not_sent_and_waits_for_what_is(broker: BrokerSettings) -> None:
    # Far longer than the test waits: nothing comes again but what was given back.
    broker = broker.model_copy(update={"ack_wait_seconds": 60.0})
    arthur = Arthur()
    with Broker(broker) as there, blocked(arthur) as go_on:
        with FleetWorker(broker, arthur, max_in_flight=1, batch_size=10) as worker:
            for number in range(6):
                there.publish_rows(*(f"r{number}-{n}" for n in range(10)))
            wait_for(lambda: arthur.asked and worker.puller.packets == 6)
            stopping = threading.Thread(target=worker.stop)
            stopping.start()
            wait_for(lambda: worker.pipeline.ledger.totals().returned)
            go_on.set()
            stopping.join()
            worker.check(captured=60, delivered=10, returned=50)
        assert there.waiting() == 5
        with FleetWorker(broker, arthur) as other:
            there.wait_until_empty()
            wait_for(lambda: other.puller.packets == 0)
            assert other.puller.redelivered_rows == 50
    assert len(arthur.stored) == 60
    assert arthur.twice == 0


def test_a_packet_settled_in_part_goes_back_as_what_is_left(broker: BrokerSettings) -> None:
    # Far longer than the test waits: nothing comes again but what was given back.
    broker = broker.model_copy(update={"ack_wait_seconds": 60.0})
    arthur = Arthur()

    async def script(batch: Batch) -> Attempt:
        if batch.rows[0].id == "r0":
            return taken(batch)
        await go_on.wait()
        raise AssertionError("it is cancelled first")

    go_on = anyio.Event()
    arthur.script = script
    with Broker(broker) as there:
        with FleetWorker(broker, arthur, max_in_flight=2, batch_size=1) as worker:
            there.publish_rows("r0", "r1", "r2", "r3")
            wait_for(lambda: arthur.stored["r0"] and len(arthur.asked) > 1)
            asyncio.run(drain(worker.pipeline, worker.puller, 1.0))
            worker.check(captured=4, delivered=1, returned=3)
        assert there.waiting() == 1
        arthur.script = taken
        with FleetWorker(broker, arthur) as other:
            there.wait_until_empty()
            assert other.puller.redelivered_rows == 0
    assert dict(arthur.stored) == dict.fromkeys(["r0", "r1", "r2", "r3"], 1)


def test_a_worker_that_dies_and_is_started_again_goes_on_with_its_packets(
    broker: BrokerSettings,
) -> None:
    arthur = DyingOnce()
    with Broker(broker) as there, FleetWorker(broker, arthur) as worker:
        there.publish_rows("r0", "r1")
        there.publish_rows("r2", model="other")
        there.wait_until_empty()
        wait_for(lambda: worker.puller.packets == 0)
        worker.check(captured=3, delivered=3)
        assert worker.pipeline.restarts == 1
    assert dict(arthur.stored) == {"r0": 1, "r1": 1, "r2": 1}


def test_a_worker_that_was_dead_for_too_long_leaves_its_packets_to_others(
    broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.runtime.thread.FIRST_RESTART_SECONDS", 1.6)
    broker = broker.model_copy(update={"ack_wait_seconds": 1.0})
    arthur = DyingOnce()
    with Broker(broker) as there, FleetWorker(broker, arthur) as worker:
        there.publish_rows("r0", "r1")
        wait_for(lambda: arthur.has_killed)
        with FleetWorker(broker, arthur, "two") as other:
            there.wait_until_empty()
            wait_for(lambda: worker.pipeline.ledger.totals().returned)
            worker.check(captured=2, returned=2)
            other.check(delivered=2)
    assert dict(arthur.stored) == {"r0": 1, "r1": 1}


def test_a_message_that_is_no_packet_becomes_a_dead_letter(broker: BrokerSettings) -> None:
    good = packet(rows_of("r0"))
    with Broker(broker) as there, FleetWorker(broker, Arthur()) as worker:
        subject = good.subject(broker.stream)
        there.do(there.connection.publish(subject, b"?", {}, seconds=5))
        there.do(there.connection.publish(subject, b"?", packet(good.rows).headers(), seconds=5))
        there.publish(good)
        there.wait_until_empty()
        assert {letter.body for _, letter in worker.letters.letters()} == {b"?"}
        worker.check(captured=1, delivered=1, rejected=0)


def test_what_a_worker_learns_of_a_model_is_known_to_gateways(broker: BrokerSettings) -> None:
    with Broker(broker) as there, FleetWorker(broker, Arthur()) as worker:
        models = SharedModels(Link(there.connection, [Product.SCOPE]), Product.SCOPE)
        assert there.do(models.find("m", by_partner_id=False)) is None
        answer = worker.pipeline.inquire("m", by_partner_id=False).result(10.0)
        found = wait_for(lambda: there.do(models.find("m", by_partner_id=False)))
        assert found == answer.document


def test_a_packet_of_a_later_version_is_left_to_newer_workers(
    broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.broker.fetching.NEWER_SECONDS", 0.05)
    monkeypatch.setattr("arthur_relay.broker.fetching.NEWER_TIMES", 20)
    later = packet(rows_of("r0"))
    with Broker(broker) as there, FleetWorker(broker, Arthur()) as worker:
        headers = {**later.headers(), "Relay-Version": "2"}
        subject = later.subject(broker.stream)
        there.do(there.connection.publish(subject, later.body(), headers))
        wait_for(lambda: worker.puller.newer_packets >= 3)
        assert there.waiting() == 1
        assert not list(worker.letters.letters())
        monkeypatch.setattr("arthur_relay.broker.packets.VERSION", "2")  # the worker is upgraded
        there.wait_until_empty()
        worker.check(captured=1, delivered=1, rejected=0)


def test_a_packet_of_a_later_version_does_not_wait_for_ever(
    broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.broker.fetching.NEWER_SECONDS", 0.05)
    monkeypatch.setattr("arthur_relay.broker.fetching.NEWER_TIMES", 3)
    later = packet(rows_of("r0"))
    with Broker(broker) as there, FleetWorker(broker, Arthur()) as worker:
        headers = {**later.headers(), "Relay-Version": "2"}
        there.do(there.connection.publish(later.subject(broker.stream), later.body(), headers))
        there.wait_until_empty()
        assert worker.puller.newer_packets == 3
        assert [each.body for _, each in worker.letters.letters()] == [later.body()]


def test_a_packet_is_kept_until_the_dead_letters_of_its_rows_are_safe(
    broker: BrokerSettings,
) -> None:
    # Far longer than the test waits: nothing comes again but what was given back.
    broker = broker.model_copy(update={"ack_wait_seconds": 60.0})

    def script(batch: Batch) -> Attempt:
        return Attempt((Outcome(Verdict.REJECTED, "row 422", 422),) * len(batch.rows))

    with Broker(broker) as there, FleetWorker(broker, Arthur(script)) as worker:
        keeper = Broken()
        worker.pipeline.worker.dead_letters = DeadLetters([keeper])
        worker.pipeline.worker.settlement.dead_letters = worker.pipeline.worker.dead_letters
        there.publish_rows("r0")
        wait_for(lambda: worker.pipeline.ledger.totals().rejected)
        assert there.waiting() == 1
        worker.stop()
        assert there.waiting() == 1
        with FleetWorker(broker, Arthur(script), "two") as other:
            there.wait_until_empty()
            assert len(list(other.letters.letters())) == 1


def test_rows_that_another_worker_had_may_have_arrived(broker: BrokerSettings) -> None:
    """Arthur says that it has them, and that is as good as taking them."""
    broker = broker.model_copy(update={"ack_wait_seconds": 1.0})
    arthur = Arthur()

    def has_it(batch: Batch) -> Attempt:
        return Attempt((Outcome(Verdict.REJECTED, "row 409", 409),) * len(batch.rows))

    with Broker(broker) as there, blocked(arthur):
        there.publish_rows("r0")
        with FleetWorker(broker, arthur) as first:
            wait_for(lambda: arthur.asked)
            first.kill()
        arthur.script = has_it
        with FleetWorker(broker, arthur, "two") as other:
            there.wait_until_empty()
            other.check(captured=1, delivered=1, rejected=0)
            assert other.puller.redelivered_rows == 1


def test_all_workers_together_have_no_more_in_hand_than_the_consumers_allow(
    broker: BrokerSettings,
) -> None:
    broker = broker.model_copy(update={"in_flight": 9 * 4})
    arthur = Arthur()
    with (
        Broker(broker) as there,
        FleetWorker(broker, arthur) as one,
        FleetWorker(broker, arthur, "two") as two,
        blocked(arthur) as go_on,
    ):
        for number in range(12):
            there.publish_rows(f"r{number}")
        wait_for(lambda: one.puller.packets + two.puller.packets == 4)
        for _ in range(20):
            assert one.puller.packets + two.puller.packets <= 4
            assert there.waiting() == 12
        go_on.set()
        there.wait_until_empty()
    assert len(arthur.stored) == 12
    assert arthur.twice == 0


def test_a_model_of_which_nothing_goes_through_takes_no_more_than_its_share(
    broker: BrokerSettings,
) -> None:
    broker = broker.model_copy(update={"ahead_bytes": 40_000, "packet_bytes": 1024})
    arthur = Arthur()

    async def script(batch: Batch) -> Attempt:
        if batch.model_id == "stuck":
            await anyio.sleep_forever()
        return taken(batch)

    arthur.script = script
    with Broker(broker) as there, FleetWorker(broker, arthur) as worker:
        for number in range(200):
            there.publish_rows(*(f"s{number}-{n}" for n in range(10)), model="stuck")
        most = broker.ahead_bytes // 2 + 5000
        wait_for(lambda: worker.inbox.size > most - 10_000)
        for number in range(20):
            there.publish_rows(f"r{number}", model=f"m{number}")
        wait_for(lambda: len(arthur.stored) >= 17)  # some models may share a bucket with it
        assert worker.inbox.size <= most
        asyncio.run(drain(worker.pipeline, worker.puller, 0.5))
