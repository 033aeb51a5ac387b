"""While Arthur is away, workers give back what they have, and ask now and then."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from arthur_relay.row import Attempt, Batch, Failure, Outcome, RowKind, Verdict
from tests.broker.fleet import (
    Arthur,
    Broker,
    FleetWorker,
    away,
    blocked,
    packet,
    refused,
    rows_of,
    taken,
    unknown,
)
from tests.waiting import wait_for

if TYPE_CHECKING:
    from arthur_relay.broker.settings import BrokerSettings

pytestmark = pytest.mark.one_python


def test_while_arthur_is_away_a_worker_keeps_one_packet_to_ask_with(
    broker: BrokerSettings,
) -> None:
    arthur = Arthur(away)
    with (
        Broker(broker) as there,
        FleetWorker(broker, arthur, breaker_failures=1, batch_size=1) as worker,
    ):
        for number in range(12):
            there.publish_rows(f"r{number}", model=f"m{number}")
        wait_for(lambda: worker.pipeline.sender.is_down and worker.puller.packets == 1)
        returned, asked = worker.pipeline.ledger.totals().returned, len(arthur.asked)
        wait_for(lambda: len(arthur.asked) > asked + 5)  # it probes
        assert worker.pipeline.ledger.totals().returned == returned
        assert there.waiting() == 12
        arthur.script = taken
        there.wait_until_empty()
    assert len(arthur.stored) == 12
    assert arthur.twice == 0


def test_a_worker_that_alone_can_not_reach_arthur_leaves_the_rows_to_others(
    broker: BrokerSettings,
) -> None:
    cut_off, arthur = Arthur(away), Arthur()
    with (
        Broker(broker) as there,
        FleetWorker(broker, cut_off, breaker_failures=2, breaker_max_seconds=60, batch_size=5),
    ):
        for number in range(10):
            there.publish_rows(*(f"r{number}-{n}" for n in range(10)))
        wait_for(lambda: len(cut_off.asked) >= 2)
        with FleetWorker(broker, arthur, "two"):
            wait_for(lambda: len(arthur.stored) >= 90)


def test_a_worker_without_a_row_fetches_one_to_ask_with(broker: BrokerSettings) -> None:
    arthur = Arthur()
    with Broker(broker) as there, FleetWorker(broker, arthur) as worker:
        breaker = worker.pipeline.sender.breaker
        worker.pipeline.call(partial(breaker.failed, monotonic(), at_once=True))
        wait_for(lambda: worker.pipeline.sender.is_down)
        there.publish_rows("r0", model="m3")
        there.wait_until_empty()
        wait_for(lambda: not worker.pipeline.sender.is_down)


def test_what_arthur_asked_one_worker_for_holds_all(broker: BrokerSettings) -> None:
    arthur = Arthur(partial(away, retry_after=3600.0))
    with (
        Broker(broker) as there,
        FleetWorker(broker, arthur) as one,
        FleetWorker(broker, arthur, "two") as two,
    ):
        there.publish_rows("r0")
        wait_for(lambda: arthur.asked)
        arthur.script = taken
        breakers = [one.pipeline.sender.breaker, two.pipeline.sender.breaker]
        wait_for(lambda: all(each.held(monotonic()) > 0 for each in breakers))
        there.publish_rows("r1", model="other")
        with FleetWorker(broker, arthur, "three") as late:
            wait_for(lambda: late.pipeline.sender.breaker.held(monotonic()) > 0, 5.0)
            # By the broker's clock it has lasted for a while.
            assert late.pipeline.sender.breaker.held(monotonic()) < 3600.0
            assert len(arthur.asked) == 1
    assert len(arthur.asked) == 1


def test_a_hold_ends(broker: BrokerSettings) -> None:
    arthur = Arthur(partial(away, retry_after=1.0))
    with Broker(broker) as there, FleetWorker(broker, arthur), FleetWorker(broker, arthur, "two"):
        there.publish_rows("r0")
        wait_for(lambda: arthur.asked)
        arthur.script = taken
        there.wait_until_empty()
    assert arthur.asked[1][0] - arthur.asked[0][0] >= 1.0


def test_a_key_that_is_refused_for_one_worker_holds_all(broker: BrokerSettings) -> None:
    arthur = Arthur(refused)
    with (
        Broker(broker) as there,
        FleetWorker(broker, arthur, breaker_max_seconds=1.0),
        FleetWorker(broker, arthur, "two", breaker_max_seconds=1.0) as two,
    ):
        there.publish_rows("r0")
        wait_for(lambda: arthur.asked)
        who = arthur.asked[0][1]
        wait_for(lambda: len(arthur.asked) >= 3)
        assert {worker for _, worker, _ in arthur.asked} == {who}
        arthur.script = taken
        there.wait_until_empty()
        assert two.puller.failed_acknowledgements == 0


def test_ground_truth_waits_for_its_inference_wherever_that_is(broker: BrokerSettings) -> None:
    arthur = Arthur()

    def script(batch: Batch) -> Attempt:
        is_truth = batch.rows[0].kind is RowKind.GROUND_TRUTH
        return unknown(batch) if is_truth and "r0" not in arthur.stored else taken(batch)

    arthur.script = script
    with Broker(broker) as there, FleetWorker(broker, arthur), FleetWorker(broker, arthur, "two"):
        there.publish_rows("r0", kind=RowKind.GROUND_TRUTH)
        wait_for(lambda: arthur.asked)
        there.publish_rows("r0")
        there.wait_until_empty()
    assert arthur.stored["r0"] == 2  # itself, and its ground truth


def test_ground_truth_that_waits_for_long_holds_no_place(
    broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.broker.setting_apart.HELD_SECONDS", 0.1)
    broker = broker.model_copy(update={"in_flight": 9})  # one packet a consumer
    arthur = Arthur()
    sinces: dict[str, set[float | None]] = {}

    def script(batch: Batch) -> Attempt:
        for row in batch.rows:
            sinces.setdefault(row.id, set()).add(row.history.unknown_since)
        return unknown(batch) if batch.rows[0].id.startswith("u") else taken(batch)

    arthur.script = script
    with Broker(broker) as there, FleetWorker(broker, arthur) as worker:
        there.publish_rows("u0", "u1", kind=RowKind.GROUND_TRUTH)
        wait_for(lambda: arthur.asked)
        there.publish_rows("r0", kind=RowKind.GROUND_TRUTH)
        wait_for(lambda: arthur.stored["r0"])
        wait_for(lambda: len(sinces["u0"]) == 2)
        assert there.waiting() == 1
        assert worker.puller.redelivered_rows == 0
    first, known = sorted(sinces["u1"], key=lambda since: since or 0.0)
    assert first is None
    assert known is not None


def throttled(batch: Batch, retry_after: float = 3600.0) -> Attempt:
    outcomes = (Outcome(Verdict.RETRY, "http 429", 429),) * len(batch.rows)
    return Attempt(outcomes, Failure.THROTTLED, "http 429", retry_after)


def test_a_model_that_has_to_wait_holds_up_no_other_one_of_its_bucket(
    broker: BrokerSettings,
) -> None:
    broker = broker.model_copy(update={"in_flight": 18})  # two packets a consumer
    slow = "slow"
    bucket = packet(rows_of("r", model=slow)).subject("s").split(".")[3]
    quick = next(
        model
        for model in (f"m{number}" for number in range(1000))
        if packet(rows_of("r", model=model)).subject("s").split(".")[3] == bucket
    )
    arthur = Arthur(lambda batch: throttled(batch) if batch.model_id == slow else taken(batch))
    with Broker(broker) as there, FleetWorker(broker, arthur) as worker:
        for number in range(8):
            there.publish_rows(f"s{number}", model=slow)
        wait_for(lambda: arthur.asked)
        there.publish_rows("r0", model=quick)
        wait_for(lambda: arthur.stored["r0"], 15.0)
        wait_for(lambda: there.waiting() == 8)
        worker.check(rejected=0)
        # One was on its way when Arthur asked for the hold, and the others wait in the broker.
        wait_for(lambda: worker.puller.packets == 3 and there.in_hand("scope-apart") == 2)
        there.publish_rows("r1", model=quick)
        wait_for(lambda: arthur.stored["r1"], 2.0)
    assert not any(arthur.stored[f"s{number}"] for number in range(8))


def test_what_waited_apart_is_delivered_once_its_model_may_go(
    broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.broker.setting_apart.HELD_SECONDS", 0.1)
    arthur = Arthur(partial(throttled, retry_after=2.0))
    broker = broker.model_copy(update={"in_flight": 18})
    with Broker(broker) as there, FleetWorker(broker, arthur):
        for number in range(6):
            there.publish_rows(f"s{number}")
        wait_for(lambda: there.in_hand("scope-apart") == 2)
        arthur.script = taken
        there.wait_until_empty()
    assert len(arthur.stored) == 6
    assert arthur.twice == 0


def test_what_is_blocked_is_kept_alive(broker: BrokerSettings) -> None:
    broker = broker.model_copy(update={"ack_wait_seconds": 1.0})
    arthur = Arthur()
    with (
        Broker(broker) as there,
        FleetWorker(broker, arthur) as one,
        FleetWorker(broker, arthur, "two") as two,
        blocked(arthur) as go_on,
    ):
        there.publish_rows("r0")
        wait_for(lambda: arthur.asked)
        began = monotonic()
        wait_for(lambda: monotonic() > began + 2.0)
        go_on.set()
        there.wait_until_empty()
        assert one.puller.redelivered_rows + two.puller.redelivered_rows == 0
    assert arthur.twice == 0
