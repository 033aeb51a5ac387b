"""A row that kills workers is found, and costs no other row."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from arthur_relay.broker.shared import Shared
from arthur_relay.delivery.batching import SET_ASIDE
from arthur_relay.row import Attempt, Batch
from tests.broker.fleet import Arthur, Broker, FleetWorker, packet, rows_of, taken
from tests.waiting import Gate, wait_for

if TYPE_CHECKING:
    from arthur_relay.broker.settings import BrokerSettings

pytestmark = pytest.mark.one_python


class Killing(Arthur):
    """An Arthur whose answer to a row called "killer" is the worker's death."""

    def __init__(self) -> None:
        super().__init__(self._kill)
        self.kills = 0
        self.has_killed = threading.Event()

    async def _kill(self, batch: Batch) -> Attempt:
        if any(row.id == "killer" for row in batch.rows):
            self.has_killed.set()
            await anyio.sleep_forever()
        return taken(batch)

    def live(self, broker: BrokerSettings, there: Broker) -> list[str]:
        """Run workers, each until it is killed. Returns the reasons of their dead letters."""
        reasons: list[str] = []
        while there.waiting():
            self.has_killed.clear()
            with FleetWorker(broker, self, f"worker {self.kills}") as worker:
                wait_for(lambda: self.has_killed.is_set() or not there.waiting(), look_seconds=0.05)
                reasons += [letter.reason for _, letter in worker.letters.letters()]
                if self.has_killed.is_set():
                    worker.kill()
                    self.kills += 1
        return reasons


def has_both(worker: FleetWorker) -> bool:
    return worker.puller.packets == 2


@pytest.fixture
def quick(broker: BrokerSettings) -> BrokerSettings:
    """A broker that soon hands out again what a dead worker had."""
    return broker.model_copy(update={"ack_wait_seconds": 1.0})


def test_a_row_that_kills_workers_becomes_a_dead_letter(quick: BrokerSettings) -> None:
    arthur = Killing()
    with Broker(quick) as there:
        there.publish(packet(rows_of("r0", "killer", "r1")))
        there.publish_rows("s0", model="other")
        assert arthur.live(quick, there) == [SET_ASIDE]
    assert arthur.kills == 4  # two as a packet, one by one as a packet, and alone
    assert set(arthur.stored) == {"r0", "r1", "s0"}


def test_a_row_that_is_a_packet_kills_three_times(quick: BrokerSettings) -> None:
    arthur = Killing()
    with Broker(quick) as there:
        there.publish(packet(rows_of("killer")))
        assert arthur.live(quick, there) == [SET_ASIDE]
    assert arthur.kills == 3


def test_packets_that_workers_died_with_are_worked_on_one_after_the_other(
    quick: BrokerSettings,
) -> None:
    """So a row that kills is not taken for another one."""
    arthur = Killing()
    with Broker(quick) as there:
        for number in range(8):
            there.publish(packet(rows_of(f"r{number}"), deaths=1))
        there.publish(packet(rows_of("killer"), deaths=1))
        for number in range(8, 16):
            there.publish(packet(rows_of(f"r{number}"), deaths=1))
        assert arthur.live(quick, there) == [SET_ASIDE]
    assert arthur.kills == 1
    assert set(arthur.stored) == {f"r{number}" for number in range(16)}


def test_a_packet_that_was_given_back_has_killed_nobody(broker: BrokerSettings) -> None:
    arthur = Arthur()
    go_on = Gate()

    async def script(batch: Batch) -> Attempt:
        await go_on.wait()
        return taken(batch)

    arthur.script = script
    with Broker(broker) as there:
        there.publish_rows("r0")
        there.publish_rows("r1")
        for name in ("one", "two", "three"):
            with FleetWorker(broker, arthur, name, max_in_flight=1, batch_size=1) as worker:
                wait_for(partial(has_both, worker))
                worker.stop(seconds=0.5)
        go_on.set()
        with FleetWorker(broker, arthur, "four") as last:
            there.wait_until_empty()
            last.check(captured=2, delivered=2)
            shared = Shared(there.connection)
            wait_for(lambda: not any(there.do(shared.deaths(number)) for number in (1, 2)))
