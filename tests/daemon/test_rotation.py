"""A key that is replaced while the daemon runs: acknowledged rows wait, and none is rejected."""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import pytest
import trustme

from tests.daemon.process import DaemonProcess, arrived, row
from tests.end_to_end.test_client_certificate import Front, issue
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from arthur_relay.sandbox import ArthurSandbox

NEW = "another-key-5d1f"


def test_a_key_in_a_file_is_read_again(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(sandbox.api_key)
    daemon = start(ARTHUR_API_KEY="", ARTHUR_API_KEY_FILE=str(file)).wait_until_ready()
    client = daemon.client()
    path = f"/api/v3/models/{sandbox.model_id}/inferences"
    assert client.post(path, json=[row("before")]).status_code == 207
    wait_for(lambda: arrived(sandbox) == ["before"])
    sandbox._core.auth._api_key = NEW
    for name in ("a", "b", "c"):
        answer = client.post(path, json=[row(name)])
        assert answer.json()["counts"] == {"success": 1, "failure": 0, "total": 1}
    wait_for(lambda: "arthur_relay_credentials_refused 1.0" in client.get("/metrics").text)
    daemon.wait_for_log("Arthur lets us in again")
    assert daemon.log.count("Arthur lets us in again") == 1
    assert arrived(sandbox) == ["before"]
    metrics = client.get("/metrics").text
    assert "arthur_relay_pending_rows 3.0" in metrics
    assert "arthur_relay_rejected_total{" not in metrics
    file.write_text(NEW)
    wait_for(lambda: arrived(sandbox) == ["a", "b", "before", "c"])
    wait_for(lambda: "arthur_relay_credentials_refused 0.0" in client.get("/metrics").text)
    assert NEW not in daemon.log


def test_rows_wait_for_a_key_that_is_refused_from_the_start(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("a-key-that-was-revoked")
    daemon = start(ARTHUR_API_KEY="", ARTHUR_API_KEY_FILE=str(file)).wait_until_ready()
    client = daemon.client()
    path = f"/api/v3/models/{sandbox.model_id}/inferences"
    names = ["a", "b", "c"]
    for name in names:
        answer = client.post(path, json=[row(name)])
        assert answer.status_code == 207
        assert answer.json()["counts"] == {"success": 1, "failure": 0, "total": 1}
    wait_for(lambda: "arthur_relay_credentials_refused 1.0" in client.get("/metrics").text)
    metrics = client.get("/metrics").text
    assert "arthur_relay_pending_rows 3.0" in metrics
    assert "arthur_relay_rejected_total{" not in metrics
    assert arrived(sandbox) == []
    file.write_text(sandbox.api_key)
    wait_for(lambda: arrived(sandbox) == names)
    assert sandbox.duplicates == 0
    wait_for(lambda: "arthur_relay_credentials_refused 0.0" in client.get("/metrics").text)


def test_what_was_taken_with_a_refused_key_outlives_the_daemon(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("a-key-that-was-revoked")
    # Without it, nobody can say whether the other key is of the same organisation.
    variables = {
        "ARTHUR_API_KEY": "",
        "ARTHUR_API_KEY_FILE": str(file),
        "ARTHUR_ORGANIZATION_ID": "sandbox-org",
    }
    daemon = start(**variables, ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS="0.5").wait_until_ready()
    path = f"/api/v3/models/{sandbox.model_id}/inferences"
    assert daemon.client().post(path, json=[row("a")]).status_code == 207
    daemon.process.kill()
    daemon.process.wait()
    file.write_text(sandbox.api_key)
    start(**variables).wait_until_ready()
    wait_for(lambda: arrived(sandbox) == ["a"])


def test_what_was_taken_with_a_mistyped_key_is_delivered_with_the_right_one(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    daemon = start(
        ARTHUR_API_KEY="mistyped", ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS="0.5"
    ).wait_until_ready()
    path = f"/api/v3/models/{sandbox.model_id}/inferences"
    assert daemon.client().post(path, json=[row("a")]).status_code == 207
    wait_for(
        lambda: any(b"refused:" in each.read_bytes() for each in daemon.spool.glob("0.spool*"))
    )
    assert daemon.end() == 0
    right = start().wait_until_ready()
    wait_for(lambda: arrived(sandbox) == ["a"], 60)
    assert sandbox.duplicates == 0
    assert right.end() == 0
    assert "left alone" not in right.log


def test_sighup_renews_the_connections(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    with Counting(sandbox.url) as between:
        daemon = start(ARTHUR_ENDPOINT_URL=between.url).wait_until_ready()
        client = daemon.client()
        path = f"/api/v3/models/{sandbox.model_id}"

        def send(*names: str) -> int:
            """Send rows one after another. Returns how many connections there have been then."""
            for name in names:
                assert client.post(f"{path}/inferences", json=[row(name)]).status_code == 207
                # Not before the answer is back: else the next one is sent beside it.
                wait_for(lambda: client.get("/status").json()["rows"]["pending"] == 0)
                assert name in arrived(sandbox)
            return between.connections

        before = send("a", "b")
        assert send("c", "d") == before, "they are kept"
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for_log("reloaded: ")
        after = send("e")
        assert after > before
        assert send("f", "g") == after


class Counting:
    """Passes all on to a server, and counts connections."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for each in (self._listener, *self._sockets):
            each.close()

    def _run(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = socket.create_connection(self._to)
                self._sockets += [client, server]
                self._run(self._pass, client, server)
                self._run(self._pass, server, client)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def front(sandbox: ArthurSandbox, authority: trustme.CA) -> Iterator[Front]:
    """An Arthur that lets in whoever has a certificate of an authority."""
    with Front(trustme.CA(), authority, int(sandbox.url.rpartition(":")[2])) as running:
        yield running


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the front's, of cut connections
@pytest.mark.parametrize("by_signal", [True, False])
@pytest.mark.parametrize("alone", [False, True])
def test_a_client_certificate_that_is_replaced_is_shown_without_a_restart(
    alone: bool,
    by_signal: bool,
    start: Callable[..., DaemonProcess],
    sandbox: ArthurSandbox,
    front: Front,
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    front.authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    files = issue(authority, tmp_path, alone=alone)
    daemon = start(
        ARTHUR_ENDPOINT_URL=f"https://127.0.0.1:{front.port}",
        SSL_CERT_FILE=str(tmp_path / "ca.pem"),
        SSL_CERT_DIR="",
        **{f"ARTHUR_RELAY_{name.upper()}": str(path) for name, path in files.items()},
    ).wait_until_ready()
    client = daemon.client()
    path = f"/api/v3/models/{sandbox.model_id}/inferences"

    def send(name: str) -> None:
        assert client.post(path, json=[row(name)]).status_code == 207

    send("before")
    wait_for(lambda: arrived(sandbox) == ["before"])
    another = trustme.CA()
    if by_signal:
        # The connections that there are stand, and whoever makes a new one needs the other.
        front.context = front.context_of(front.authority, another)
        issue(another, tmp_path, alone=alone)
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for_log("reloaded: ")
        send("a")
    else:
        front.take_only(another)
        send("a")
        wait_for(lambda: "arthur_relay_breaker_open 1.0" in client.get("/metrics").text)
        assert arrived(sandbox) == ["before"]
        issue(another, tmp_path, alone=alone)
    wait_for(lambda: arrived(sandbox) == ["a", "before"])
    metrics = client.get("/metrics").text
    assert "arthur_relay_rejected_total{" not in metrics
    if by_signal:
        assert 'arthur_relay_requests_total{outcome="unavailable"}' not in metrics
    assert daemon.end() == 0
