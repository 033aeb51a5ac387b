"""`arthur-relay spool`: what waits on disk, for whom, and how it is sent somewhere else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from arthur_relay import Inference, Relay, RelaySettings
from arthur_relay.cli.app import _app
from arthur_relay.sandbox import ArthurSandbox
from arthur_relay.system.terminal import printable
from tests.waiting import wait_for

from .test_terminal import is_harmless

NASTY = "a\x1b]0;owned\x07\x9b2J\u202eb"

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def other(sandbox: ArthurSandbox) -> Iterator[ArthurSandbox]:
    """Another Arthur that has a model of the same id."""
    with ArthurSandbox(model_id=sandbox.model_id) as running:
        yield running


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "spool"
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(found))
    monkeypatch.setenv("ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS", "0.5")
    return found


def be_for(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(_app, list(arguments))
    assert result.exit_code == status, result.output
    return result.output


def leave(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, count: int = 3) -> None:
    """Leave inferences in the spool, because Arthur is away."""
    be_for(sandbox, monkeypatch)
    with Relay.from_env(settings=RelaySettings(flush_interval_seconds=0)) as relay:
        relay.capture(Inference(input_text="q", output_text="a", inference_id="known"))
        relay.flush(30)
        sandbox.go_away()
        for number in range(count):
            relay.capture(Inference(input_text="q", output_text="a", inference_id=f"i{number}"))
        assert relay.close().pending == count


def test_what_waits_for_another_is_listed_and_sent_on_purpose(
    sandbox: ArthurSandbox,
    other: ArthurSandbox,
    spool: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    leave(sandbox, monkeypatch)
    lines = [line.rstrip() for line in run("spool", "list").splitlines()]
    assert lines[1].split()[:3] == ["0.spool", "3", f"{sandbox.url},"]
    assert lines[1].endswith("ours")
    assert lines[-1] == "3 inferences wait in 1 files"
    be_for(other, monkeypatch)
    assert f"left alone: we send to {other.url}" in run("spool", "list")
    with Relay.from_env(settings=RelaySettings(flush_interval_seconds=0)) as relay:
        assert relay.stats().pending == 0
        assert "arthur-relay spool adopt" in caplog.text
        assert relay.close().delivered == 0
    assert "3 inferences in" in run("spool", "adopt", "0.spool")
    assert "ours" in run("spool", "list")
    with Relay.from_env(settings=RelaySettings(flush_interval_seconds=0)) as relay:
        wait_for(lambda: relay.stats().pending == 3 or len(other.inferences) == 3)
        wait_for(lambda: len(other.inferences) == 3)
        assert "in use by a process" in run("spool", "list")
        assert "in use by a process" in run("spool", "adopt", "0.spool", status=1)
    assert [each["partner_inference_id"] for each in sandbox.inferences] == ["known"]
    assert spool.exists()


@pytest.mark.usefixtures("spool")
def test_what_is_no_file_of_a_spool_is_refused(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    be_for(sandbox, monkeypatch)
    assert run("spool", "list") == "0 inferences wait in 0 files\n"
    assert "There is no file" in run("spool", "adopt", "0.spool", status=2)
    (tmp_path / "letter.txt").write_text("x")
    assert "is no spool file" in run("spool", "adopt", str(tmp_path / "letter.txt"), status=2)
    monkeypatch.delenv("ARTHUR_RELAY_SPOOL_DIR")
    assert "set ARTHUR_RELAY_SPOOL_DIR" in run("spool", "list", status=2)


def test_what_does_not_say_any_more_for_whom_it_is_is_sent_on_purpose(
    sandbox: ArthurSandbox, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(sandbox, monkeypatch)
    with closing(sqlite3.connect(spool / "0.spool")) as connection, connection:
        connection.execute("DELETE FROM owner")
        connection.execute("DELETE FROM owner_copy")
    assert "left alone: it does not say any more for whom it is" in run("spool", "list")
    sandbox.come_back()
    with Relay.from_env(settings=RelaySettings(flush_interval_seconds=0)) as relay:
        assert relay.close().delivered == 0
    assert "3 inferences in" in run("spool", "adopt", "0.spool")
    with Relay.from_env(settings=RelaySettings(flush_interval_seconds=0)) as relay:
        wait_for(lambda: len(sandbox.inferences) == 4)
        relay.close()


def test_a_file_that_is_damaged_is_not_adopted(
    sandbox: ArthurSandbox, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(sandbox, monkeypatch)
    with (spool / "0.spool").open("r+b") as file:
        file.write(b"\xee" * 200)
    assert "damaged" in run("spool", "list")
    assert "can't be adopted: file is not a database" in run("spool", "adopt", "0.spool", status=1)


def test_no_name_of_a_file_moves_the_cursor(
    sandbox: ArthurSandbox, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(sandbox, monkeypatch)
    (spool / "0.spool").rename(spool / f"{NASTY}.spool")
    (spool / f"{NASTY}-damaged-1.sqlite").touch()
    (spool / f"{NASTY}2.spool").write_bytes(b"no database" * 100)
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", f"{spool}/../spool")
    listed = run("spool", "list")
    assert f"{printable(NASTY)}.spool" in listed
    assert f"{printable(NASTY)}-damaged-1.sqlite" in listed
    outputs = [
        listed,
        run("spool", "adopt", f"{NASTY}3.spool", status=2),
        run("spool", "adopt", NASTY, status=2),
        run("spool", "adopt", f"{NASTY}2.spool", status=1),
        run("spool", "adopt", f"{printable(NASTY)}.spool"),
    ]
    assert "3 inferences in" in outputs[-1]
    for output in outputs:
        assert is_harmless(output.replace("\n", "")), output
