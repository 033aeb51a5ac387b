"""What a relay says that can't start: what is known of the reason, and no guesses."""

from __future__ import annotations

import errno
import ssl
from typing import TYPE_CHECKING, Self

import httpx
import pytest

from arthur_relay import ConfigurationError, Relay, RelaySettings
from arthur_relay.errors import SpoolError, unable_to_start
from arthur_relay.testing import MemoryDestination

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://arthur.invalid"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("odd"), "The relay can't start (ValueError: odd)."),
        (KeyError(), "The relay can't start (KeyError)."),
        (MemoryError(), "The relay can't start (MemoryError)."),
        (OSError(errno.ENOSPC, "No space left"), "The relay can't start (OSError: [Errno 28]"),
        (OSError(errno.EMFILE, "Too many open files"), "the limit on open files is reached"),
        (RuntimeError("can't start new thread"), "it gets no thread: the limit on threads"),
        (
            RuntimeError("can't create new thread at interpreter shutdown"),
            "it gets no thread: the interpreter shuts down.",
        ),
        (RuntimeError("something else"), "The relay can't start (RuntimeError: something else)."),
    ],
    ids=repr,
)
def test_what_is_said_of_each_reason(error: BaseException, said: str) -> None:
    text = str(unable_to_start(error))
    assert said in text
    assert "proxy" not in text
    assert "certificate" not in text


def test_what_says_what_to_do_itself_is_left_as_it_is() -> None:
    error = SpoolError("The directory is gone.")
    assert unable_to_start(error) is error


@pytest.fixture
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ssl_cert_file", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def message_of_a_start() -> str:
    settings = RelaySettings(connect="lazy", shutdown_timeout_seconds=0)
    with pytest.raises(ConfigurationError) as caught:
        Relay.from_credentials("m", URL, "login", "password", settings=settings)
    return str(caught.value)


@pytest.mark.usefixtures("_no_proxies")
def test_certificates_that_can_not_be_loaded_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(bad))
    text = message_of_a_start()
    assert f"can't be loaded ({ssl.SSLError.__name__}" in text
    assert text.endswith("check SSL_CERT_FILE.")
    assert "proxy" not in text.lower()
    if httpx.__version__ >= "0.28":  # before, it passes a file over that is not there
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
        assert "can't be loaded (FileNotFoundError" in message_of_a_start()


def test_a_destination_that_fails_otherwise_gets_no_advice() -> None:
    class Broken(MemoryDestination):
        async def __aenter__(self) -> Self:
            raise LookupError("no such thing")

    with pytest.raises(ConfigurationError) as caught:
        Relay(Broken(), model_id="m")
    assert str(caught.value) == "The relay can't start (LookupError: no such thing)."
