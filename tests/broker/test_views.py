"""The views of a gateway and a worker: they show the fleet, and speak of no spool."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from arthur_relay.cli.top_view import view
from tests.broker.fleet_processes import Fleet, send
from tests.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.sandbox import ArthurSandbox
    from tests.broker.servers import NatsServer

pytestmark = pytest.mark.one_python


def shown(status: dict[str, object]) -> str:
    """Return what `top` shows of a status."""
    written = io.StringIO()
    seen = view(dict(status), problem="", width=120, height=100, footer="")
    Console(width=120, file=written).print(seen)
    return written.getvalue()


def test_the_fleet_is_shown_and_no_spool(
    sandbox: ArthurSandbox, tmp_path: Path, server: NatsServer, broker: BrokerSettings
) -> None:
    broker = broker.model_copy(update={"monitoring_url": server.monitoring_url})
    sandbox.faults.status(503, times=None)
    with Fleet(sandbox, tmp_path, broker) as fleet:
        client = fleet.gateway()
        assert send(client, sandbox.model_id, ["a", "b"])
        found = wait_for(
            lambda: (s := client.get("/status").json())["broker"]["waiting_packets"] and s
        )
        assert found["role"] == "gateway"
        known = found["broker"]
        assert (known["waiting_packets"], known["in_flight_packets"]) == (1, 0)
        assert known["bytes"] < known["limit_bytes"] == broker.bytes
        assert (known["gateways"], known["workers"]) == (1, 0)
        assert found["state"]["kind"] == "good", found["state"]
        top = shown(found)
        assert "1 packets wait · 0 in flight" in top
        assert "1 gateways · 0 workers" in top
        own = 'arthur_relay_broker_replica_packets{server="alone"} 1.0'
        wait_for(lambda: own in client.get("/metrics").text)
        metrics = client.get("/metrics").text
        for each in (
            "arthur_relay_broker_connected 1.0",
            "arthur_relay_broker_reconnects_total 0.0",
            "arthur_relay_broker_publish_seconds_count 1.0",
            "# TYPE arthur_relay_broker_publish_errors_total counter",
            "arthur_relay_broker_waiting_packets 1.0",
            "arthur_relay_broker_in_flight_packets 0.0",
            "arthur_relay_broker_limit_bytes 6.7108864e+07",
            'arthur_relay_broker_sync_always{server="alone"} 1.0',
            'role="gateway"',
        ):
            assert each in metrics, each
        assert "arthur_relay_broker_oldest_age_seconds" in metrics
        (worker,) = fleet.start("worker")
        there = wait_for(
            lambda: (s := worker.client().get("/status").json())["broker"]["workers"] and s
        )
        for status in (found, there):
            for text in (json.dumps(status), shown(status)):
                assert "spool" not in text.lower()
        for text in (metrics, worker.client().get("/metrics").text):
            assert "spool" not in text.lower()
        for member in fleet.members:
            assert member.end() == 0
            assert "spool" not in member.log.lower(), member.log
