"""A certificate of ours, where Arthur's front asks for one: shown, replaced, or of no use."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from arthur_relay import Relay, RelaySettings, SettingsError
from arthur_relay.credentials import credentials_from_environment
from arthur_relay.destinations.scope.client import ScopeDestination
from tests.end_to_end.conftest import QUICK, capture, check_invariant
from tests.end_to_end.fronts import TlsFront
from tests.end_to_end.test_rotation import in_file
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

# A connection that is refused in mid-handshake is left to the collector by the oldest httpcore.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("left_sockets_are_collected"),
]


class Front(TlsFront):
    """Takes connections of those who show a certificate of an authority, which can be replaced."""

    def __init__(self, server: trustme.CA, clients: trustme.CA, target: int) -> None:
        super().__init__(self.context_of(server, clients), target)
        self.authority = server
        self._below: list[socket.socket] = []

    @staticmethod
    def context_of(server: trustme.CA, clients: trustme.CA) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        server.issue_cert("127.0.0.1").configure_cert(context)
        clients.configure_trust(context)
        return context

    def serve(self, connection: socket.socket, there: socket.socket) -> None:
        with connection.dup() as below:  # TLS takes the connection itself over
            self._below.append(below)
            super().serve(connection, there)

    def cut_idle(self) -> None:
        for below in self._below:
            with suppress(OSError):  # it has ended by itself
                below.shutdown(socket.SHUT_RDWR)
        super().cut_idle()

    def take_only(self, clients: trustme.CA) -> None:
        """Take clients of this authority from now on, and end the connections that there are."""
        self.context = self.context_of(self.authority, clients)
        self.cut_idle()


@pytest.fixture
def server() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def clients() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def front(
    sandbox: ArthurSandbox,
    server: trustme.CA,
    clients: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Front]:
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    server.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with Front(server, clients, int(sandbox.url.rpartition(":")[2])) as running:
        monkeypatch.setenv("ARTHUR_ENDPOINT_URL", f"https://127.0.0.1:{running.port}")
        yield running


def issue(authority: trustme.CA, folder: Path, *, alone: bool = False) -> dict[str, Path]:
    """Put a new certificate into files, and return the settings that name them."""
    found = authority.issue_cert("relay@example.com")
    chain = "".join(each.bytes().decode() for each in found.cert_chain_pems)
    key = found.private_key_pem.bytes().decode()
    if not alone:
        return {"client_cert_file": in_file(folder / "client.pem", key + chain)}
    return {
        # The key last: for a moment it is not that of the certificate.
        "client_cert_file": in_file(folder / "client.crt", chain),
        "client_key_file": in_file(folder / "client.key", key),
    }


def make(**settings: Any) -> Relay:
    return Relay.from_env(settings=RelaySettings(**{**QUICK, **settings}))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("alone", [False, True])
def test_one_that_is_replaced_is_shown_without_a_restart(
    alone: bool,
    version: ssl.TLSVersion,
    front: Front,
    clients: trustme.CA,
    sandbox: ArthurSandbox,
    tmp_path: Path,
) -> None:
    front.context.minimum_version = front.context.maximum_version = version
    relay = make(**issue(clients, tmp_path, alone=alone))
    capture(relay, "before")
    assert relay.flush(30).delivered == 1
    another = trustme.CA()
    front.take_only(another)
    front.context.minimum_version = front.context.maximum_version = version
    capture(relay, "a", "b")
    wait_for(lambda: relay.health().status == "failing", 60)
    stats = relay.stats()
    assert (stats.pending, stats.rejected) == (2, 0)
    issue(another, tmp_path, alone=alone)
    assert relay.flush(60).delivered == 3
    check_invariant(relay, sandbox)
    relay.close()


def test_a_front_that_refuses_it_by_a_status_is_asked_with_the_new_one(
    front: Front, clients: trustme.CA, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    # As nginx does: the connection stands, and each request on it is answered with 400 in HTML.
    relay = make(**issue(clients, tmp_path))
    capture(relay, "before")
    assert relay.flush(30).delivered == 1
    sandbox.faults.not_json(status=400, times=None)
    while front.attempts.acquire(blocking=False):
        pass
    issue(clients, tmp_path)
    capture(relay, "a")
    assert front.attempts.acquire(timeout=30), "no other connection was made"
    sandbox.faults.reset()
    assert relay.flush(60).delivered == 2
    relay.close()


def test_a_renewal_which_sighup_asks_for_shows_the_new_one(
    front: Front, clients: trustme.CA, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    settings = RelaySettings(**QUICK, **issue(clients, tmp_path))
    credentials = credentials_from_environment(allow_insecure=False)
    destination = ScopeDestination.of(credentials, settings)
    relay = Relay(destination, model_id=sandbox.model_id, settings=settings)
    capture(relay, "before")
    assert relay.flush(30).delivered == 1
    another = trustme.CA()
    front.context = front.context_of(front.authority, another)  # the old connection stays
    issue(another, tmp_path)
    renewed = threading.Event()
    relay._host.pipeline.runtime.call(lambda: destination.renew(credentials))
    relay._host.pipeline.runtime.call(renewed.set)
    assert renewed.wait(30)
    capture(relay, "a")
    assert relay.flush(60).delivered == 2
    assert relay.stats().retries == 0
    relay.close()


def test_a_half_replaced_one_leaves_that_in_force(
    front: Front, clients: trustme.CA, tmp_path: Path
) -> None:
    relay = make(connection_max_age_seconds=0.01, **issue(clients, tmp_path, alone=True))
    capture(relay, "before")
    assert relay.flush(30).delivered == 1
    in_file(tmp_path / "client.crt", "half of it")
    capture(relay, "a")
    assert relay.flush(30).delivered == 2
    relay.close()


def test_without_one_the_line_says_what_to_set(front: Front) -> None:
    relay = make(connect="lazy", shutdown_timeout_seconds=0.0)
    capture(relay, "a")
    wait_for(lambda: "ARTHUR_RELAY_CLIENT_CERT_FILE" in relay.health().detail, 60)
    assert relay.health().status == "failing"
    assert relay.stats().rejected == 0
    relay.close()


def encrypted(pem: bytes) -> str:
    key = load_pem_private_key(pem, None)
    kind = PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(Encoding.PEM, kind, BestAvailableEncryption(b"canary")).decode()


WRONG = {
    "missing": (None, None, "No such file"),
    "no certificate": ("nothing", None, "no PEM file with a certificate and its key"),
    "no key": ("chain", None, "no PEM file with a certificate and its key"),
    "key of another": ("chain", "another", "the key is not that of the certificate"),
    "key that is encrypted": ("chain", "encrypted", "its key is encrypted"),
    "key that is missing": ("chain", "missing", "No such file"),
    "key alone": (None, "key", "of no use alone"),
}


@pytest.mark.usefixtures("front")
@pytest.mark.parametrize("name", WRONG)
def test_one_that_can_not_be_loaded_is_one_sentence_at_the_start(
    name: str, clients: trustme.CA, tmp_path: Path
) -> None:
    certificate, key, reason = WRONG[name]
    found = clients.issue_cert("relay@example.com")
    texts = {
        "nothing": "nothing",
        "chain": "".join(each.bytes().decode() for each in found.cert_chain_pems),
        "key": found.private_key_pem.bytes().decode(),
        "another": clients.issue_cert("x@example.com").private_key_pem.bytes().decode(),
        "encrypted": encrypted(found.private_key_pem.bytes()),
    }
    settings: dict[str, Any] = {}
    if name != "key alone":
        settings["client_cert_file"] = tmp_path / "client.crt"
    if certificate is not None:
        in_file(tmp_path / "client.crt", texts[certificate])
    if key is not None:
        settings["client_key_file"] = tmp_path / "client.key"
    if key in texts:
        in_file(tmp_path / "client.key", texts[key])
    with pytest.raises(SettingsError, match=reason) as raised:
        make(**settings)
    assert "\n" not in str(raised.value)
    assert "canary" not in str(raised.value)
