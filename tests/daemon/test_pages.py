"""A daemon and a fleet can be started as their pages say: nothing is missing, nothing refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arthur_relay.credentials import credentials_from_environment
from arthur_relay.daemon.configuration import Configuration, load
from arthur_relay.daemon.settings import DAEMON_PREFIX, RoleName
from arthur_relay.encoding.product import Product
from tests.environment import forget_arthur
from tests.readme import command, commands_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_python


@pytest.fixture(autouse=True)
def _no_arthur_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch)


def started(script: str, monkeypatch: pytest.MonkeyPatch) -> list[Configuration]:
    """Follow a script up to each `arthur-relay serve`; return what that would run with."""
    found = []
    for words in commands_of(script):
        if words[0] == "export":
            for word in words[1:]:
                name, _, value = word.partition("=")
                monkeypatch.setenv(name, value.replace("…", "a-key"))
        elif words[:2] == ["arthur-relay", "serve"]:
            options = dict(zip(words[2::2], words[3::2], strict=True))
            given = {
                DAEMON_PREFIX + option.removeprefix("--").replace("-", "_").upper(): value
                for option, value in options.items()
            }
            with monkeypatch.context() as context:
                for name, value in given.items():
                    context.setenv(name, value)
                found.append(load())
        else:
            assert words[:2] == ["pip", "install"], words
    return found


def products(configuration: Configuration) -> list[Product]:
    return [each.product for each in configuration.products]


def test_a_daemon_for_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = started(command("serve", "docs/daemon.md"), monkeypatch)
    assert products(found) == [Product.SCOPE]
    assert str(found.daemon.socket) == "/run/arthur-relay/relay.sock"
    forget_arthur(monkeypatch)
    ((export, address),) = commands_of(command("send", "docs/daemon.md"))
    assert export == "export"
    name, _, value = address.partition("=")
    monkeypatch.setenv(name, value)
    assert credentials_from_environment(allow_insecure=False).url == f"unix://{found.daemon.socket}"


def test_a_daemon_for_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = started(command("serve the engine", "docs/daemon.md"), monkeypatch)
    assert products(found) == [Product.ENGINE]


def test_a_daemon_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = started(command("serve both", "docs/daemon.md"), monkeypatch)
    assert products(found) == [Product.SCOPE, Product.ENGINE]


def test_a_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the page's comment says that a gateway also needs."""
    (tmp_path / "tokens").write_text("one:token-that-is-long-enough\n")
    for name, value in {
        "TOKENS_FILE": str(tmp_path / "tokens"),
        "TLS_CERTIFICATE": "certificate",
        "TLS_KEY": "key",
    }.items():
        monkeypatch.setenv(DAEMON_PREFIX + name, value)
    gateway, worker = started(command("serve", "docs/fleet.md"), monkeypatch)
    assert (gateway.daemon.role, worker.daemon.role) == (RoleName.GATEWAY, RoleName.WORKER)


def test_a_host_of_a_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in command("a host of the fleet", "docs/fleet.md").splitlines():
        name, _, value = line.strip().partition("=")
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", "/var/lib/arthur-relay")
    (product,) = load().products
    assert product.credentials.url == "https://relay.example.com:8808"
