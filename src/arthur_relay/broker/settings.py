"""The broker's settings: where it is, how rows are kept there, and how many may be on their way.

Each is a variable `ARTHUR_RELAY_BROKER_X`. Gateways and workers read them; a host has no broker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import SettingsConfigDict

from arthur_relay.credentials import is_loopback
from arthur_relay.errors import SettingsError
from arthur_relay.settings import variables
from arthur_relay.settings.environment import EnvironmentSettings
from arthur_relay.settings.types import none_by_name

BROKER_PREFIX = variables.BROKER_PREFIX

SCHEMES = ("nats", "tls")

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


def addresses(text: str) -> list[str]:
    """Return the addresses of `nats://a:4222,nats://b:4222`.

    Raises:
        ValueError: One of them is not the address of a NATS server.
    """
    found = [each.strip() for each in text.split(",") if each.strip()]
    if not found:
        raise ValueError("no address")
    for each in found:
        parts = urlsplit(each)
        if parts.scheme not in SCHEMES or not parts.hostname or parts.path.strip("/"):
            raise ValueError("not nats://host:port or tls://host:port")
        _ = parts.port  # a ValueError when it is no port
    return found


def _url(value: str) -> str:
    addresses(value)
    return value


def _monitoring(value: str) -> str:
    for each in value.split(","):
        parts = urlsplit(each.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not http://host:port")
        _ = parts.port  # a ValueError when it is no port
    return value


_Path = Annotated[Path | None, BeforeValidator(none_by_name)]
_Url = Annotated[str | None, AfterValidator(lambda v: None if v is None else _url(v))]

_MonitoringUrl = Annotated[
    str | None, AfterValidator(lambda v: None if v is None else _monitoring(v))
]


class BrokerSettings(EnvironmentSettings):
    """The broker's settings, immutable.

    Raises:
        SettingsError: A value is not allowed, alone or with another one; the message names the
            variable, the value and what is allowed.
    """

    # An older pydantic warns of `model_share`: it has names of its own that begin with `model_`.
    model_config = SettingsConfigDict(env_prefix=BROKER_PREFIX, protected_namespaces=())
    whose = "the broker"

    url: Annotated[_Url, BeforeValidator(none_by_name)] = Field(
        None,
        description="the NATS servers, tls://host:port, separated by commas, or none; nats:// only"
        " on this machine, or with allow_insecure",
    )
    credentials_file: _Path = Field(
        None, description="a NATS credentials file (.creds) or an nkey seed, or none"
    )
    ca_file: _Path = Field(
        None, description="a PEM file with the authorities of the servers' certificates, or none"
    )
    certificate: _Path = Field(
        None, description="a PEM file with this client's certificate, or none"
    )
    key: _Path = Field(None, description="a PEM file with that certificate's key, or none")
    stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = Field(
        "ARTHUR_ROWS",
        description="the stream's name, with which other names begin; letters, digits, _ and -",
    )
    replicas: Annotated[int, Ge(1), Le(5)] = Field(
        3, description="servers that keep each row: 3 or 5; 1 only with allow_unreplicated"
    )
    allow_unreplicated: bool = Field(
        False,  # noqa: FBT003 - pydantic's own
        description="whether rows may be kept by a single server, whose disk is then all there is",
    )
    create: bool = Field(
        True,  # noqa: FBT003 - pydantic's own
        description="whether missing streams and consumers are made; else they are only compared",
    )
    bytes: Annotated[int, Ge(1024), Le(1 << 50)] = Field(
        10 * _GIB, description="bytes that wait in the broker, at most, counted once; 1024 or more"
    )
    max_age_seconds: Annotated[float, Ge(0), Le(10 * 365 * 86400)] = Field(
        0.0, description="how long rows are kept at most, in seconds; 0 for as long as it takes"
    )
    model_share: Annotated[float, Gt(0), Le(1)] = Field(
        0.5,
        description="how much of `bytes` rows of one model may take while more than half of it is"
        " taken; above 0, up to 1",
    )
    in_flight: Annotated[int, Ge(9), Le(1_000_000)] = Field(
        1152,
        description="packets that all workers together have in hand, at most, beside those of"
        " models that have to wait; 9 or more",
    )
    ack_wait_seconds: Annotated[float, Ge(1), Le(3600)] = Field(
        60.0,
        description="after how many seconds a dead worker's packets go to others; 1 to 3600",
    )
    ahead_bytes: Annotated[int, Ge(1024), Le(1 << 40)] = Field(
        16 * _MIB, description="bytes of rows that one worker has in hand, about; 1024 or more"
    )
    publish_seconds: Annotated[float, Ge(0.1), Le(29)] = Field(
        25.0,
        description="how long a gateway waits for the broker before it answers 503; 0.1 to 29",
    )
    monitoring_url: Annotated[_MonitoringUrl, BeforeValidator(none_by_name)] = Field(
        None,
        description="the servers' monitoring ports, http://host:8222, separated by commas, or none;"
        " they are asked whether rows are on the disk when they are acknowledged, and whether all"
        " have the same",
    )
    packet_bytes: Annotated[int, Ge(1024), Le(64 * _MIB)] = Field(
        512 * _KIB,
        description="bytes of rows in a packet, unless one row is larger; 1024 or more",
    )

    def __init__(self, **values: Any) -> None:
        # Type checkers take it that each value has to be given where a class does not say this.
        super().__init__(**values)

    @property
    def servers(self) -> list[str]:
        """The addresses of the servers; none without an address."""
        return [] if self.url is None else addresses(self.url)

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return any(urlsplit(each).scheme == "tls" for each in self.servers)

    @property
    def has_credentials(self) -> bool:
        """Whether there is anything that says who we are."""
        return (
            self.credentials_file is not None or self.certificate is not None or bool(self.secrets)
        )

    @property
    def secrets(self) -> list[str]:
        """The passwords and tokens in the addresses."""
        parts = [urlsplit(each) for each in self.servers]
        return [found for each in parts if (found := each.password or each.username)]

    @property
    def monitoring_urls(self) -> list[str]:
        """The addresses of the servers' monitoring ports; may be none."""
        return [each.strip() for each in (self.monitoring_url or "").split(",") if each.strip()]

    def check(self, *, allow_insecure: bool) -> None:
        """Refuse values that are not allowed together.

        Args:
            allow_insecure: Whether rows may cross a network without encryption.

        Raises:
            SettingsError: There are such values; the sentence names their variables.
        """
        if (self.certificate is None) != (self.key is None):
            raise SettingsError(
                f"{BROKER_PREFIX}CERTIFICATE and {BROKER_PREFIX}KEY go together: set both, or none."
            )
        if self.replicas == 1 and not self.allow_unreplicated:
            raise SettingsError(
                f"{BROKER_PREFIX}REPLICAS is 1: rows would be on one disk alone. Set 3, or"
                f" {BROKER_PREFIX}ALLOW_UNREPLICATED=true if you mean it."
            )
        for each in self.servers:
            parts = urlsplit(each)
            if (parts.username or parts.password) and self.credentials_file is not None:
                raise SettingsError(
                    f"{BROKER_PREFIX}URL has a user or a token, and {BROKER_PREFIX}CREDENTIALS_FILE"
                    " is set: remove one of them."
                )
            is_plain = parts.scheme == "nats" and not is_loopback(parts.hostname or "")
            if is_plain and not allow_insecure:
                raise SettingsError(
                    f"{BROKER_PREFIX}URL has {parts.scheme}://{parts.hostname}: without TLS the"
                    " network sees prompts. Use tls://, or ARTHUR_RELAY_ALLOW_INSECURE=true if you"
                    " mean it."
                )
