"""Proxies of the environment: what can't be understood is a warning, a refusal is told as one."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from arthur_relay import Relay, RelaySettings
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.testing import LLM_ATTRIBUTES
from tests.end_to_end.conftest import QUICK, capture
from tests.end_to_end.fronts import Front, read_message
from tests.waiting import wait_for

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox

URL = "https://arthur.example"


class Refusing(Front):
    """A proxy that connects nobody."""

    status = 407

    def serve(self, connection: socket.socket, there: socket.socket) -> None:
        while request := read_message(connection):
            assert request.startswith(b"CONNECT arthur.example:443 ")
            head = f"HTTP/1.1 {self.status} Canary\r\nContent-Length: 0\r\n\r\n"
            connection.sendall(head.encode())


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def relay_to(url: str) -> Relay:
    settings = RelaySettings(
        **{**QUICK, "connect": "lazy", "shutdown_timeout_seconds": 0.0, "breaker_failures": 1}
    )
    relay = Relay.from_credentials("m", url, "login", "password", settings=settings)
    relay._host.register(ModelSchema("m", LLM_ATTRIBUTES))
    return relay


@pytest.mark.parametrize("status", [403, 407])
def test_a_proxy_that_refuses_is_told_as_such(
    status: int, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Refusing(int(sandbox.url.rpartition(":")[2])) as proxy:
        proxy.status = status
        monkeypatch.setenv("HTTPS_PROXY", f"http://ada:secret@127.0.0.1:{proxy.port}")
        relay = relay_to(URL)
        capture(relay, "a")
        wait_for(lambda: relay.health().status == "failing", 60)
        detail = relay.health().detail
        assert f"the proxy refused to connect ({status})" in detail
        assert "Canary" not in detail
        assert "secret" not in detail
        assert relay.stats().pending == 1
        relay.close()


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"HTTPS_PROXY": "socks4://ada:canary@proxy:1"}, "HTTPS_PROXY can't be used"),
        ({"all_proxy": "http://ada:canary@proxy:port"}, "ALL_PROXY can't be used"),
        (
            {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "[canary, fd00::/8"},
            "1 entry of NO_PROXY can't be understood",
        ),
    ],
)
def test_variables_that_can_not_be_understood_are_a_warning(
    variables: dict[str, str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    relay = relay_to(URL)
    assert relay.health().status == "ok"
    relay.close()
    (line,) = [record.getMessage() for record in caplog.records if "PROXY" in record.getMessage()]
    assert text in line
    assert "canary" not in caplog.text
