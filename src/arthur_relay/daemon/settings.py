"""The daemon's own settings: its listeners, who may send, and how much it takes in at once.

Each is a variable `ARTHUR_RELAY_DAEMON_X`. The relay's settings are for the pipeline (the spool,
batches, retries).
"""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import SettingsConfigDict

from arthur_relay.credentials import is_loopback
from arthur_relay.errors import SettingsError
from arthur_relay.settings import variables
from arthur_relay.settings.environment import EnvironmentSettings
from arthur_relay.settings.types import none_by_name

DAEMON_PREFIX = variables.DAEMON_PREFIX

_MIB = 1024 * 1024


class RoleName(StrEnum):
    """What a daemon does with rows; see `daemon.roles`."""

    HOST = "host"
    GATEWAY = "gateway"
    WORKER = "worker"


class LogFormat(StrEnum):
    """The format of log lines."""

    AUTO = "auto"
    """For people where standard error is a terminal, else JSON."""
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least important log lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The level as the standard library counts it."""
        return int(logging.getLevelNamesMapping()[self.upper()])


def _mode(value: Any) -> Any:
    return int(value, 8) if isinstance(value, str) else value


def _uids(value: Any) -> Any:
    value = none_by_name(value)
    if isinstance(value, int):  # pydantic parses a single one as JSON
        return frozenset({value})
    if isinstance(value, str):
        return frozenset(int(each) for each in value.split(",") if each.strip())
    return value


def _names(value: Any) -> Any:
    value = none_by_name(value)
    if isinstance(value, str):
        return frozenset(each.strip().lower() for each in value.split(",") if each.strip())
    return value


def read_address(text: str) -> tuple[str, int]:
    """Return the host and the port of `host:port`, `[::1]:port` or `:port` (all addresses).

    Raises:
        ValueError: It is none of these.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("not host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address has to be in brackets")
    return host, int(port)


def _address(value: str) -> str:
    read_address(value)
    return value


_Address = Annotated[str | None, AfterValidator(lambda v: None if v is None else _address(v))]
_Path = Annotated[Path | None, BeforeValidator(none_by_name)]


class DaemonSettings(EnvironmentSettings):
    """The daemon's settings, immutable.

    Raises:
        SettingsError: A value is not allowed, alone or with another one; the message names the
            variable, the value and what is allowed.
    """

    model_config = SettingsConfigDict(env_prefix=DAEMON_PREFIX)
    whose = "the daemon"

    role: RoleName = Field(
        RoleName.HOST,
        description="host: keep rows in a spool and deliver them; in a fleet, gateway: have the"
        " broker keep them; or worker: deliver what the broker has",
    )
    socket: _Path = Field(
        Path("/run/arthur-relay/relay.sock"),
        description="the Unix socket to listen on, a path, or none; one that systemd passes is"
        " used instead",
    )
    socket_mode: Annotated[int, Ge(0), Le(0o777), BeforeValidator(_mode)] = Field(
        0o660, description="the socket's permissions, octal"
    )
    socket_group: Annotated[str | None, BeforeValidator(none_by_name)] = Field(
        None, description="the socket's group, by name or number, or none for the process's own"
    )
    allowed_uids: Annotated[frozenset[int] | None, BeforeValidator(_uids)] = Field(
        None,
        description="user ids that may use the socket, beside what its permissions say, separated"
        " by commas, or none for all",
    )
    listen: Annotated[_Address, BeforeValidator(none_by_name)] = Field(
        None,
        description="host:port to take rows on by TCP as well, or none; beyond this machine only"
        " with tokens_file, and with TLS or allow_insecure",
    )
    tls_certificate: _Path = Field(
        None, description="a PEM file with the certificate (and its chain) for TCP, or none"
    )
    tls_key: _Path = Field(None, description="a PEM file with the certificate's key, or none")
    tokens_file: _Path = Field(
        None,
        description="a file that says who may send by TCP: `name:token` a line, or"
        " `name:token:model_id,model_id`; or none",
    )
    metrics_listen: Annotated[_Address, BeforeValidator(none_by_name)] = Field(
        None, description="host:port for the views alone (health, metrics, page), or none"
    )
    allowed_hosts: Annotated[frozenset[str] | None, BeforeValidator(_names)] = Field(
        None,
        description="names by which browsers may ask for the views, and for TCP without tokens,"
        " beside addresses, localhost and names without a dot; separated by commas, or none",
    )
    max_body_bytes: Annotated[int, Ge(1024), Le(1 << 30)] = Field(
        16 * _MIB, description="bytes of a request's body, at most; 1024 or more"
    )
    max_rows: Annotated[int, Ge(1), Le(1_000_000)] = Field(
        10_000, description="rows of a request, at most; 1 or more"
    )
    max_row_bytes: Annotated[int, Ge(1024), Le(1 << 30)] = Field(
        4 * _MIB, description="bytes of a row, at most; larger ones are refused; 1024 or more"
    )
    max_intake_bytes: Annotated[int, Ge(1024), Le(1 << 40)] = Field(
        64 * _MIB,
        description="bytes of all requests' bodies that are in memory at once; 1024 or more",
    )
    max_connections: Annotated[int, Ge(1), Le(1_000_000)] = Field(
        1000,
        description="open connections of each listener, at most, and as many from which nothing was"
        " let in so far; 1 or more",
    )
    client_timeout_seconds: Annotated[float, Ge(0.01), Le(3600.0)] = Field(
        30.0,
        description="how long a request may take to arrive whole; seconds, 0.01 to 3600",
    )
    log_format: LogFormat = Field(
        LogFormat.AUTO,
        description="log lines as json, for people (console), or auto: console on a terminal",
    )
    log_level: LogLevel = Field(
        LogLevel.INFO, description="the least important log lines: debug, info, warning or error"
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.check()

    @classmethod
    def shown_default(cls, name: str) -> str:
        """Return a setting's default as people write it."""
        default = cls.model_fields[name].default
        return f"0{default:o}" if name == "socket_mode" else super().shown_default(name)

    def check(self) -> None:
        """Refuse values that are not allowed together.

        Raises:
            SettingsError: As the class does.
        """
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise SettingsError(
                f"{DAEMON_PREFIX}TLS_CERTIFICATE and {DAEMON_PREFIX}TLS_KEY go together: set both,"
                " or none."
            )
        if self.max_intake_bytes < self.max_body_bytes:
            raise SettingsError(
                f"{DAEMON_PREFIX}MAX_INTAKE_BYTES ({self.max_intake_bytes}) is less than one body"
                f" may have ({DAEMON_PREFIX}MAX_BODY_BYTES, {self.max_body_bytes})."
            )
        if self.listen is None:
            return
        host, _ = read_address(self.listen)
        self.check_tcp(host, f"{DAEMON_PREFIX}LISTEN is {self.listen}")

    def check_tcp(self, host: str, what: str) -> None:
        """Refuse to take rows from other machines without tokens.

        Args:
            host: The name or address to listen on.
            what: Describes the listener, for the message.

        Raises:
            SettingsError: The listener is not allowed.
        """
        if self.tokens_file is None and not is_loopback(host):
            raise SettingsError(
                f"{what}: without {DAEMON_PREFIX}TOKENS_FILE anyone who can connect may send, so"
                " only a loopback address is allowed, such as 127.0.0.1:8808."
            )


def share(amount: int, *, products: int) -> int:
    """Return how much of a bound each of the daemon's products has, so that none takes another's.

    Args:
        amount: What the setting allows for all of them.
        products: How many there are.
    """
    return amount // products
