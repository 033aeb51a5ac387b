"""`arthur-relay healthcheck`: what a probe gets to know, and how little is loaded for it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.daemon.process import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

    from .conftest import Run


@pytest.fixture
def daemon(sandbox: ArthurSandbox, tmp_path: Path) -> Iterator[DaemonProcess]:
    variables = {
        "ARTHUR_RELAY_DAEMON_METRICS_LISTEN": "127.0.0.1:0",
        "ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS": "30",
    }
    with DaemonProcess(sandbox, tmp_path, variables=variables) as running:
        yield running.wait_until_ready()


def test_a_daemon_that_lives_and_takes_rows(run: Run, daemon: DaemonProcess) -> None:
    url = daemon.address("health and metrics are on")
    for where in (
        ("--socket", str(daemon.socket)),
        ("--url", f"http://{url}"),
        ("--url", url),
        ("--url", f"unix://{daemon.socket}"),
    ):
        lives = run("healthcheck", *where)
        assert (lives.exit_code, lives.stdout) == (0, "The loops turn.\n")
        ready = run("healthcheck", "--ready", *where)
        assert (ready.exit_code, ready.stdout) == (0, "The spool takes rows.\n")


def test_it_finds_the_daemon_by_the_daemons_own_environment(
    run: Run, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_SOCKET", str(daemon.socket))
    assert run("healthcheck").exit_code == 0
    address = daemon.address("health and metrics are on")
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_SOCKET", "none")
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_METRICS_LISTEN", "0.0.0.0:" + address.split(":")[1])
    assert run("healthcheck", "--ready").exit_code == 0


def test_arthur_away_does_not_make_it_unready(
    run: Run, daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    sandbox.stop()
    assert run("healthcheck", "--ready", "--socket", str(daemon.socket)).exit_code == 0


def test_a_daemon_that_is_gone_or_was_never_there(run: Run, daemon: DaemonProcess) -> None:
    daemon.process.kill()
    daemon.process.wait()
    for where, problem in (
        (("--socket", str(daemon.socket)), "Connection refused"),
        (("--socket", str(daemon.socket) + "x"), "No such file or directory"),
        (("--url", "http://127.0.0.1:1"), "Connection refused"),
    ):
        found = run("healthcheck", *where)
        assert found.exit_code == 1
        assert found.stderr.startswith("arthur-relay: The daemon at ")
        assert problem in found.stderr
        assert found.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1", "http://127.0.0.1:none", "http://"])
def test_what_is_no_address_is_a_misuse(run: Run, url: str) -> None:
    found = run("healthcheck", "--url", url)
    assert found.exit_code == 2
    assert found.stderr == f"arthur-relay: --url can't be {url!r}: it has to be http://host:port.\n"


def test_what_is_no_daemon_is_not_healthy(run: Run, sandbox: ArthurSandbox) -> None:
    found = run("healthcheck", "--url", sandbox.url)
    assert found.exit_code == 1
    assert "answers 404" in found.stderr


def test_it_loads_nothing_that_takes_time() -> None:
    # Typer itself loads pydantic where there is one.
    heavy = (
        "httpx langchain_core pydantic_settings starlette uvicorn prometheus_client sqlite3 anyio"
    )
    code = (
        "import sys, arthur_relay.cli\n"
        "sys.argv = ['arthur-relay', 'healthcheck', '--socket', '/nonexistent']\n"
        "try:\n    arthur_relay.cli.main()\n"
        "except SystemExit as ended:\n    print(ended.code)\n"
        f"print([name for name in {heavy.split()} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        # Where the tests' coverage is measured, that loads things of its own.
        env={name: value for name, value in os.environ.items() if "COV" not in name},
    )
    assert done.stdout == "1\n[]\n", done.stderr
