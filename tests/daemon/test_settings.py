"""The daemon's settings: each is read from its variable, and a bad value is one clear error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arthur_relay.daemon.configuration import load
from arthur_relay.daemon.settings import (
    DAEMON_PREFIX,
    DaemonSettings,
    LogFormat,
    LogLevel,
    read_address,
)
from arthur_relay.errors import SettingsError
from arthur_relay.settings import Overflow


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    before = dict(os.environ)
    for name in before:
        if name.startswith("ARTHUR_"):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


OTHER: dict[str, tuple[str, Any]] = {
    "socket": ("/somewhere/else", Path("/somewhere/else")),
    "socket_mode": ("0666", 0o666),
    "socket_group": ("users", "users"),
    "allowed_uids": ("7", frozenset({7})),
    "listen": ("127.0.0.1:80", "127.0.0.1:80"),
    "tls_certificate": ("cert", Path("cert")),
    "tls_key": ("key", Path("key")),
    "tokens_file": ("tokens", Path("tokens")),
    "metrics_listen": (":9464", ":9464"),
    "allowed_hosts": ("Relay.example, other", frozenset({"relay.example", "other"})),
    "max_body_bytes": ("2048", 2048),
    "max_rows": ("3", 3),
    "max_row_bytes": ("1025", 1025),
    "max_intake_bytes": ("99999999", 99_999_999),
    "max_connections": ("5", 5),
    "client_timeout_seconds": ("1.5", 1.5),
    "log_format": ("json", LogFormat.JSON),
    "log_level": ("debug", LogLevel.DEBUG),
}


def test_every_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OTHER.keys() == DaemonSettings.model_fields.keys()
    defaults = DaemonSettings()
    for name, (text, _) in OTHER.items():
        monkeypatch.setenv(DAEMON_PREFIX + name.upper(), text)
    found = DaemonSettings()
    for name, (_, value) in OTHER.items():
        assert getattr(found, name) == value != getattr(defaults, name)


@pytest.mark.parametrize(
    "name", ["socket", "socket_group", "allowed_uids", "listen", "tokens_file", "allowed_hosts"]
)
def test_none_can_be_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DAEMON_PREFIX + name.upper(), "none")
    assert getattr(DaemonSettings(), name) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("socket_mode", "999"),
        ("allowed_uids", "root"),
        ("listen", "::1:80"),
        ("listen", "host:99999"),
        ("max_rows", "0"),
        ("client_timeout_seconds", "nan"),
        ("log_level", "loud"),
    ],
)
def test_a_bad_value_names_the_variable_and_what_is_allowed(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = DAEMON_PREFIX + name.upper()
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"{variable} can't be .*{value}.*default") as error:
        DaemonSettings()
    assert str(DaemonSettings.model_fields[name].description) in str(error.value)


def test_a_setting_that_there_is_not() -> None:
    with pytest.raises(SettingsError, match="no setting 'port' of the daemon; there are: allowed"):
        DaemonSettings(port=1)


def test_addresses() -> None:
    assert read_address("localhost:80") == ("localhost", 80)
    assert read_address("[::1]:80") == ("::1", 80)
    assert read_address(":0") == ("", 0)


def test_a_file_of_variables_wins_and_a_bad_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "variables"
    monkeypatch.setenv("ARTHUR_API_KEY", "key")
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path))
    monkeypatch.setenv("ARTHUR_RELAY_BATCH_SIZE", "5")
    monkeypatch.setenv("ARTHUR_RELAY_OVERFLOW", "drop_oldest")
    file.write_text(f"# a comment\nARTHUR_RELAY_BATCH_SIZE=6\n{DAEMON_PREFIX}MAX_ROWS='7'\n")
    found = load(file, given={DAEMON_PREFIX + "MAX_CONNECTIONS": "8"})
    assert (found.relay.batch_size, found.daemon.max_rows, found.daemon.max_connections) == (
        (6, 7, 8)
    )
    assert found.relay.overflow is Overflow.DROP_NEWEST, "nothing that was acknowledged gives way"
    file.write_text("ARTHUR_RELAY_BATCH_SIZE=many\n")
    with pytest.raises(SettingsError, match="BATCH_SIZE"):
        load(file)
    assert os.environ["ARTHUR_RELAY_BATCH_SIZE"] == "6"
    with pytest.raises(SettingsError, match="can't be read: No such file"):
        load(tmp_path / "nowhere")
