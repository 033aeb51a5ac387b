"""The daemon's settings: each is read from its variable, and a bad value is one clear error."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from arthur_relay.daemon.configuration import load, reloadable_variables
from arthur_relay.daemon.settings import (
    DAEMON_PREFIX,
    DaemonSettings,
    LogFormat,
    LogLevel,
    RoleName,
    read_address,
)
from arthur_relay.encoding.product import Product
from arthur_relay.errors import ConfigurationError, SettingsError
from arthur_relay.settings import Overflow
from tests.environment import forget_arthur
from tests.readme import page


@pytest.fixture(autouse=True)
def _no_arthur_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch)


OTHER: dict[str, tuple[str, Any]] = {
    "role": ("worker", RoleName.WORKER),
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


TOKENS = DAEMON_PREFIX + "TOKENS_FILE"


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with which a daemon starts; returns where its files are."""
    (tmp_path / "tokens").write_text("one:token-that-is-long-enough\n")
    monkeypatch.setenv("ARTHUR_API_KEY", "key")
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path / "spool"))
    return tmp_path


@pytest.mark.parametrize("address", ["0.0.0.0:1", ":1", "[::]:1", "192.0.2.1:1", "host:1"])
def test_tokens_and_prompts_are_not_shown_to_the_network(
    ready: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DAEMON_PREFIX + "LISTEN", address)
    monkeypatch.setenv(TOKENS, str(ready / "tokens"))
    with pytest.raises(SettingsError, match=r"LISTEN is .*without TLS.*ALLOW_INSECURE=true"):
        load()
    monkeypatch.setenv("ARTHUR_RELAY_ALLOW_INSECURE", "true")
    assert load().daemon.listen == address
    monkeypatch.delenv("ARTHUR_RELAY_ALLOW_INSECURE")
    monkeypatch.setenv(DAEMON_PREFIX + "TLS_CERTIFICATE", "certificate")
    monkeypatch.setenv(DAEMON_PREFIX + "TLS_KEY", "key")
    assert load().daemon.listen == address


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1"])
def test_on_this_machine_tokens_need_no_tls(
    ready: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DAEMON_PREFIX + "LISTEN", address)
    monkeypatch.setenv(TOKENS, str(ready / "tokens"))
    assert load().daemon.listen == address


def other_values(directory: Path) -> dict[str, str]:
    """For each variable a value that is not its default, and that goes with the others."""
    from tests.settings.test_settings import OTHER as OF_RELAY

    found = {DAEMON_PREFIX + name.upper(): text for name, (text, _) in OTHER.items()}
    found |= {f"ARTHUR_RELAY_{name.upper()}": text for name, (text, _) in OF_RELAY.items()}
    found |= {
        "ARTHUR_ENDPOINT_URL": "https://other.example",
        "ARTHUR_ORGANIZATION_ID": "other",
        "VERIFY_SSL": "false",
        "ARTHUR_API_KEY": "other",
        TOKENS: str(directory / "tokens"),
    }
    for name in ("disabled", "redact", "hide_inputs", "hide_outputs", "max_text_bytes"):
        del found[f"ARTHUR_RELAY_{name.upper()}"]  # a daemon refuses these
    for name in ("sample_rate", "overflow", "spool_bytes"):  # the same, and one that is its own
        del found[f"ARTHUR_RELAY_{name.upper()}"]
    for name in ("tls_certificate", "tls_key"):  # go together
        del found[DAEMON_PREFIX + name.upper()]
    return found


def test_a_reload_takes_a_change_over_or_says_that_it_can_not(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reloadable = set(reloadable_variables())
    old = load()
    others = other_values(ready)
    del others[f"{DAEMON_PREFIX}ROLE"]  # it takes more than one variable: see below
    for name, value in others.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            new = load()
        merged, told = old.with_reloaded(new), old.needs_restart(new)
        assert new != old, name
        if name in reloadable:
            assert (merged, told) == (new, []), name
        else:
            assert (merged, told) == (old, [name]), name


def test_a_reload_does_not_make_a_host_a_worker(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ready.is_dir()
    old = load()
    monkeypatch.delenv("ARTHUR_RELAY_SPOOL_DIR")
    monkeypatch.setenv(f"{DAEMON_PREFIX}ROLE", "worker")
    monkeypatch.setenv("ARTHUR_RELAY_BROKER_URL", "nats://127.0.0.1:4222")
    new = load()
    assert old.with_reloaded(new) == old
    assert old.needs_restart(new) == [f"{DAEMON_PREFIX}ROLE", "ARTHUR_RELAY_SPOOL_DIR"]


ROLES: list[tuple[dict[str, str], str]] = [
    ({"BROKER_URL": "nats://127.0.0.1:4222"}, "a host keeps rows in its spool"),
    ({"DAEMON_ROLE": "gateway"}, "which needs a broker: set ARTHUR_RELAY_BROKER_URL"),
    (
        {"DAEMON_ROLE": "worker", "BROKER_URL": "nats://127.0.0.1:4222"},
        "ARTHUR_RELAY_SPOOL_DIR is set, and ARTHUR_RELAY_DAEMON_ROLE is worker",
    ),
    ({"BROKER_URL": "127.0.0.1:4222"}, "ARTHUR_RELAY_BROKER_URL can't be"),
]


@pytest.mark.parametrize(("variables", "sentence"), ROLES)
def test_a_role_has_what_it_needs_and_no_more(
    ready: Path, variables: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ready.is_dir()
    for name, value in variables.items():
        monkeypatch.setenv(f"ARTHUR_RELAY_{name}", value)
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        load()


FLEETS: list[tuple[dict[str, str], str]] = [
    ({"BROKER_URL": "nats://nats-0:4222"}, "without TLS the network sees prompts"),
    ({"BROKER_REPLICAS": "1"}, "rows would be on one disk alone"),
    ({"BROKER_CERTIFICATE": "/c.pem"}, "go together: set both, or none"),
]


@pytest.mark.parametrize(("variables", "sentence"), FLEETS)
def test_a_fleet_keeps_rows_safe_unless_told_otherwise(
    ready: Path, variables: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ready.is_dir()
    monkeypatch.delenv("ARTHUR_RELAY_SPOOL_DIR")
    of_a_fleet = {"DAEMON_ROLE": "gateway", "BROKER_URL": "nats://127.0.0.1:4222"}
    for name, value in {**of_a_fleet, **variables}.items():
        monkeypatch.setenv(f"ARTHUR_RELAY_{name}", value)
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        load()


def test_the_page_lists_what_a_reload_takes_over() -> None:
    lines = page("docs/daemon.md").splitlines()
    (line,) = [line for line in lines if line.startswith("- **SIGHUP**")]
    listed = line.partition("reads again: ")[2].partition("; ")[0]
    names = [name.strip("`").replace("…", DAEMON_PREFIX) for name in listed.split(", ")]
    assert sorted(names) == reloadable_variables()


RELOADS: list[tuple[dict[str, str], dict[str, str], str]] = [
    (  # LISTEN stays, and would be open to anyone
        {"LISTEN": "0.0.0.0:1", "TOKENS_FILE": "{tokens}", "TLS_KEY": "k", "TLS_CERTIFICATE": "c"},
        {},
        "without ARTHUR_RELAY_DAEMON_TOKENS_FILE anyone",
    ),
    ({"MAX_BODY_BYTES": "90000000", "MAX_INTAKE_BYTES": "90000000"}, {}, "MAX_INTAKE_BYTES"),
]


@pytest.mark.parametrize(("first", "second", "sentence"), RELOADS)
def test_a_reload_makes_nothing_that_a_start_refuses(
    ready: Path,
    first: dict[str, str],
    second: dict[str, str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for variables in (first, second):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(DAEMON_PREFIX + name, value.format(tokens=ready / "tokens"))
            found.append(load())
    old, new = found
    with pytest.raises(SettingsError, match=sentence):
        old.with_reloaded(new)


def test_the_environment_says_which_product_is_delivered_to(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_scope = load()
    assert [each.product for each in of_scope.products] == [Product.SCOPE]
    monkeypatch.setenv("ARTHUR_BASE_URL", "https://engine.example/api/v1/traces")
    of_engine = load()
    assert [each.product for each in of_engine.products] == [Product.ENGINE]
    assert of_engine.products[0].credentials.url == "https://engine.example"
    settings = of_engine.products[0].relay
    assert (settings.batch_size, settings.max_in_flight) == (50, 1)
    assert of_scope.with_reloaded(of_engine).products == of_scope.products
    assert "ARTHUR_BASE_URL" in of_scope.needs_restart(of_engine)
    monkeypatch.setenv("ARTHUR_API_KEY", "renewed")
    assert of_engine.with_reloaded(load()).products[0].credentials.api_key == "renewed"
    assert of_engine.needs_restart(load()) == []
    monkeypatch.setenv("ARTHUR_MODEL_ID", "a model")
    with pytest.raises(ConfigurationError, match="ARTHUR_BASE_URL is for Arthur Engine and"):
        load()


def test_a_key_of_another_arthur_is_not_shown_to_this_one(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = load()
    for name, value in {
        "ARTHUR_ENDPOINT_URL": "https://other.example",
        "ARTHUR_ORGANIZATION_ID": "other",
    }.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            patch.setenv("ARTHUR_API_KEY", "of-the-other")
            new = load()
        assert old.with_reloaded(new).products == old.products
        assert old.needs_restart(new) == [name, "ARTHUR_API_KEY"]


@pytest.mark.parametrize("name", ["ARTHUR_RELAY_REDCT", "ARTHUR_RELAY_DAEMON_HIDE_INPUTS"])
def test_a_daemon_does_not_start_with_a_mistyped_setting_of_privacy(
    ready: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "all")
    with pytest.raises(SettingsError, match=f"{name} is not a setting.*did you mean"):
        load()
