"""A daemon whose Arthur is itself does not start: nothing would arrive, and all look well."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from arthur_relay.daemon.self_delivery import refuse_own_address
from arthur_relay.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.daemon.process import DaemonProcess


@pytest.mark.parametrize(
    ("url", "listening"),
    [
        ("http://127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("http://localhost:8080", ("127.0.0.1", 8080)),
        ("http://127.0.0.1:8080", ("localhost", 8080)),
        ("http://127.0.0.1:8080/arthur", ("", 8080)),
        ("http://127.0.0.7:8080", ("0.0.0.0", 8080)),
        ("https://localhost", ("127.0.0.1", 443)),
        ("http://localhost", ("0.0.0.0", 80)),
        (f"http://{socket.gethostname()}:8080", ("::", 8080)),
    ],
)
def test_an_address_that_it_listens_on_is_refused(url: str, listening: tuple[str, int]) -> None:
    with pytest.raises(SettingsError, match="ARTHUR_ENDPOINT_URL is .* itself listens"):
        refuse_own_address(url, [], [("127.0.0.1", 1), listening])


@pytest.mark.parametrize(
    ("url", "listening"),
    [
        ("http://127.0.0.1:8081", ("127.0.0.1", 8080)),
        ("http://127.0.0.1:8080", ("127.0.0.2", 8080)),
        ("https://localhost", ("127.0.0.1", 80)),
        ("https://192.0.2.1:8080", ("", 8080)),
        ("https://arthur.invalid:8080", ("", 8080)),
        ("https://arthur.invalid:8080", ("another.invalid", 8080)),
        ("unix:///run/another.sock", ("127.0.0.1", 8080)),
    ],
)
def test_any_other_is_not(url: str, listening: tuple[str, int]) -> None:
    refuse_own_address(url, ["/run/relay.sock"], [listening])


def test_so_is_its_socket_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    for path in (tmp_path / "run" / "s", tmp_path / "link" / "s", tmp_path / "run/../link/s"):
        with pytest.raises(SettingsError, match="itself listens"):
            refuse_own_address(f"unix://{path}", [tmp_path / "run" / "s"], [])


@pytest.mark.parametrize("endpoint", ["SOCKET", "LISTEN", "METRICS_LISTEN"])
def test_it_does_not_start(
    start: Callable[..., DaemonProcess], endpoint: str, tmp_path: Path
) -> None:
    if endpoint == "SOCKET":
        variables = {"ARTHUR_ENDPOINT_URL": f"unix://{tmp_path}/s"}
        variables["ARTHUR_RELAY_DAEMON_SOCKET"] = f"{tmp_path}/s"
    else:
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        variables = {"ARTHUR_ENDPOINT_URL": f"http://localhost:{port}"}
        variables[f"ARTHUR_RELAY_DAEMON_{endpoint}"] = f"127.0.0.1:{port}"
    daemon = start(**variables)
    assert daemon.end(None) == 2
    assert "this daemon itself listens" in daemon.log
    assert not (tmp_path / "s").exists()
