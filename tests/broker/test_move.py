"""A host's spool moves into a fleet, and out of it again, as docs/fleet.md says."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from arthur_relay.cli.app import _app
from tests.broker.fleet_processes import Fleet, at_arthur, counts, send, wait_until_all_arrived
from tests.daemon.process import DaemonProcess
from tests.daemon.traces import PROTOBUF, TRACES, body, hex_id, stored
from tests.environment import forget_arthur
from tests.readme import command
from tests.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.sandbox import ArthurSandbox

pytestmark = pytest.mark.one_python

LIST = command("list the spool", "docs/fleet.md")
ADOPT = command("adopt a file", "docs/fleet.md")

TOKEN = "the-token-of-a-host"
BRIEF = {"ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS": "0.5"}
NO_LOGIN = {"ARTHUR_LOGIN": "", "ARTHUR_PASSWORD": ""}


def run(line: str) -> str:
    """Run a command of the guide with the variables of this process; return what it prints."""
    words = shlex.split(line)
    assert words[0] == "arthur-relay"
    result = CliRunner().invoke(_app, words[1:])
    assert result.exit_code == 0, result.output
    return result.output


def mean(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> dict[str, str]:
    """Set variables here as well, for the commands of the guide."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def ids(prefix: str, count: int = 10) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def truth(inference_id: str) -> dict[str, Any]:
    return {
        "partner_inference_id": inference_id,
        "ground_truth_timestamp": "2026-06-07T12:00:13.656449+00:00",
        "ground_truth_data": {"thumbs_up": True},
    }


def truths(sandbox: ArthurSandbox) -> dict[str, Any]:
    """Return the ground truth that a sandbox has, by the inference's id."""
    return {
        each["partner_inference_id"]: each["ground_truth_data"]
        for each in sandbox.inferences
        if each.get("ground_truth_data")
    }


@pytest.fixture
def listening(tmp_path: Path) -> dict[str, str]:
    """Variables of gateways that take rows by TCP from whoever has the token."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"host-1:{TOKEN}\n")
    return {
        "ARTHUR_RELAY_DAEMON_TOKENS_FILE": str(tokens),
        "ARTHUR_RELAY_DAEMON_LISTEN": "127.0.0.1:0",
    }


@pytest.fixture(autouse=True)
def _guides_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_arthur(monkeypatch)
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path / "spool"))


def test_a_spool_moves_into_the_fleet_and_back_once_each(
    sandbox: ArthurSandbox,
    tmp_path: Path,
    broker: BrokerSettings,
    listening: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = sandbox.model_id
    mean(monkeypatch, sandbox.environment())
    with Fleet(sandbox, tmp_path, broker, listening) as fleet:
        with DaemonProcess(sandbox, tmp_path, variables=BRIEF) as host:
            client = host.wait_until_ready().client()
            arrived = send(client, model, ids("arrived"))
            wait_until_all_arrived(sandbox, arrived)
            sandbox.faults.status(503, times=None)
            waiting = [each for n in range(10) for each in send(client, model, ids(f"w{n}-", 20))]
            answer = client.patch(f"/api/v3/models/{model}/inferences", json=[truth("w0-0")])
            assert answer.status_code in (200, 207)
            assert host.end() == 0
        assert "ours" in run(LIST)

        # Arthur is still away: the rows go from the host's disk to the broker's.
        (gateway,) = fleet.start("gateway")
        (worker,) = fleet.start("worker")
        url = f"http://{gateway.address('taking rows on')}"
        to_fleet = mean(
            monkeypatch,
            {**BRIEF, **NO_LOGIN, "ARTHUR_ENDPOINT_URL": url, "ARTHUR_API_KEY": TOKEN},
        )
        assert f"left alone: we send to {url}" in run(LIST)
        assert f"201 inferences in {tmp_path}/spool/0.spool go to {url} now" in run(ADOPT)
        with DaemonProcess(sandbox, tmp_path, variables=to_fleet) as host:
            client = host.wait_until_ready().client()
            unmoved = send(client, model, ids("unmoved"))
            wait_for(lambda: counts(host)["pending"] == 0)
            assert counts(host)["delivered"] == 211
            assert at_arthur(sandbox).keys() == set(arrived)
            moved = send(gateway.client(), model, ids("moved"))
            sandbox.faults.reset()
            wait_until_all_arrived(sandbox, [*waiting, *unmoved, *moved])
            wait_for(lambda: truths(sandbox) == {"w0-0": {"thumbs_up": True}})

            # And back: what waits for a gateway that is gone is for Arthur again.
            gateway.end()
            back = send(client, model, ids("back"))
            assert host.end() == 0
        assert len(back) == len(moved) == len(unmoved) == 10
        mean(monkeypatch, sandbox.environment())
        assert f"left alone: we send to {sandbox.url}" in run(LIST)
        assert "10 inferences in" in run(ADOPT)
        with DaemonProcess(sandbox, tmp_path, variables=BRIEF) as host:
            host.wait_until_ready()
            wait_until_all_arrived(sandbox, back)
            wait_for(lambda: counts(worker)["pending"] == 0)
    everything = [*arrived, *waiting, *unmoved, *moved, *back]
    assert at_arthur(sandbox) == Counter(everything)
    assert len(everything) == 240


def test_spans_move_by_the_same_steps(
    sandbox: ArthurSandbox,
    tmp_path: Path,
    broker: BrokerSettings,
    listening: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = range(1, 21)
    sandbox.faults.status(503, times=None)
    with DaemonProcess(sandbox, tmp_path, variables=BRIEF, for_engine=True) as host:
        client = host.wait_until_ready().client()
        sent = body(*numbers, task=sandbox.task_id)
        assert client.post(TRACES, content=sent, headers=PROTOBUF).status_code == 200
        assert host.end() == 0
    sandbox.faults.reset()
    with Fleet(sandbox, tmp_path, broker, listening, for_engine=True) as fleet:
        gateway, _ = *fleet.start("gateway"), *fleet.start("worker")
        url = f"http://{gateway.address('taking rows on')}"
        to_fleet = mean(monkeypatch, {"ARTHUR_BASE_URL": url, "ARTHUR_API_KEY": TOKEN})
        assert f"20 spans in {tmp_path}/spool/0.spool go to {url}" in run(ADOPT)
        with DaemonProcess(
            sandbox, tmp_path, variables={**BRIEF, **to_fleet}, for_engine=True
        ) as host:
            wait_for(lambda: len(stored(sandbox)) >= len(numbers))
            wait_for(lambda: counts(host)["pending"] == 0)
    assert sorted(stored(sandbox)) == [hex_id(number) for number in numbers]
