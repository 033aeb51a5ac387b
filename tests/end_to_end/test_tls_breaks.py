"""TLS that breaks after the handshake: an Arthur that can't be reached, never an answer.

What the library below raises then is not always mapped: it depends on its version.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from arthur_relay import Relay, RelaySettings
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.testing import LLM_ATTRIBUTES
from tests.end_to_end.conftest import QUICK, capture
from tests.end_to_end.fronts import Front, TlsFront, read_message
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

TIMES = 5
"""More often than an answer may be one that is not understood."""


class BreakingTls(Front):
    """Reads a request over TLS, and then does something else than answer it.

    Attributes:
        left: How many connections still break; the others are served.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        target: int,
        breaks: Callable[[socket.socket, ssl.SSLSocket], None],
    ) -> None:
        super().__init__(target)
        self.left = TIMES
        self._context = context
        self._breaks = breaks

    def serve(self, connection: socket.socket, there: socket.socket) -> None:
        if not self.left:
            TlsFront.pass_on(self._context, connection, there)
            return
        self.left -= 1
        with (
            connection.dup() as raw,
            self._context.wrap_socket(connection, server_side=True) as here,
        ):
            read_message(here)
            self._breaks(raw, here)


def plain_text(raw: socket.socket, _here: ssl.SSLSocket) -> None:
    """Answer as a server without TLS does."""
    raw.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    raw.shutdown(socket.SHUT_WR)
    with suppress(OSError):
        while raw.recv(65536):
            pass


def noise(raw: socket.socket, here: ssl.SSLSocket) -> None:
    """Send half of an answer, and then a record that can't be decrypted."""
    here.sendall(b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 1000\r\n\r\n{")
    raw.sendall(b"\x17\x03\x03\x00\x20" + b"\xa5" * 32)
    with suppress(OSError):
        while raw.recv(65536):
            pass


def end_without_a_word(raw: socket.socket, _here: ssl.SSLSocket) -> None:
    """Close the connection below TLS."""
    raw.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusted(
    authority: trustme.CA, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


def relay_to(port: int, sandbox: ArthurSandbox, **settings: Any) -> Relay:
    chosen = RelaySettings(**{**QUICK, "connect": "lazy", "max_in_flight": 1, **settings})
    relay = Relay.from_credentials(
        sandbox.model_id,
        f"https://127.0.0.1:{port}",
        sandbox.login,
        sandbox.password,
        settings=chosen,
    )
    relay._host.register(ModelSchema(sandbox.model_id, LLM_ATTRIBUTES))
    return relay


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("breaks", [plain_text, noise, end_without_a_word])
def test_a_stream_that_breaks_is_an_arthur_that_can_not_be_reached(
    breaks: Callable[[socket.socket, ssl.SSLSocket], None],
    context: ssl.SSLContext,
    sandbox: ArthurSandbox,
) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    with BreakingTls(context, port, breaks) as front:
        relay = relay_to(front.port, sandbox)
        capture(relay, "a")
        result = relay.flush(60)
        assert (result.delivered, result.rejected, result.timed_out) == (1, 0, False)
        assert front.left == 0
        assert relay.stats().malformed_answers == 0
        relay.close()


@pytest.mark.usefixtures("trusted")
def test_a_client_certificate_that_is_asked_for_and_not_there(
    authority: trustme.CA, context: ssl.SSLContext, sandbox: ArthurSandbox
) -> None:
    # In TLS 1.3 the handshake is over for the client before the server misses its certificate:
    # the alert comes with the first read.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    with TlsFront(context, int(sandbox.url.rpartition(":")[2])) as front:
        relay = relay_to(front.port, sandbox, shutdown_timeout_seconds=0.0, breaker_failures=2)
        capture(relay, "a")
        wait_for(lambda: relay.stats().requests >= TIMES, 60)
        wait_for(lambda: relay.health().status == "failing", 60)
        stats = relay.stats()
        assert (stats.pending, stats.rejected, stats.malformed_answers) == (1, 0, 0)
        assert sandbox.requests == []
    # httpcore leaves a socket to Python's collector when it is cancelled in mid-handshake.
    wait_for(lambda: "the connection was refused" in relay.health().detail, 60)
    relay.close()
