"""What systemd is told, and what it passes: with real sockets in its place."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from arthur_relay.daemon.systemd import Notifier, passed_sockets, watchdog_seconds
from arthur_relay.errors import SettingsError
from tests.daemon.certificates import issue_certificate
from tests.daemon.process import DaemonProcess, arrived, row
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox


class Manager:
    """Hears what a service says."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[str] = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.listener.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.listener.settimeout(30)

    def hear(self) -> list[str]:
        """Return the lines of the next message."""
        lines = self.listener.recv(4096).decode().split("\n")
        self.heard += lines
        return lines

    def hear_until(self, beginning: str) -> str:
        """Return the first line that begins like that."""
        while True:
            for line in self.hear():
                if line.startswith(beginning):
                    return line


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = tmp_path / "notify"
    found = Manager(f"@arthur-{os.getpid()}" if request.param == "abstract" else str(path))
    with found.listener:
        yield found


def test_a_life_as_the_manager_hears_it(
    manager: Manager, start: Callable[..., DaemonProcess]
) -> None:
    daemon = start(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="400000")
    assert manager.hear_until("READY=1")
    assert manager.hear_until("WATCHDOG=1")
    assert manager.hear_until("WATCHDOG=1")
    daemon.send_signal(signal.SIGHUP)
    assert manager.hear_until("RELOADING=1")
    assert manager.hear_until("READY=1")
    assert any(line.startswith("MONOTONIC_USEC=") for line in manager.heard)
    daemon.send_signal(signal.SIGTERM)
    assert manager.hear_until("STOPPING=1")
    assert daemon.end(None) == 0
    assert any(line.startswith("STATUS=") and "rows wait" in line for line in manager.heard)


BLOCK = """
import threading
import arthur_relay.daemon.state as state
from arthur_relay.buffers.spool.sqlite_file import SpoolFile
state.STALLED_SECONDS = 0.3
write = SpoolFile.write
def writing(self, fresh, gone, changed, **now):
    if any(row.id == "block" for _, row in fresh):
        threading.Event().wait()
    write(self, fresh, gone, changed, **now)
SpoolFile.write = writing
"""


def test_the_watchdog_hears_nothing_while_the_worker_hangs(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    manager = Manager(str(tmp_path / "notify"))
    variables = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "200000",
        "ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS": "0.1",
    }
    with (
        manager.listener,
        DaemonProcess(sandbox, tmp_path, variables=variables, before=BLOCK) as daemon,
    ):
        manager.hear_until("WATCHDOG=1")
        path = f"/api/v3/models/{sandbox.model_id}/inferences"
        client = daemon.client()
        with pytest.raises(httpx.ReadTimeout):
            client.post(path, json=[row("block")], timeout=1.0)
        wait_for(lambda: client.get("/healthz").status_code == 503)
        manager.listener.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                manager.hear()  # what it said before
        manager.listener.settimeout(1.0)
        with pytest.raises(TimeoutError):
            manager.hear()
        assert daemon.end() == 0, "the end is bounded all the same"


ACTIVATE = """
import os, socket, sys
if sys.argv[1].isdigit():
    listener = socket.socket(socket.AF_INET)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
elif sys.argv[1] == "everywhere":
    listener = socket.socket(socket.AF_INET)
    listener.bind(("0.0.0.0", 0))
else:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
listener.listen()
os.dup2(listener.fileno(), 3); os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_socket_that_is_passed_is_used_and_left_there(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    passed = tmp_path / "passed"
    prefix = [sys.executable, "-c", ACTIVATE, str(passed)]
    with DaemonProcess(sandbox, tmp_path, prefix=prefix) as daemon:
        daemon.wait_until_ready()
        assert not daemon.socket.exists(), "that of the settings is not made"
        daemon.socket = passed
        path = f"/api/v3/models/{sandbox.model_id}/inferences"
        assert daemon.client().post(path, json=[row("a")]).status_code == 207
        wait_for(lambda: arrived(sandbox) == ["a"])
        assert daemon.end() == 0
        assert passed.exists(), "it is the manager's"


TOKEN = "0123456789abcdef-passed"


def test_a_tcp_socket_that_is_passed_is_the_tcp_door(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"one:{TOKEN}\n")
    prefix = [sys.executable, "-c", ACTIVATE, "0"]
    variables = {"ARTHUR_RELAY_DAEMON_TOKENS_FILE": str(tokens)}
    with DaemonProcess(sandbox, tmp_path, prefix=prefix, variables=variables) as daemon:
        url = f"http://{daemon.address('taking rows on')}"
        path = f"/api/v3/models/{sandbox.model_id}/inferences"
        stranger, known = daemon.client(url), daemon.client(url, headers={"Authorization": TOKEN})
        assert stranger.post(path, json=[row("a")]).status_code == 401
        assert known.post(path, json=[row("b")]).status_code == 207
        for view in ("/status", "/metrics", "/"):
            assert known.get(view).status_code == 404
        assert stranger.get("/healthz").status_code == 200
        assert daemon.client().get("/status").status_code == 200, "the Unix socket is made as well"
        assert daemon.end() == 0
    assert arrived(sandbox) == ["b"]


def test_a_tcp_socket_that_is_passed_has_its_certificate(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    context = issue_certificate(tmp_path)
    variables = {
        "ARTHUR_RELAY_DAEMON_TLS_CERTIFICATE": str(tmp_path / "cert"),
        "ARTHUR_RELAY_DAEMON_TLS_KEY": str(tmp_path / "key"),
    }
    prefix = [sys.executable, "-c", ACTIVATE, "0"]
    with DaemonProcess(sandbox, tmp_path, prefix=prefix, variables=variables) as daemon:
        address = daemon.address("taking rows on")
        client = daemon.client(f"https://{address}", verify=context)
        assert client.get("/api/v3/users/me").status_code == 200
        assert daemon.end() == 0


def test_a_passed_socket_for_other_machines_needs_tokens(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    prefix = [sys.executable, "-c", ACTIVATE, "everywhere"]
    with DaemonProcess(sandbox, tmp_path, prefix=prefix) as daemon:
        assert daemon.end(None) == 2
        assert "A socket that is passed is 0.0.0.0:" in daemon.log
        assert "TOKENS_FILE" in daemon.log


def test_a_passed_socket_for_other_machines_needs_tls_and_keeps_its_tokens(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    tokens, env_file = tmp_path / "tokens", tmp_path / "env"
    tokens.write_text(f"one:{TOKEN}\n")
    with_tokens = f"ARTHUR_RELAY_DAEMON_TOKENS_FILE={tokens}\n"
    env_file.write_text(with_tokens)
    prefix = [sys.executable, "-c", ACTIVATE, "everywhere"]
    arguments = ("--env-file", str(env_file))
    with DaemonProcess(sandbox, tmp_path, *arguments, prefix=prefix) as daemon:
        assert daemon.end(None) == 2
        assert "A socket that is passed is 0.0.0.0:" in daemon.log
        assert "without TLS" in daemon.log
    env_file.write_text(with_tokens + "ARTHUR_RELAY_ALLOW_INSECURE=true\n")
    with DaemonProcess(sandbox, tmp_path, *arguments, prefix=prefix) as daemon:
        address = daemon.address("taking rows on").replace("0.0.0.0", "127.0.0.1")
        stranger = daemon.client(f"http://{address}")
        path = f"/api/v3/models/{sandbox.model_id}/inferences"
        assert stranger.post(path, json=[row("a")]).status_code == 401
        env_file.write_text("ARTHUR_RELAY_ALLOW_INSECURE=true\n")
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for_log("nothing is reloaded, all goes on as it was: A socket that is passed")
        assert stranger.post(path, json=[row("a")]).status_code == 401
        assert daemon.end() == 0


@pytest.mark.parametrize("number", ["x", "-1", "1e3", "99999", "²"])
def test_a_number_of_sockets_that_is_none(number: str) -> None:
    with pytest.raises(SettingsError, match="LISTEN_FDS"):
        passed_sockets({"LISTEN_PID": "7", "LISTEN_FDS": number}, 7)


def test_without_a_manager_nothing_happens() -> None:
    notifier = Notifier.of({})
    notifier.ready("up")
    Notifier("/nowhere/notify").watchdog()
    assert watchdog_seconds({}, 7) is None
    assert watchdog_seconds({"WATCHDOG_USEC": "x"}, 7) is None
    assert watchdog_seconds({"WATCHDOG_USEC": "0"}, 7) is None
    assert watchdog_seconds({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, 7) is None
    assert watchdog_seconds({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 7) == 1.5
    assert passed_sockets({"LISTEN_PID": "8", "LISTEN_FDS": "1"}, 7) == ([], [])
