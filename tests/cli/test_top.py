"""`arthur-relay top`: what it shows of a real daemon, and that it ends well on a real terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from arthur_relay.cli import top_view
from arthur_relay.daemon.role_words import ROLE_WORDS
from arthur_relay.daemon.settings import RoleName
from arthur_relay.daemon.status import BEHIND
from arthur_relay.sandbox import ArthurSandbox
from tests.daemon.process import PATIENT, DaemonProcess, row
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Run

pytestmark = pytest.mark.one_python

SECONDS = 30.0
Command = tuple[list[str], dict[str, str]]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that has delivered two rows, and had one rejected."""
    with (
        ArthurSandbox() as sandbox,
        DaemonProcess(sandbox, tmp_path_factory.mktemp("daemon")) as running,
    ):
        client = running.wait_until_ready().client()
        sandbox.faults.fail_rows(every=3, status=422, times=1)
        path = f"/api/v3/models/{sandbox.model_id}/inferences"
        client.post(path, headers={"Authorization": "any"}, json=[row(each) for each in "abc"])
        wait_for(lambda: client.get("/status").json()["dead_letters"]["kept"] == 1)
        yield running


@pytest.fixture
def status(daemon: DaemonProcess) -> dict[str, Any]:
    found: dict[str, Any] = daemon.client().get("/status").json()
    return found


def lines(status: dict[str, Any] | None, *, problem: str = "", height: int = 24) -> list[str]:
    """Return what is on a terminal of 80 columns."""
    console = Console(file=io.StringIO(), width=80, height=height)
    shown = top_view.view(status, problem=problem, width=80, height=height, footer="q ends")
    with console.capture() as captured:
        console.print(shown)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_once_prints_what_there_is(run: Run, daemon: DaemonProcess) -> None:
    found = run("top", "--once", "--socket", str(daemon.socket))
    assert found.exit_code == 0
    for text in ("3 in all", "2 in all", "1 rejected (row 422)", "1 dead letters", "row 422"):
        assert text in found.stdout
    assert "\x1b" not in found.stdout


def test_it_says_that_delivery_is_behind_and_that_the_daemon_stops(
    run: Run, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    variables = {"ARTHUR_RELAY_DAEMON_METRICS_LISTEN": "127.0.0.1:0", **PATIENT}

    def shown(of: DaemonProcess) -> list[str]:
        # Not by the socket, which goes first when the daemon stops.
        found = run("top", "--once", "--url", "http://" + of.address("metrics are on"))
        assert found.exit_code == 0
        return found.stdout.splitlines()

    path = f"/api/v3/models/{sandbox.model_id}/inferences"
    sandbox.faults.hang(routes=("inferences",))
    with DaemonProcess(sandbox, tmp_path, variables=variables) as daemon:
        daemon.wait_until_ready().client().post(path, json=[row("a")])
        assert shown(daemon)[1:3] == ["All is well", "Rows are taken and delivered."]
        daemon.end(signal.SIGKILL)
        daemon.age_rows(100_000)
    with DaemonProcess(sandbox, tmp_path, variables=variables) as daemon:
        assert shown(daemon)[1:3] == ["Delivery is behind", BEHIND]
        assert any("the oldest for 1 d 3 h" in line for line in shown(daemon))
        daemon.client().post(path, json=[row("b")])
        daemon.send_signal(signal.SIGTERM)
        wait_for(lambda: shown(daemon)[1] == "The daemon is stopping")
        assert shown(daemon)[2] == ROLE_WORDS[RoleName.HOST].stopping
        sandbox.faults.reset()
        assert daemon.end(None) == 0, daemon.log


def test_once_without_a_daemon_is_an_error(run: Run, sandbox: ArthurSandbox) -> None:
    found = run("top", "--once", "--socket", "/nonexistent")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "does not answer" in found.stderr
    found = run("top", "--once", "--url", sandbox.url)
    assert found.exit_code == 1
    assert "it is no daemon's socket" in found.stderr


def test_a_screen_of_80_by_24_holds_it_however_much_there_is(status: dict[str, Any]) -> None:
    long = "x" * 200
    status["models"] = [{**status["models"][0], "id": f"{number}{long}"} for number in range(50)]
    status["errors"] = [{**status["errors"][0], "text": f"{number}{long}"} for number in range(20)]
    status["destination"] = status["state"]["detail"] = long
    status["history"] = [{**status["history"][0], "pending": 5}] * 150 if status["history"] else []
    for height in (24, 50):
        shown = lines(status, height=height)
        assert len(shown) == height
        assert max(map(len, shown)) <= 80
        assert shown[-1] == "q ends"
        assert any(line.startswith("0xxx") for line in shown)
        assert any("0xxx" in line and line.startswith(" ") for line in shown)


BROKER = {
    "connected": True,
    "bytes": 1 << 30,
    "limit_bytes": 10 << 30,
    "waiting_packets": 123_456,
    "in_flight_packets": 1024,
    "oldest_age_seconds": 86_399,
    "gateways": 3,
    "workers": 12,
}


@pytest.mark.parametrize("role", ["gateway", "worker"])
def test_a_fleet_is_shown_whole_on_80_columns(status: dict[str, Any], role: str) -> None:
    status |= {"role": role, "broker": BROKER}
    status["models"] = [{**status["models"][0], "id": f"m{number}"} for number in range(50)]
    status["errors"] = status["errors"] * 20
    for height in (24, 40):
        shown = lines(status, height=height)
        assert len(shown) == height
        text = "\n".join(shown)
        for part in ("123,456 packets wait", "1,024 in flight", "3 gateways", "12 workers"):
            assert part in text
        assert "0 ms" not in shown[6], "the broker knows since when rows wait"
    empty = "\n".join(lines({**status, "models": []}))
    assert ("Workers count rows by model." in empty) is (role == "gateway")
    assert ("dead letters" in empty) is (role == "worker")


def test_where_there_is_room_an_error_is_shown_whole(status: dict[str, Any]) -> None:
    words = " ".join(f"word-{number}" for number in range(30))
    first = {**status["errors"][0], "text": f"arthur-relay: {words}", "times": 1}
    status["errors"] = [first]
    tall = "\n".join(lines(status, height=40))
    assert "arthur-relay: " not in tall
    assert [word for word in words.split() if word not in tall] == []
    status["errors"] = [first] * 20
    full = lines(status, height=24)
    assert len(full) == 24
    assert full[-2].endswith("…")


def test_dead_letters_that_are_gone_are_shown(status: dict[str, Any]) -> None:
    assert "gone" not in "\n".join(lines(status))
    status["dead_letters"]["evicted"] = 1234
    assert "1 dead letters, 1,234 gone" in "\n".join(lines(status))


def test_its_states(status: dict[str, Any]) -> None:
    assert "Asking the daemon…" in lines(None)
    assert "It is not there." in lines(None, problem="It is not there.")
    gone = lines(status, problem="It is not there.")
    assert gone[1].startswith("The daemon is gone; what is shown below is of ")
    assert gone[2] == "It is not there."
    status["models"], status["errors"], status["history"] = [], [], []
    status["rates"] = {"accepted_per_second": None, "delivered_per_second": None}
    empty = lines(status)
    assert "No row has come in yet." in empty
    assert "no errors since the start" in empty


def test_numbers_for_people() -> None:
    assert [top_view.rate(each) for each in (None, 0, 0.26, 1234.4)] == [
        "-",
        "0/s",
        "0.3/s",
        "1,234/s",
    ]
    assert [top_view.percent(each) for each in (0, 0.0001, 0.051, 0.5, 1)] == [
        "0 %",
        "< 0.1 %",
        "5.1 %",
        "50 %",
        "100 %",
    ]
    assert [top_view.size(each) for each in (0, 1023, 1536, 20 << 20, 3 << 50)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "20 MiB",
        "3072 TiB",
    ]
    assert [top_view.span(each) for each in (0.0254, 59.9, 60, 7300, 200000)] == [
        "25 ms",
        "59 s",
        "1 min",
        "2 h 1 min",
        "2 d 7 h",
    ]


# Without a controlling terminal a typed Ctrl-C would be no signal.
_ON_ITS_OWN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """`arthur-relay top` on a terminal of 80 by 24."""

    def __init__(self, command: Command, daemon: DaemonProcess) -> None:
        arguments, environment = command
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.said = ""
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", _ON_ITS_OWN_TERMINAL),
                *(*arguments, "top", "--interval", "0.2", "--socket", str(daemon.socket)),
            ],
            env={**environment, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )

    def until(self, text: str) -> None:
        """Wait until it has said something."""
        deadline = time.monotonic() + SECONDS
        while text not in self.said:
            assert time.monotonic() < deadline, self.said
            self.read(0.1)

    def read(self, seconds: float) -> bool:
        """Take in what it says, if it does; returns whether it did."""
        if not select.select([self.ours], [], [], seconds)[0]:
            return False
        self.said += os.read(self.ours, 65536).decode("utf-8", "replace")
        return True

    def end(self) -> int:
        """Wait for its end, reading on, as it may have more to say; returns its status."""
        deadline = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.said
            self.read(0.05)
        while self.read(0.0):
            pass
        return self.process.returncode


@pytest.fixture
def terminal(command: Command, daemon: DaemonProcess) -> Iterator[Terminal]:
    running = Terminal(command, daemon)
    yield running
    if running.process.poll() is None:
        running.process.kill()
    running.process.wait()
    os.close(running.ours)
    os.close(running.theirs)


@pytest.mark.parametrize("how", ["q", "\x03", "SIGINT"])
def test_it_ends_by_q_and_ctrl_c_and_leaves_the_terminal_as_it_was(
    terminal: Terminal, how: str
) -> None:
    terminal.until("dead letters")
    terminal.until("q ends")
    if how == "SIGINT":
        terminal.process.send_signal(signal.SIGINT)
    else:
        os.write(terminal.ours, how.encode())
    assert terminal.end() == 0
    assert "Traceback" not in terminal.said
    assert terminal.said.rstrip().endswith(("\x1b[?1049l\x1b[?25h", "\x1b[?25h\x1b[?1049l"))
    assert termios.tcgetattr(terminal.theirs) == terminal.before


def test_it_shows_that_the_daemon_went_away(command: Command, daemon: DaemonProcess) -> None:
    terminal = Terminal(command, daemon)
    try:
        terminal.until("dead letters")
        daemon.process.kill()
        daemon.process.wait()
        terminal.until("The daemon is gone")
        os.write(terminal.ours, b"q")
        assert terminal.end() == 0
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.ours)
        os.close(terminal.theirs)


def test_users_that_may_not_use_the_socket_are_told(
    run: Run, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    variables = {"ARTHUR_RELAY_DAEMON_ALLOWED_UIDS": "987654"}
    with DaemonProcess(sandbox, tmp_path, variables=variables) as daemon:
        daemon.wait_until_ready()
        found = run("top", "--once", "--socket", str(daemon.socket))
        assert found.exit_code == 1
        assert "your user may not use this socket" in found.stderr
        assert run("healthcheck", "--socket", str(daemon.socket)).exit_code == 0
