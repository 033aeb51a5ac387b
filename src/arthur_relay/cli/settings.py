"""`arthur-relay settings`: every setting, its value, and where that came from."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from arthur_relay.broker.settings import BROKER_PREFIX, BrokerSettings
from arthur_relay.cli import fail
from arthur_relay.cli.wide_table import print_wide_table
from arthur_relay.credentials import means_engine
from arthur_relay.daemon.configuration import read_env_file, unknown_variables
from arthur_relay.daemon.settings import DAEMON_PREFIX, DaemonSettings
from arthur_relay.errors import ConfigurationError, SettingsError
from arthur_relay.settings import ENVIRONMENT_PREFIX, RelaySettings
from arthur_relay.settings.credential_files import SECRETS
from arthur_relay.settings.types import shown
from arthur_relay.settings.variables import leave_to_command
from arthur_relay.system.terminal import HIDDEN, printable, without_credentials

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

_OF_ARTHUR: Final = {
    "ARTHUR_BASE_URL": "the address of Arthur Engine",
    "ARTHUR_TASK_ID": "the Engine's task",
    "ARTHUR_ENGINE_API_KEY": "the Engine's key, in a daemon for both products",
    "ARTHUR_ENDPOINT_URL": "the address of Arthur Scope, or a daemon's socket",
    "ARTHUR_MODEL_ID": "Scope's model",
    "ARTHUR_ORGANIZATION_ID": "Scope's organization",
    "ARTHUR_API_KEY": "the key",
    "ARTHUR_LOGIN": "the login, where there is no key",
    "ARTHUR_PASSWORD": "the login's password",
    "VERIFY_SSL": "whether Arthur's certificate is checked",
}
"""The variables of Arthur's own SDKs, and what they are."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it is now.

    Attributes:
        variable: The environment variable that sets it.
        value: As people write it; secrets are not shown.
        source: `default`, `environment`, or `file` and its path.
        default: What it is when nothing sets it.
        description: What it is.
    """

    variable: str
    value: str
    source: str
    default: str
    description: str


def run_settings(*, daemon: bool, env_file: Path | None, as_json: bool) -> None:
    """Print every setting, those of the relay and of Arthur, and with `daemon` of `serve` too.

    Raises:
        typer.Exit: With 2 when a value is not allowed, or the file can't be read.
    """
    try:
        from_file = {} if env_file is None else read_env_file(env_file)
        with _environment(from_file):
            found = [*_settings(_Origin(env_file, from_file), daemon=daemon)]
            unknown = [each.sentence for each in unknown_variables(os.environ)]
    except ConfigurationError as error:
        fail(str(error), code=2)
    if as_json:
        json.dump([asdict(each) for each in found], sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        print_wide_table(
            ("variable", "value", "from"),
            [(each.variable, each.value, each.source) for each in found],
        )
    for sentence in unknown:
        typer.echo(f"arthur-relay: {printable(sentence)}", err=True)


@contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    """Add variables to the environment for a while: a file's win over those that are there."""
    before = dict(os.environ)
    os.environ.update(added)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass(frozen=True, slots=True)
class _Origin:
    """Says where a variable's value came from."""

    path: Path | None
    from_file: Mapping[str, str]

    def of(self, variable: str) -> str:
        is_from_file = variable in {name.upper() for name in self.from_file}
        return f"file {self.path}" if is_from_file else "environment"


def _settings(origin: _Origin, *, daemon: bool) -> Iterator[Setting]:
    leave_to_command(os.environ)
    relay = RelaySettings()
    effective = relay.for_engine() if _is_for_engine() else relay
    yield from _of_arthur(origin)
    yield from _of_model(relay, effective, ENVIRONMENT_PREFIX, _relay_default, origin)
    if daemon:
        own, broker = DaemonSettings(), BrokerSettings()
        yield from _of_model(own, own, DAEMON_PREFIX, DaemonSettings.shown_default, origin)
        yield from _of_model(broker, broker, BROKER_PREFIX, BrokerSettings.shown_default, origin)


def _is_for_engine() -> bool:
    try:
        return means_engine(os.environ)
    except SettingsError:  # it is not clear; that is the check's to say
        return False


def _of_arthur(origin: _Origin) -> Iterator[Setting]:
    for name, description in _OF_ARTHUR.items():
        for variable in (name, f"{name}_FILE") if name in SECRETS else (name,):
            value = os.environ.get(variable, "").strip()
            if value or variable == name:
                source = origin.of(variable) if value else "default"
                yield Setting(variable, _public(variable, value), source, "none", description)


def _of_model(
    given: BaseSettings,
    effective: BaseSettings,
    prefix: str,
    default: Callable[[str], str],
    origin: _Origin,
) -> Iterator[Setting]:
    for name, field in type(given).model_fields.items():
        variable = prefix + name.upper()
        value, usual = getattr(effective, name), default(name)
        if isinstance(field.default, bool):
            usual = usual.lower()
        if name in given.model_fields_set:
            text, source = _text(name, value), origin.of(variable)
        elif value != getattr(given, name):
            text, source = _text(name, value), "default for Arthur Engine"
        else:
            text, source = usual, "default"
        yield Setting(variable, _public(variable, text), source, usual, field.description or "")


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if name == "socket_mode" and isinstance(value, int):
        return f"0{value:o}"
    if isinstance(value, (frozenset, tuple)):
        return ",".join(sorted(map(shown, value)))
    return shown(value)


def _public(variable: str, value: str) -> str:
    if not value:
        return "none"
    return HIDDEN if variable in SECRETS else without_credentials(value)


def _relay_default(name: str) -> str:
    return shown(RelaySettings.model_fields[name].default)
