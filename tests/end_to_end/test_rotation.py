"""Keys, passwords and certificates that are replaced while a relay runs: rows wait meanwhile."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from arthur_relay import Relay, RelaySettings
from tests.end_to_end.conftest import QUICK, capture, check_invariant
from tests.end_to_end.fronts import TlsFront
from tests.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

NEW = "another-key-5d1f"


def rotate(sandbox: ArthurSandbox, *, key: str = NEW, password: str = NEW) -> None:
    """Have Arthur take another key and another password, and none that it took before."""
    auth = sandbox._core.auth
    auth._api_key, auth._password = key, password
    auth.expire_tokens()


def in_file(path: Path, text: str) -> Path:
    """Replace a file in one step, as Kubernetes and systemd do."""
    new = path.with_suffix(".new")
    new.write_text(f"{text}\n")
    new.replace(path)
    return path


def make(sandbox: ArthurSandbox, **settings: Any) -> Relay:
    return Relay.from_env(settings=RelaySettings(**{**QUICK, **settings}))


@pytest.mark.parametrize("status", [402, 403])
def test_a_key_that_may_not_write_is_read_again_too(
    status: int, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ARTHUR_ENDPOINT_URL", sandbox.url)
    monkeypatch.setenv("ARTHUR_MODEL_ID", sandbox.model_id)
    file = in_file(tmp_path / "secret", sandbox.api_key)
    monkeypatch.setenv("ARTHUR_API_KEY_FILE", str(file))
    relay = make(sandbox, retry_max_elapsed_seconds=0.0)
    capture(relay, "before")
    assert relay.flush(30).delivered == 1
    sandbox.faults.status(status, times=None)
    capture(relay, "a", "b")
    asked = len(sandbox.requests)
    wait_for(lambda: len(sandbox.requests) > asked + 2, 60)
    assert (relay.health().status, relay.stats().pending) == ("failing", 2)
    assert f"({status})" in relay.health().detail
    rotate(sandbox)  # only now there is another key
    in_file(file, NEW)
    asked = len(sandbox.requests)
    wait_for(lambda: len(sandbox.requests) > asked + 2, 60)
    answered = [request.status for request in sandbox.requests[asked + 1 :]]
    assert set(answered) == {status}  # and not 401, as the key is the new one
    sandbox.faults.reset()
    assert relay.flush(60).pending == 0
    stats = relay.stats()
    assert (stats.delivered, stats.rejected, dict(stats.dropped)) == (3, 0, {})
    relay.close(5)
    check_invariant(relay, sandbox)


@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.parametrize("secret", ["key", "password"])
def test_a_secret_in_a_file_is_read_again(
    secret: str,
    spool: bool,
    sandbox: ArthurSandbox,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="arthur_relay")
    monkeypatch.setenv("ARTHUR_ENDPOINT_URL", sandbox.url)
    monkeypatch.setenv("ARTHUR_MODEL_ID", sandbox.model_id)
    file = tmp_path / "secret"
    if secret == "key":
        monkeypatch.setenv("ARTHUR_API_KEY_FILE", str(in_file(file, sandbox.api_key)))
    else:
        monkeypatch.setenv("ARTHUR_LOGIN", sandbox.login)
        monkeypatch.setenv("ARTHUR_PASSWORD_FILE", str(in_file(file, sandbox.password)))
    where = {"spool_dir": tmp_path / "spool"} if spool else {}
    # No time is given to rows that fail: that we are refused does not count.
    relay = make(sandbox, retry_max_elapsed_seconds=0.0, **where)
    capture(relay, "before")
    assert relay.flush(30).delivered == 1
    rotate(sandbox)
    capture(relay, "a", "b")
    asked = len(sandbox.requests)
    wait_for(lambda: len(sandbox.requests) > asked + 6, 60)  # a probe, and another one
    stats = relay.stats()
    assert (stats.pending, stats.rejected, dict(stats.dropped)) == (2, 0, {})
    health = relay.health()
    assert health.status == "failing"
    assert "refused" in health.detail
    lines = [r.getMessage() for r in caplog.records if "lets us in" in r.getMessage()]
    assert len(lines) == 1
    in_file(file, NEW)
    result = relay.flush(60)
    assert (result.delivered, result.rejected, result.pending) == (3, 0, 0)
    assert relay.health().status == "ok"
    check_invariant(relay, sandbox)
    assert NEW not in caplog.text
    relay.close()


def test_what_is_captured_while_the_key_is_refused_waits_in_the_spool(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ARTHUR_ENDPOINT_URL", sandbox.url)
    monkeypatch.setenv("ARTHUR_MODEL_ID", sandbox.model_id)
    file = in_file(tmp_path / "key", sandbox.api_key)
    monkeypatch.setenv("ARTHUR_API_KEY_FILE", str(file))
    spool = tmp_path / "spool"
    first = make(sandbox, spool_dir=spool)
    capture(first, "before")
    assert first.flush(30).delivered == 1
    first.close()
    rotate(sandbox)
    # A start with a key that is refused: the model is known from before.
    relay = make(sandbox, spool_dir=spool, connect="lazy")
    capture(relay, "a")
    wait_for(lambda: relay.stats().spooled == 1 and relay.health().status == "failing", 60)
    wait_for(lambda: relay.stats().requests > 2, 60)
    capture(relay, "b")
    wait_for(lambda: relay.stats().spooled == 2, 60)
    assert relay.stats().rejected == 0
    in_file(file, NEW)
    assert relay.flush(60).delivered == 2
    relay.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("left_sockets_are_collected")
def test_an_authority_that_is_replaced_is_trusted_without_a_restart(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def context_of(authority: trustme.CA) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        return context

    old, new = trustme.CA(), trustme.CA()
    file = in_file(tmp_path / "ca", old.cert_pem.bytes().decode())
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with TlsFront(context_of(old), int(sandbox.url.rpartition(":")[2])) as front:
        monkeypatch.setenv("ARTHUR_ENDPOINT_URL", f"https://127.0.0.1:{front.port}")
        relay = make(sandbox, connection_max_age_seconds=0.01)
        capture(relay, "before")
        assert relay.flush(30).delivered == 1
        front.context = context_of(new)
        capture(relay, "a")
        wait_for(lambda: relay.health().status == "failing", 60)
        assert "certificate is not trusted" in relay.health().detail
        in_file(file, new.cert_pem.bytes().decode())
        assert relay.flush(60).delivered == 2
        relay.close()
