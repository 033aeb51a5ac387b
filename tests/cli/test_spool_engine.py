"""`arthur-relay spool`, with a spool that has spans of Arthur Engine."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from arthur_relay import Relay, RelaySettings
from arthur_relay.cli.app import _app
from arthur_relay.sandbox import ArthurSandbox, Role
from tests.waiting import wait_for

from .engine import leave_inferences, leave_spans, mean_engine, mean_scope

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_python


@pytest.fixture(autouse=True)
def _spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path / "spool"))


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(_app, ["spool", *arguments])
    assert result.exit_code == status, result.output
    return result.output


def deliver(sandbox: ArthurSandbox, *, spans: int) -> None:
    with Relay.from_engine(settings=RelaySettings(flush_interval_seconds=0)):
        wait_for(lambda: len(sandbox.spans) == spans)


def test_spans_are_listed_and_sent_on_by_the_engines_key_alone(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_spans(sandbox, monkeypatch)
    lines = [line.rstrip() for line in run("list").splitlines()]
    assert lines[0].split() == ["file", "spans", "for", "state"]
    assert lines[1].split()[:2] == ["0.spool", "3"]
    assert lines[1].endswith("ours")
    assert lines[-1] == "3 spans wait in 1 files"
    mean_scope(sandbox, monkeypatch)
    assert "left alone: it is for Arthur Engine, and we send to Arthur Scope" in run("list")
    with ArthurSandbox(task_id=sandbox.task_id) as other:
        mean_engine(other, monkeypatch)
        assert f"left alone: we send to {other.url}" in run("list")
        assert "3 spans in" in run("adopt", "0.spool")
        assert "ours" in run("list")
        deliver(other, spans=3)
    assert sandbox.spans == []


def test_a_new_key_takes_over_on_purpose_only(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.engine_keys["the new one"] = Role.TASK_ADMIN
    leave_spans(sandbox, monkeypatch)
    sandbox.come_back()
    mean_engine(sandbox, monkeypatch, key="the new one")
    assert "left alone: it was captured with another key" in run("list")
    assert "3 spans in" in run("adopt", "0.spool")
    deliver(sandbox, spans=3)


def test_no_file_is_adopted_by_the_other_product(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_spans(sandbox, monkeypatch)
    mean_scope(sandbox, monkeypatch)
    output = run("adopt", "0.spool", status=1)
    assert "can't be adopted: its rows are for Arthur Engine" in output
    assert "set ARTHUR_BASE_URL or ARTHUR_TASK_ID" in output


def test_nor_is_one_that_does_not_say_any_more_for_whom_it_is(
    sandbox: ArthurSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_inferences(sandbox, monkeypatch)
    with closing(sqlite3.connect(tmp_path / "spool" / "0.spool")) as connection, connection:
        connection.execute("DELETE FROM owner")
        connection.execute("DELETE FROM owner_copy")
    mean_engine(sandbox, monkeypatch)
    assert "its rows are for Arthur Scope" in run("adopt", "0.spool", status=1)
    mean_scope(sandbox, monkeypatch)
    assert "3 inferences in" in run("adopt", "0.spool")


def test_files_of_both_products_are_listed_together(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_inferences(sandbox, monkeypatch)
    sandbox.come_back()
    leave_spans(sandbox, monkeypatch)
    output = run("list")
    assert output.splitlines()[-1] == "6 rows wait in 2 files"
    assert "left alone: it is for Arthur Scope, and we send to Arthur Engine" in output
