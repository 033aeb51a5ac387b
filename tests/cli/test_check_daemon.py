"""`arthur-relay check --daemon`: each way in which a start would fail, before it does."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arthur_relay.buffers.spool.file_format import VERSION
from arthur_relay.buffers.spool.inspection import Condition, inspect_spools
from tests.daemon.process import DaemonProcess, row
from tests.waiting import wait_for

if TYPE_CHECKING:
    from click.testing import Result

    from arthur_relay.sandbox import ArthurSandbox

    from .conftest import Run

pytestmark = pytest.mark.one_python

START, DELIVER = 2, 1


@pytest.fixture
def spool(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a daemon's spool; all else of its environment is right."""
    monkeypatch.delenv("ARTHUR_MODEL_ID")
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_SOCKET", str(tmp_path / "relay.sock"))
    return tmp_path / "spool"


def told(result: Result, mark: str, subject: str) -> list[str]:
    lines = [line for line in result.stdout.splitlines() if line.startswith(f" {mark}  {subject}")]
    return [line[len(f" {mark}  ") + 13 :] for line in lines]


def filled(sandbox: ArthurSandbox, directory: Path, *, clean: bool) -> Path:
    """A spool that a daemon has left with two rows in it."""
    sandbox.faults.status(503, times=None)
    variables = {"ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS": "0.5"}
    with DaemonProcess(sandbox, directory, variables=variables) as daemon:
        client = daemon.wait_until_ready().client()
        path = f"/api/v3/models/{sandbox.model_id}/inferences"
        answer = client.post(path, headers={"Authorization": "x"}, json=[row("a"), row("b")])
        assert answer.status_code == 207
        if clean:
            assert daemon.end() == 0
        else:
            daemon.process.kill()
            daemon.process.wait()
    sandbox.faults.reset()
    return directory / "spool"


def test_all_is_fine_and_nothing_is_changed(run: Run, spool: Path) -> None:
    found = run("check", "--daemon")
    assert found.exit_code == 0, found.stdout
    assert told(found, "✓", "Spool") == [f"{spool} is not there yet, and can be made."]
    assert "Ready: the daemon would start, and rows will reach Arthur." in found.stdout
    assert list(spool.parent.iterdir()) == []


def test_the_file_of_serve_is_read_and_a_wrong_setting_is_told(
    run: Run, spool: Path, tmp_path: Path
) -> None:
    path = tmp_path / "daemon.env"
    path.write_text("ARTHUR_RELAY_DAEMON_MAX_ROWS=none\nARTHUR_RELAY_SPOOLDIR=x\n")
    before = dict(os.environ)
    try:
        found = run("check", "--daemon", "--env-file", str(path))
        assert found.exit_code == START
        assert "ARTHUR_RELAY_DAEMON_MAX_ROWS" in told(found, "✗", "Settings")[0]
        path.write_text("ARTHUR_RELAY_SPOOLDIR=x\n")
        found = run("check", "--daemon", "--env-file", str(path))
        assert found.exit_code == 0
        assert "did you mean ARTHUR_RELAY_SPOOL_DIR?" in told(found, "!", "Variable")[0]
        assert f"with the file {path}" in told(found, "✓", "Settings")[0]
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_the_file_is_for_the_daemon_only(run: Run, tmp_path: Path) -> None:
    assert run("check", "--env-file", str(tmp_path)).exit_code == 2


@pytest.mark.parametrize("clean", [True, False])
def test_a_spool_that_was_left_is_looked_through_and_stays_as_it_was(
    run: Run, spool: Path, sandbox: ArthurSandbox, *, clean: bool
) -> None:
    filled(sandbox, spool.parent, clean=clean)
    before = {path.name: path.stat().st_uid for path in spool.iterdir()}
    found = run("check", "--daemon")
    assert found.exit_code == 0, found.stdout
    assert told(found, "✓", "Spool") == [f"{spool}: 2 rows wait in 1 files, which are intact."]
    assert {path.name: path.stat().st_uid for path in spool.iterdir()} == before
    with DaemonProcess(sandbox, spool.parent) as daemon:  # which goes on from there
        daemon.wait_until_ready()
        wait_for(lambda: len(sandbox.inferences) == 2)


def test_a_damaged_file_is_told_before_the_start(
    run: Run, spool: Path, sandbox: ArthurSandbox
) -> None:
    filled(sandbox, spool.parent, clean=True)
    (path,) = spool.glob("*.spool")
    content = bytearray(path.read_bytes())
    content[-16384:] = b"\xff" * 16384
    path.write_bytes(content)
    found = run("check", "--daemon")
    assert "is damaged" in told(found, "!", "Spool")[0]
    assert found.exit_code == 0
    path.write_bytes(b"not a database, and long enough to be one" * 100)
    assert inspect_spools(spool)[0].condition is Condition.DAMAGED


def test_damage_that_only_a_whole_look_finds(spool: Path, sandbox: ArthurSandbox) -> None:
    filled(sandbox, spool.parent, clean=True)
    (path,) = spool.glob("*.spool")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE held SET rows = 3")
    (found,) = inspect_spools(spool)
    assert (found.condition, found.detail) == (Condition.DAMAGED, "it has 2 rows and says 3")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE held SET rows = 2")
        assert inspect_spools(spool)[0].condition is Condition.GOOD
    # A row without an id, which the table does not allow.
    for schema, change in (("id TEXT", "UPDATE rows SET id = NULL"), ("id TEXT NOT NULL", "")):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            sql = (
                "UPDATE sqlite_master SET sql = replace(replace(sql, 'id TEXT NOT NULL', ?), ?, ?)"
            )
            connection.execute(sql, ("id TEXT", "    id TEXT,", f"    {schema},"))
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(change)
    (found,) = inspect_spools(spool)
    assert found.condition is Condition.DAMAGED
    assert "NULL value in rows.id" in found.detail


def test_a_later_versions_file_is_left_to_it(run: Run, spool: Path, sandbox: ArthurSandbox) -> None:
    filled(sandbox, spool.parent, clean=True)
    (path,) = spool.glob("*.spool")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    found = run("check", "--daemon")
    assert found.exit_code == START
    assert "was written by a later version" in told(found, "✗", "Spool")[0]


def test_what_a_running_daemon_has_is_left_alone(
    run: Run, spool: Path, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DaemonProcess(
        sandbox,
        spool.parent,
        variables={"ARTHUR_RELAY_DAEMON_METRICS_LISTEN": "127.0.0.1:0"},
    ) as daemon:
        address = daemon.address("health and metrics are on")
        monkeypatch.setenv("ARTHUR_RELAY_DAEMON_METRICS_LISTEN", address)
        found = run("check", "--daemon")
        assert found.exit_code == 0, found.stdout
        notes = told(found, "-", "Spool")
        assert notes[0] == f"A daemon runs with {spool}: its files are not read."
        assert notes[1] == "0.spool is in use by a process, and not read."
        assert told(found, "-", "Views") == [f"{address} is not tried, as a daemon runs."]
        assert daemon.client().get("/readyz").status_code == 200
        monkeypatch.setenv("ARTHUR_RELAY_DAEMON_LISTEN", address.replace("127.0.0.1", "localhost"))
        found = run("check", "--daemon")
        assert found.exit_code == START, "what it would be started with is no good all the same"
        assert "is the other address as well" in told(found, "✗", "Views")[0]
        monkeypatch.delenv("ARTHUR_RELAY_DAEMON_LISTEN")
    # An address that something else has would be in the way of a start.
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_METRICS_LISTEN", sandbox.url.removeprefix("http://"))
    found = run("check", "--daemon")
    assert found.exit_code == START
    assert "Can't listen on" in told(found, "✗", "Views")[0]


def test_places_that_can_not_be_used(
    run: Run, spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.write_text("a file")
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_SOCKET", str(tmp_path / "none" / "relay.sock"))
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_TOKENS_FILE", str(tmp_path / "tokens"))
    found = run("check", "--daemon")
    assert found.exit_code == START
    assert "is no directory that this user can write to" in told(found, "✗", "Spool")[0]
    assert "can't be made" in told(found, "✗", "Socket")[0]
    assert "tokens file" in told(found, "✗", "TCP")[0]
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_SOCKET", str(tmp_path / "relay.sock"))
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_SOCKET_GROUP", "no-such-group")
    found = run("check", "--daemon")
    assert "There is no group 'no-such-group'" in told(found, "✗", "Socket")[0]


def test_a_disk_without_room_for_a_full_spool_is_a_warning(
    run: Run, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.mkdir()
    assert told(run("check", "--daemon"), "✓", "Disk")
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_BYTES", str(1 << 44))
    found = run("check", "--daemon")
    assert found.exit_code == 0
    assert "a full spool with its dead letters takes" in told(found, "!", "Disk")[0]


def test_arthur_away_or_refusing_is_no_reason_not_to_start(
    run: Run, spool: Path, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_API_KEY", "canary-wrong")
    found = run("check", "--daemon")
    assert found.exit_code == DELIVER
    assert "Arthur refused access (401)" in told(found, "✗", "Access")[0]
    assert "canary" not in found.stdout
    assert "would start and take rows, and could not deliver them" in found.stdout
    sandbox.stop()
    found = run("check", "--daemon")
    assert found.exit_code == DELIVER
    assert told(found, "✗", "Arthur")[0].startswith("Arthur can't be reached at http")


def test_a_model_that_is_named_is_asked_for(
    run: Run, spool: Path, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_MODEL_ID", sandbox.model_id)
    assert told(run("check", "--daemon"), "✓", "Model") == [f"{sandbox.model_id} is an LLM."]
    monkeypatch.setenv("ARTHUR_MODEL_ID", "none-such")
    assert run("check", "--daemon").exit_code == DELIVER


def test_a_password_in_a_file_is_no_reason_to_warn(
    run: Run, spool: Path, sandbox: ArthurSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "password"
    path.write_text(sandbox.password)
    monkeypatch.delenv("ARTHUR_API_KEY")
    monkeypatch.delenv("ARTHUR_PASSWORD", raising=False)
    monkeypatch.setenv("ARTHUR_LOGIN", sandbox.login)
    monkeypatch.setenv("ARTHUR_PASSWORD_FILE", str(path))
    found = run("check", "--daemon")
    assert found.exit_code == 0, found.stdout
    assert told(found, "!", "Credentials") == []


PASS = """
import os, socket, sys
listener = socket.create_server((sys.argv[1], 0))
os.dup2(listener.fileno(), 3); os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
if sys.argv[2] == "becomes":
    os.execv(sys.argv[3], sys.argv[3:])
status = os.spawnv(os.P_WAIT, sys.argv[3], sys.argv[3:])
os.fstat(3)
sys.exit(status)
"""


@pytest.mark.usefixtures("spool")
@pytest.mark.parametrize("how", ["becomes", "runs"])
@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 0), ("0.0.0.0", START)])
def test_a_socket_that_is_passed_is_looked_at(
    command: tuple[list[str], dict[str, str]], how: str, host: str, status: int
) -> None:
    """Passed to the check itself, or to a shell that runs it and then becomes the daemon."""
    arguments, _ = command
    environment = {**os.environ, "ARTHUR_RELAY_DAEMON_SOCKET": "none", "PYTHONWARNINGS": "error"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    found = subprocess.run(
        [sys.executable, "-c", PASS, host, how, *arguments, "check", "--daemon"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == status, found.stdout + found.stderr
    if status:
        assert "TOKENS_FILE" in found.stdout
    else:
        assert "One is passed by the service manager" in found.stdout
