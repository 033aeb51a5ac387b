"""A span that a daemon could not deliver is sent again through that same daemon, and arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from arthur_relay.cli.app import _app
from tests.daemon.traces import PROTOBUF, TRACES, body, hex_id, stored
from tests.waiting import wait_for

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.daemon.process import DaemonProcess


@pytest.fixture(autouse=True)
def _as_an_operator(engine_daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that deploy/README.md names for the command beside a daemon."""
    monkeypatch.delenv("ARTHUR_MODEL_ID", raising=False)
    monkeypatch.delenv("ARTHUR_TASK_ID", raising=False)
    monkeypatch.setenv("ARTHUR_BASE_URL", f"unix://{engine_daemon.socket}")
    monkeypatch.setenv("ARTHUR_API_KEY", "relay")
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(engine_daemon.spool))


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(_app, ["dead-letters", *arguments])
    assert result.exit_code == status, result.output
    return result.output


def reject(engine_daemon: DaemonProcess, sandbox: ArthurSandbox, *numbers: int) -> None:
    sandbox.faults.fail_rows(every=1)
    sent = body(*numbers, task=sandbox.task_id)
    answer = engine_daemon.client().post(TRACES, content=sent, headers=PROTOBUF)
    assert answer.status_code == 200
    wait_for(lambda: f"{len(numbers)} dead letters" in run("list"))
    sandbox.faults.reset()


def test_a_replay_sends_what_the_daemon_has_seen_before(
    engine_daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    reject(engine_daemon, sandbox, 1, 2)
    assert "2 of 2 dead letters were delivered" in run("replay")
    wait_for(lambda: stored(sandbox) == [hex_id(1), hex_id(2)])
    assert run("list") == "0 dead letters\n"


def test_an_exporter_may_send_again_what_was_rejected(
    engine_daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    reject(engine_daemon, sandbox, 1)
    sent = body(1, task=sandbox.task_id)
    client = engine_daemon.client()
    assert client.post(TRACES, content=sent, headers=PROTOBUF).status_code == 200
    wait_for(lambda: stored(sandbox) == [hex_id(1)])
