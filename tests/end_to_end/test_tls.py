"""HTTPS: an Arthur whose certificate nobody knows is refused, unless that is asked for."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from arthur_relay import ArthurCallbackHandler, RelaySettings
from tests.end_to_end.conftest import capture_through
from tests.end_to_end.fronts import TlsFront

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox


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


# httpcore leaves the socket of a handshake that is cancelled; the fixture has it collected.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("environment", "left_sockets_are_collected")
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
