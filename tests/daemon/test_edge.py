"""Clients that behave badly: slow, silent, too many, too large; and TLS."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.daemon.certificates import issue_certificate
from tests.daemon.process import DaemonProcess, arrived, row
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox


@pytest.fixture
def hurried(start: Callable[..., DaemonProcess]) -> DaemonProcess:
    """A daemon that has little patience."""
    return start(
        ARTHUR_RELAY_DAEMON_CLIENT_TIMEOUT_SECONDS="0.3",
        ARTHUR_RELAY_DAEMON_MAX_CONNECTIONS="20",
    ).wait_until_ready()


def is_ready(daemon: DaemonProcess) -> bool:
    """Ask it, again where its patience was over before our request was there."""
    for _ in range(10):
        with suppress(httpx.TransportError):
            return daemon.client().get("/readyz").status_code == 200
    return False


@pytest.fixture
def connect(hurried: DaemonProcess) -> Iterator[Callable[[], socket.socket]]:
    with ExitStack() as stack:

        def one() -> socket.socket:
            made = stack.enter_context(socket.socket(socket.AF_UNIX))
            made.settimeout(30)
            made.connect(str(hurried.socket))
            return made

        yield one


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
    except ConnectionResetError:
        pass
    return answer


def test_hundreds_of_clients_may_come_at_the_same_moment(daemon: DaemonProcess) -> None:
    # Those that don't find room in the queue of a Unix socket are turned away, and asyncio does not
    # even notice: its clients send into a connection that is none.
    daemon.send_signal(signal.SIGSTOP)
    with ExitStack() as stack:
        try:
            clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(500)]
            for each in clients:
                each.setblocking(False)
                each.connect(str(daemon.socket))
                each.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        finally:
            daemon.send_signal(signal.SIGCONT)
        for each in clients:
            each.settimeout(30)
            assert read_all(each).startswith(b"HTTP/1.1 200 ")


HEAD = "POST /api/v3/models/{}/inferences HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST /api", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"HTTP/1.1 408 "),
        (HEAD.format("m").encode() + b"Content-Length: 100\r\n\r\n[", b"HTTP/1.1 408 "),
        (
            HEAD.format("m").encode() + b"Transfer-Encoding: chunked\r\n\r\n5\r\n[",
            b"HTTP/1.1 408 ",
        ),
    ],
)
def test_half_a_request(
    sent: bytes, answer: bytes, connect: Callable[[], socket.socket], hurried: DaemonProcess
) -> None:
    connection = connect()
    connection.sendall(sent)
    assert read_all(connection).startswith(answer)
    assert is_ready(hurried)


def test_a_drip_does_not_buy_time(
    connect: Callable[[], socket.socket], hurried: DaemonProcess
) -> None:
    connection = connect()
    connection.settimeout(0.05)
    connection.sendall(HEAD.format("m").encode() + b"Content-Length: 100000\r\n\r\n")
    answer = b""
    for _ in range(1000):
        try:
            connection.sendall(b" ")
            answer += connection.recv(1000)
        except TimeoutError:
            continue
        except OSError:
            break
        if answer:
            break
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_never_reads(
    connect: Callable[[], socket.socket], hurried: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    connection = connect()
    body = json.dumps([{}] * 9000).encode()
    head = HEAD.format(sandbox.model_id) + f"Content-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)  # the answer is larger than the socket's buffers
    other = hurried.client()
    wait_for(lambda: other.get("/readyz").status_code == 200)

    def is_gone() -> bool:
        try:
            connection.send(b"x", socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    wait_for(is_gone)


def test_silent_connections_make_room(
    connect: Callable[[], socket.socket], hurried: DaemonProcess
) -> None:
    held = [connect() for _ in range(50)]  # 20 may be connected
    assert hurried.client().get("/healthz").status_code == 200
    for each in held:
        assert read_all(each) == b"", "silent ones are ended in time, too"


def test_too_many_connections(connect: Callable[[], socket.socket], hurried: DaemonProcess) -> None:
    request = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
    held = [connect() for _ in range(20)]
    for each in held:
        each.sendall(request % b"/api/v3/users/me")
        assert each.recv(1000).startswith(b"HTTP/1.1 200 ")
    late = connect()
    late.sendall(request % b"/api/v3/users/me")
    answer = read_all(late).lower()
    assert answer.startswith(b"http/1.1 503 ")
    assert b"retry-after: 1" in answer
    assert hurried.client().get("/healthz").status_code == 200, "probes are always answered"
    assert cli_healthcheck(hurried) == 0
    held[0].close()
    wait_for(lambda: hurried.client().get("/api/v3/users/me").status_code == 200)


def cli_healthcheck(daemon: DaemonProcess) -> int:
    code = "import arthur_relay.cli; arthur_relay.cli.main()"
    command = [sys.executable, "-c", code, "healthcheck", "--socket", str(daemon.socket)]
    return subprocess.run(command, env=daemon.environment, check=False).returncode


def test_a_head_that_is_too_large(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(b"GET /readyz HTTP/1.1\r\nX: " + b"x" * 60_000)
    assert read_all(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\0" * 100])
def test_what_is_not_http(
    sent: bytes, connect: Callable[[], socket.socket], hurried: DaemonProcess
) -> None:
    connection = connect()
    connection.sendall(sent + b"\r\n\r\n")
    assert read_all(connection).startswith(b"HTTP/1.1 400 ")
    assert is_ready(hurried)


def test_clients_that_go_away(
    connect: Callable[[], socket.socket], hurried: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    for _ in range(10):
        connection = connect()
        connection.sendall(HEAD.format(sandbox.model_id).encode() + b"Content-Length: 100\r\n\r\n[")
        connection.close()
    client = hurried.client()
    path = f"/api/v3/models/{sandbox.model_id}/inferences"
    assert client.post(path, json=[row("a")]).status_code == 207
    wait_for(lambda: arrived(sandbox) == ["a"])
    client.close()
    assert hurried.end() == 0
    assert "unexpected" not in hurried.log
    assert "ASGI" not in hurried.log


def test_pipelined_requests_are_all_answered(
    connect: Callable[[], socket.socket], sandbox: ArthurSandbox
) -> None:
    connection = connect()
    body = json.dumps([row("a")]).encode()
    head = HEAD.format(sandbox.model_id) + f"Content-Length: {len(body)}\r\n"
    request = head.encode() + b"\r\n" + body
    last = head.encode() + b"Connection: close\r\n\r\n" + body
    connection.sendall(request * 3 + last)
    assert read_all(connection).count(b"HTTP/1.1 207 ") == 4


TOKEN = "0123456789abcdef-tls"


def test_tls_and_its_renewal(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    first = issue_certificate(tmp_path)
    tokens.write_text(f"one:{TOKEN}:{sandbox.model_id}\n")
    daemon = start(
        ARTHUR_RELAY_DAEMON_LISTEN="127.0.0.1:0",
        ARTHUR_RELAY_DAEMON_TLS_CERTIFICATE=str(tmp_path / "cert"),
        ARTHUR_RELAY_DAEMON_TLS_KEY=str(tmp_path / "key"),
        ARTHUR_RELAY_DAEMON_TOKENS_FILE=str(tokens),
    ).wait_until_ready()
    url = f"https://{daemon.address('taking rows on')}"
    path = "/api/v3/models/{}/inferences"
    client = daemon.client(url, verify=first, headers={"Authorization": TOKEN})
    assert client.post(path.format(sandbox.model_id), json=[row("a")]).status_code == 207
    assert client.post(path.format("other"), json=[row("a")]).status_code == 403
    assert client.get(f"/api/v3/models/{sandbox.model_id}").status_code == 200
    assert client.get("/metrics").status_code == 404, "not on this door"
    second = issue_certificate(tmp_path)
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for_log("reloaded: ")
    renewed = daemon.client(url, verify=second, headers={"Authorization": TOKEN})
    assert renewed.post(path.format(sandbox.model_id), json=[row("b")]).status_code == 207
    (tmp_path / "key").write_text("no key")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for_log("can't be loaded")
    again = daemon.client(url, verify=second, headers={"Authorization": TOKEN})
    assert again.post(path.format(sandbox.model_id), json=[row("c")]).status_code == 207
    wait_for(lambda: arrived(sandbox) == ["a", "b", "c"])
    assert daemon.end() == 0
