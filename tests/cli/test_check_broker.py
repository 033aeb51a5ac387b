"""`arthur-relay check --daemon` for the roles of a fleet: what it says of the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.servers import NatsServer, Options, ReservedPort

from .test_check_daemon import DELIVER, START, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Run

pytestmark = pytest.mark.one_python

PREFIX = "ARTHUR_RELAY_BROKER_"


@pytest.fixture
def broker(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NatsServer]:
    """A server; the environment is that of a gateway on it."""
    monkeypatch.delenv("ARTHUR_MODEL_ID")
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_ROLE", "gateway")
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_SOCKET", str(tmp_path / "relay.sock"))
    monkeypatch.setenv(f"{PREFIX}REPLICAS", "1")
    monkeypatch.setenv(f"{PREFIX}ALLOW_UNREPLICATED", "true")
    with NatsServer(tmp_path) as server:
        monkeypatch.setenv(f"{PREFIX}URL", server.url)
        monkeypatch.setenv(f"{PREFIX}MONITORING_URL", server.monitoring_url)
        yield server


@pytest.mark.parametrize("role", ["gateway", "worker"])
def test_all_is_fine_and_nothing_is_made(
    run: Run, broker: NatsServer, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_ROLE", role)
    found = run("check", "--daemon")
    assert found.exit_code == 0, found.stdout
    assert "Spool" not in found.stdout
    said = " ".join(told(found, "✓", "Broker"))
    assert "NATS 2." in said
    assert "Rows are on its disks when it acknowledges them." in said
    assert ("It takes rows of the largest size" in said) == (role == "gateway")
    assert "A start would make: stream ARTHUR_ROWS" in " ".join(told(found, "-", "Broker"))
    assert "one disk alone" in told(found, "!", "Broker")[0]
    assert broker.streams() == {}


def test_what_a_start_would_refuse_is_status_2(
    run: Run, broker: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}REPLICAS", "3")
    found = run("check", "--daemon")
    assert found.exit_code == START
    assert told(found, "✗", "Broker") == [
        "Its server is alone and can't keep 3 copies (ARTHUR_RELAY_BROKER_REPLICAS)."
    ]
    monkeypatch.setenv(f"{PREFIX}REPLICAS", "1")
    monkeypatch.setenv(f"{PREFIX}CREATE", "false")
    found = run("check", "--daemon")
    assert found.exit_code == START
    assert "ARTHUR_RELAY_BROKER_CREATE is false" in told(found, "✗", "Broker")[0]
    broker.stop()
    broker.options = Options(sync="2m", more="authorization { user: a, password: right }")
    broker.restart()
    assert "refuses our credentials" in told(run("check", "--daemon"), "✗", "Broker")[0]
    monkeypatch.setenv(f"{PREFIX}URL", broker.url.replace("//", "//a:right@"))
    monkeypatch.delenv(f"{PREFIX}CREATE")
    found = run("check", "--daemon")
    assert found.exit_code == START
    assert "sync_interval: always" in told(found, "✗", "Broker")[0]
    assert "right" not in found.stdout


def test_a_small_payload_is_a_warning(run: Run, broker: NatsServer) -> None:
    broker.options = Options(max_payload="1MB")
    broker.restart()
    found = run("check", "--daemon")
    assert found.exit_code == 0, found.stdout
    assert any("the broker's max_payload is 1048576" in each for each in told(found, "!", "Broker"))


def test_a_broker_that_is_away_is_status_1(
    run: Run, broker: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = ReservedPort()
    monkeypatch.setenv(f"{PREFIX}URL", f"nats://127.0.0.1:{port.number}")
    found = run("check", "--daemon")
    port.close()
    assert found.exit_code == DELIVER
    assert told(found, "✗", "Broker")[0].startswith("It can't be reached: ")
    assert "would start, and wait for the broker" in found.stdout


def test_a_gateway_without_a_listener_is_status_2(
    run: Run, broker: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_SOCKET", "none")
    found = run("check", "--daemon")
    assert found.exit_code == START
    assert told(found, "✗", "Socket")[0].startswith("There is nothing to take rows on")
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_ROLE", "worker")
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_METRICS_LISTEN", "127.0.0.1:0")
    assert run("check", "--daemon").exit_code == 0
