"""The fleet's table of faults: what each makes it do, with real processes over real servers.

`TABLE` is the specification. `faults.md` is the same to read, and is made by
`python -m tests.broker.test_faults > tests/broker/faults.md`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arthur_relay.broker.settings import BrokerSettings
from arthur_relay.sandbox import ArthurSandbox
from tests.broker import faults
from tests.broker.fault_page import page
from tests.broker.faults import UNREADY, Fault, Stage
from tests.broker.servers import NatsCluster, NatsServer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.one_python

PAGE = Path(__file__).with_name("faults.md")

AGAIN = "that it had are handed out again after `ACK_WAIT_SECONDS`"

AWAY = ("503, Retry-After 1", "207, late", "207")

CLUSTER = {
    "nothing goes wrong": Fault(faults.nothing, ("207",)),
    "a node dies that is not the leader": Fault(faults.follower_dies, ("207",)),
    "the leader dies": Fault(
        faults.leader_dies,
        ("207", "207, late", "207"),
        rows="are accepted after the election, and delivered",
        doubled=True,
        forgets=True,
    ),
    "two nodes die, then the third, and all come back": Fault(
        faults.most_die_then_all,
        ("207", *AWAY),
        rows="are kept, and delivered once the nodes are back",
        gateways=UNREADY,
        doubled=True,
        forgets=True,
        unheard=True,
    ),
    "a worker dies": Fault(faults.worker_dies, ("207",), rows=AGAIN, doubled=True),
    "a worker hangs": Fault(faults.worker_hangs, ("207",), rows=AGAIN, doubled=True),
}
"""With a broker of three nodes, and a short `ACK_WAIT_SECONDS`."""

NODE = {
    "the broker hangs": Fault(
        faults.broker_hangs,
        AWAY,
        rows="are accepted once it goes on",
        gateways=UNREADY,
        unheard=True,
    ),
    "the broker hangs, and no rows come": Fault(
        faults.broker_hangs_unasked, ("207",), gateways=UNREADY
    ),
    "the broker is full": Fault(
        faults.broker_is_full,
        ("207", "503, Retry-After 5", "207"),
        rows="are kept; more are accepted once some have been delivered",
    ),
    "a model has more than its share of a broker that is half full": Fault(
        faults.model_floods,
        ("207", "503, Retry-After 5", "207"),
        rows="are kept; those of other models are accepted",
    ),
    "the broker's disk is full": Fault(
        faults.disk_is_full,
        ("207", "503, Retry-After 1", "207"),
        rows="are kept; the broker needs room and a restart",
        doubled=True,
        forgets=True,
        unheard=True,
    ),
    "a gateway dies": Fault(
        faults.gateway_dies,
        ("207", "no answer", "207"),
        rows="are kept; those without an answer are the client's",
        unheard=True,
    ),
    "a gateway is stopped": Fault(
        faults.gateway_stops,
        ("no connection", "207"),
        rows="that it was publishing are accepted before it ends",
    ),
    "a worker is stopped": Fault(
        faults.worker_stops, ("207",), rows="that it has not sent are handed out again at once"
    ),
    "a worker is cut off from the broker": Fault(
        faults.worker_is_cut_off,
        ("207",),
        rows="that it has are delivered, and acknowledged once it is back; after"
        " `ACK_WAIT_SECONDS` others get them",
    ),
    "Arthur is away": Fault(
        faults.arthur_is_away, ("207",), rows="go back to the broker, but for those to ask with"
    ),
    "Arthur asks for a pause, by `Retry-After`": Fault(
        faults.arthur_asks_for_a_pause, ("207",), rows="wait, at all workers"
    ),
    "Arthur takes fewer: 429": Fault(faults.arthur_takes_fewer, ("207",)),
    "Arthur is slow": Fault(faults.arthur_is_slow, ("207",)),
}
"""With a broker of one node, whose rules are the same, and an `ACK_WAIT_SECONDS` that is longer
than any test: nothing is handed out again because of it."""


@pytest.fixture(scope="module")
def on_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("cluster")
    with ArthurSandbox() as sandbox, NatsCluster(directory) as cluster:
        broker = BrokerSettings(url=cluster.url, bytes=64 << 20, ack_wait_seconds=3.0)
        with Stage(sandbox, directory, broker, cluster) as stage:
            yield stage


@pytest.fixture(scope="module")
def on_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("node")
    with ArthurSandbox() as sandbox, NatsServer(directory) as node:
        broker = BrokerSettings(
            url=node.url, replicas=1, allow_unreplicated=True, bytes=600_000, ack_wait_seconds=60.0
        )
        with Stage(sandbox, directory, broker, node) as stage:
            yield stage


@pytest.mark.parametrize("fault", CLUSTER.values(), ids=CLUSTER)
def test_faults_of_a_cluster(on_cluster: Stage, fault: Fault) -> None:
    fault.play(on_cluster)


@pytest.mark.parametrize("fault", NODE.values(), ids=NODE)
def test_faults_of_other_parts(on_node: Stage, fault: Fault) -> None:
    fault.play(on_node)


def test_the_page_says_what_the_table_does() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(CLUSTER, NODE)


if __name__ == "__main__":
    sys.stdout.write(page(CLUSTER, NODE))
