"""Workers as processes of their own that are killed, or hang, while they deliver."""

from __future__ import annotations

import re
import signal
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest

from arthur_relay.row import Row
from arthur_relay.sandbox import ArthurSandbox
from tests.broker.fleet import Broker, packet
from tests.daemon.process import DaemonProcess, arrived, row
from tests.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.broker.settings import BrokerSettings

pytestmark = pytest.mark.one_python


def worker_process(
    sandbox: ArthurSandbox, directory: Path, broker: BrokerSettings
) -> DaemonProcess:
    variables = {
        "ARTHUR_RELAY_SPOOL_DIR": "",
        "ARTHUR_RELAY_BROKER_URL": str(broker.url),
        "ARTHUR_RELAY_BROKER_STREAM": broker.stream,
        "ARTHUR_RELAY_BROKER_REPLICAS": "1",
        "ARTHUR_RELAY_BROKER_ALLOW_UNREPLICATED": "true",
        "ARTHUR_RELAY_BROKER_BYTES": str(broker.bytes),
        "ARTHUR_RELAY_BROKER_ACK_WAIT_SECONDS": str(broker.ack_wait_seconds),
        "ARTHUR_RELAY_MAX_IN_FLIGHT": "2",
        "ARTHUR_RELAY_BATCH_SIZE": "5",
    }
    return DaemonProcess(sandbox, directory, "--role", "worker", variables=variables)


def counts(worker: DaemonProcess) -> dict[str, float]:
    """Return the counts of rows that a worker exports, summed over models and reasons."""
    text = worker.client().get("/metrics").text
    found: dict[str, float] = {}
    for name, value in re.findall(r"^arthur_relay_(\w+?)(?:\{.*\})? ([0-9.e+]+)$", text, re.M):
        found[name] = found.get(name, 0.0) + float(value)
    return found


def is_settled(worker: DaemonProcess) -> bool:
    """Return whether all that a worker took is accounted for, and nothing of it waits."""
    found = counts(worker)
    settled = sum(
        found.get(f"{name}_total", 0) for name in ("delivered", "rejected", "dropped", "returned")
    )
    return found["pending_rows"] == 0 and found.get("captured_total", 0) == settled


def test_a_worker_is_killed_and_another_hangs_while_they_deliver(
    broker: BrokerSettings, tmp_path: Path
) -> None:
    with (
        ArthurSandbox() as sandbox,
        Broker(broker) as there,
        worker_process(sandbox, tmp_path, broker) as killed,
        worker_process(sandbox, tmp_path, broker) as hanging,
        worker_process(sandbox, tmp_path, broker) as last,
    ):
        for each in (killed, hanging, last):
            each.wait_until_ready()
        sandbox.faults.slow(0.02, times=None)  # so that both have some in hand
        model = sandbox.model_id
        ids = [f"r{number:04}" for number in range(1200)]
        for at in range(0, len(ids), 20):
            rows = [Row(i, model, msgspec.json.encode(row(i))) for i in ids[at : at + 20]]
            there.publish(packet(rows))
            if at == 400:
                killed.process.send_signal(signal.SIGKILL)
            if at == 600:
                hanging.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: arrived(sandbox) == ids)
        hanging.process.send_signal(signal.SIGCONT)
        there.wait_until_empty()
        # The one that hung may have asked for packets before: it gets and settles them now.
        for each in (hanging, last):
            wait_for(partial(is_settled, each))
        found = [counts(each) for each in (hanging, last)]
        for counted in found:
            assert counted.get("rejected_total", 0) == 0
        redelivered = sum(counted["broker_redelivered_rows_total"] for counted in found)
        assert redelivered > 0
        assert sandbox.duplicates <= redelivered
        last.process.send_signal(signal.SIGTERM)
        assert last.process.wait(10) == 0
        assert "went back to the broker" in last.log
        assert "stay in the spool" not in last.log
