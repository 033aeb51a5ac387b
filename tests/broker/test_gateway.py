"""A gateway as a process: it is bounded, and it is an Arthur Engine too. See also `test_faults`."""

from __future__ import annotations

import http.client
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from langchain_core.runnables import RunnableLambda

from arthur_relay import ArthurCallbackHandler, RelaySettings
from arthur_relay.broker.settings import BrokerSettings
from tests.broker.faults import SocketConnection
from tests.broker.fleet_processes import Fleet, counts
from tests.broker.servers import NatsServer
from tests.daemon.process import row
from tests.daemon.test_faults import resident_bytes
from tests.daemon.traces import PROTOBUF, TRACES, body, hex_id, stored
from tests.waiting import wait_for

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox

pytestmark = pytest.mark.one_python

MIB = 1 << 20


def test_spans_and_feedback_go_through_a_fleet(
    sandbox: ArthurSandbox, tmp_path: Path, broker: BrokerSettings
) -> None:
    with Fleet(sandbox, tmp_path, broker, for_engine=True) as fleet:
        client = fleet.gateway()
        (worker,) = fleet.start("worker")
        spans = body(1, 2, task=sandbox.task_id)
        for path in (TRACES, "/v1/traces"):
            assert client.post(path, content=spans, headers=PROTOBUF).status_code == 200
            spans = body(3, task=sandbox.task_id)
        wait_for(lambda: sorted(stored(sandbox)) == [hex_id(each) for each in (1, 2, 3)])

        handler = ArthurCallbackHandler.from_engine(
            base_url=f"unix://{fleet.members[0].socket}",
            task_id=sandbox.task_id,
            settings=RelaySettings(flush_interval_seconds=0.01),
        )
        run_id = uuid.uuid4()
        RunnableLambda(str.upper).invoke("text", config={"callbacks": [handler], "run_id": run_id})
        handler.log_feedback(run_id, liked=True)
        result = handler.relay.close(10)
        assert (result.delivered, result.rejected, result.dropped) == (2, 0, {})
        wait_for(lambda: sandbox.annotations)
        assert sandbox.annotations[0]["trace_id"] == run_id.hex
        assert len(sandbox.spans) == 4
        wait_for(lambda: counts(worker)["delivered"] == 5)


def flood(path: Path, model_id: str, requests: int) -> list[str]:
    """Send requests of a MiB at the same time; returns what the clients see."""
    content = json.dumps([row(f"{each}", input_text="x" * (MIB // 8)) for each in range(8)])
    connections = [SocketConnection(path) for _ in range(requests)]
    for each in connections:
        each.request("POST", f"/api/v3/models/{model_id}/inferences", content)
    seen = []
    for each in connections:
        try:
            response = each.getresponse()
        except (OSError, http.client.HTTPException) as error:
            seen.append(repr(error))
        else:
            seen.append(f"{response.status}, Retry-After {response.getheader('Retry-After')}")
        each.close()
    return seen


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_is_bounded_while_clients_flood_and_the_broker_is_away(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    variables = {
        "ARTHUR_RELAY_DAEMON_MAX_BODY_BYTES": str(2 * MIB),
        "ARTHUR_RELAY_DAEMON_MAX_INTAKE_BYTES": str(8 * MIB),
        "ARTHUR_RELAY_BROKER_PUBLISH_SECONDS": "0.2",
    }
    with NatsServer(tmp_path) as server:
        broker = BrokerSettings(url=server.url, replicas=1, allow_unreplicated=True)
        with Fleet(sandbox, tmp_path, broker, variables) as fleet:
            (gateway,) = fleet.start("gateway")
            pid = gateway.process.pid
            assert flood(gateway.socket, sandbox.model_id, 4) == ["207, Retry-After None"] * 4
            before = resident_bytes(pid)
            server.kill()
            grown = []
            for _ in range(10):
                seen = flood(gateway.socket, sandbox.model_id, 60)
                assert set(seen) == {"503, Retry-After 1"}
                grown.append(resident_bytes(pid) - before)
            assert max(grown) < 40 * MIB, f"600 MiB came, and it grew by {grown}"
            server.restart()
            wait_for(lambda: flood(gateway.socket, sandbox.model_id, 1)[0].startswith("207"))
