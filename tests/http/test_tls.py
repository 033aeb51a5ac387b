"""HTTPS: an Arthur whose certificate nobody knows is refused, unless that is asked for."""

from __future__ import annotations

import gc
import logging
import select
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import pytest
import trustme

from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings
from tests.http.conftest import QUICK, capture, capture_through

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from arthur_relay.sandbox import ArthurSandbox


class TlsFront:
    """Ends TLS on a port of this machine, and passes what comes on to another port.

    Attributes:
        port: Where it listens.
        attempts: Connections that were made to it, whether or not they came to anything.
    """

    def __init__(self, context: ssl.SSLContext, target: int) -> None:
        self._context = context
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.port = self._listener.getsockname()[1]
        self.attempts = threading.Semaphore(0)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # which wakes `accept`
        for thread in self._threads:  # they end when their clients do
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # that of the end
            while True:
                connection, _ = self._listener.accept()
                self.attempts.release()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # also of a handshake that fails
            there = socket.create_connection(("127.0.0.1", self._target))
            with there, self._context.wrap_socket(connection, server_side=True) as here:
                while True:
                    # Records that were read already are not seen by select.
                    ready = [here] if here.pending() else select.select([here, there], [], [])[0]
                    for source in ready:
                        data = source.recv(65536)
                        if not data:
                            return
                        (there if source is here else here).sendall(data)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def front(authority: trustme.CA, sandbox: ArthurSandbox) -> Iterator[TlsFront]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    with TlsFront(context, int(sandbox.url.rpartition(":")[2])) as running:
        yield running


@pytest.fixture
def environment(
    front: TlsFront, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The sandbox's, by way of the front."""
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARTHUR_ENDPOINT_URL", f"https://127.0.0.1:{front.port}")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    return monkeypatch


# Cancelled in mid-handshake, httpcore leaves the socket to the collector: its `start_tls` closes
# it after an Exception only.
leaves_a_socket = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@leaves_a_socket
@pytest.mark.usefixtures("environment")
def test_a_certificate_that_nobody_knows_is_refused(
    front: TlsFront,
    sandbox: ArthurSandbox,
    settings: RelaySettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="arthur_relay")
    handler = ArthurCallbackHandler.from_env(settings=settings)
    capture_through([handler])
    for _ in range(3):  # it is tried again and again
        assert front.attempts.acquire(timeout=30)
    health = handler.relay.health()
    assert health.status == "failing"
    assert "certificate is not trusted" in health.detail
    result = handler.relay.close(0.0)
    gc.collect()
    assert (result.delivered, result.pending, result.dropped) == (0, 0, {"shutdown": 1})
    assert sandbox.requests == []
    texts = [r.getMessage() for r in caplog.records if "certificate" in r.getMessage()]
    (text,) = texts
    assert "CERTIFICATE_VERIFY_FAILED" in text
    assert "SSL_CERT_FILE" in text
    assert "VERIFY_SSL" in text


def test_any_certificate_will_do_when_that_is_said(
    environment: pytest.MonkeyPatch, sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    environment.setenv("VERIFY_SSL", "false")
    handler = ArthurCallbackHandler.from_env(settings=settings)
    capture_through([handler])
    assert handler.flush(30).delivered == 1
    assert len(sandbox.inferences) == 1
    handler.relay.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_authority_of_the_environment_is_trusted(
    host: str,
    authority: trustme.CA,
    environment: pytest.MonkeyPatch,
    front: TlsFront,
    sandbox: ArthurSandbox,
    settings: RelaySettings,
    tmp_path: Path,
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    environment.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    environment.setenv("ARTHUR_ENDPOINT_URL", f"https://{host}:{front.port}")
    handler = ArthurCallbackHandler.from_env(settings=settings)
    capture_through([handler])
    assert handler.flush(30).delivered == 1
    assert len(sandbox.inferences) == 1
    handler.relay.close()


@leaves_a_socket
def test_a_certificate_of_another_host_is_refused(
    authority: trustme.CA,
    environment: pytest.MonkeyPatch,
    sandbox: ArthurSandbox,
    tmp_path: Path,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("arthur.example").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    environment.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with TlsFront(context, int(sandbox.url.rpartition(":")[2])) as front:
        environment.setenv("ARTHUR_ENDPOINT_URL", f"https://127.0.0.1:{front.port}")
        relay = Relay.from_env(settings=RelaySettings(**{**QUICK, "connect": "lazy"}))
        capture(relay, "a")
        for _ in range(2):
            assert front.attempts.acquire(timeout=30)
        relay.close(0.0)
        gc.collect()
    assert relay.stats().dropped == {"shutdown": 1}
    assert sandbox.requests == []
