"""The daemon's configuration: read at the start, and again at each reload."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dotenv import dotenv_values

from arthur_relay.broker.settings import BROKER_PREFIX, BrokerSettings
from arthur_relay.credentials import (
    ENGINE_KEY,
    Credentials,
    credentials_from_environment,
    is_loopback,
    means_both,
    means_engine,
    resolve_engine_credentials,
)
from arthur_relay.daemon.settings import (
    DAEMON_PREFIX,
    DaemonSettings,
    RoleName,
    read_address,
    share,
)
from arthur_relay.encoding.product import Product
from arthur_relay.errors import CredentialsError, SettingsError
from arthur_relay.settings import ENVIRONMENT_PREFIX, Overflow, RelaySettings, variables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from arthur_relay.settings.variables import Unknown

_OF_THE_APPLICATION = ("redact", "hide_inputs", "hide_outputs", "max_text_bytes", "sample_rate")
"""Settings for the content of inferences, which the daemon never reads."""

_RELOADABLE = frozenset(
    {
        "allowed_uids",
        "client_timeout_seconds",
        "log_level",
        "max_intake_bytes",
        "max_row_bytes",
        "max_rows",
        "tls_certificate",
        "tls_key",
        "tokens_file",
    }
)

_TLS = frozenset({"tls_certificate", "tls_key"})
"""Reloadable unless they turn TLS on or off, because clients would have to change too."""

_OF_ARTHUR = {
    "ARTHUR_ENDPOINT_URL": "url",
    "ARTHUR_ORGANIZATION_ID": "organization_id",
    "VERIFY_SSL": "verify_ssl",
    "ARTHUR_API_KEY": "api_key",
    "ARTHUR_LOGIN": "login",
    "ARTHUR_PASSWORD": "password",
}
"""The variables of the credentials, with the names of their attributes."""

_PLACE = frozenset({"url", "organization_id", "verify_ssl"})
"""These identify an Arthur. The rows in the spool belong to it, so only a restart changes them."""


ENGINE_DIRECTORY = "engine"
"""The Engine's part of the spool's directory, where both products are served."""

_MEANS_BOTH = (
    f"{ENGINE_KEY} is set, which means a daemon for both products; for Arthur Engine alone the key"
    " is ARTHUR_API_KEY"
)

_SHARED = ("queue_bytes", "spool_bytes", "dead_letter_bytes")
"""Bounds of which each of two products has one half, so that neither takes the other's."""


@dataclass(frozen=True, slots=True)
class ProductConfiguration:
    """How a daemon delivers to one of Arthur's products.

    Attributes:
        product: Which of the two.
        relay: The settings of its pipeline, with those that a daemon requires.
        credentials: The credentials for it.
        key_variable: The variable that the key is read from.
    """

    product: Product
    relay: RelaySettings
    credentials: Credentials
    key_variable: str = "ARTHUR_API_KEY"

    @property
    def address_variable(self) -> str:
        """The variable that the product's address is read from."""
        return "ARTHUR_BASE_URL" if self.product is Product.ENGINE else "ARTHUR_ENDPOINT_URL"

    @property
    def spool_dir(self) -> Path:
        """The directory of its spool. For a host."""
        assert self.relay.spool_dir is not None, "the configuration sees to it"
        return self.relay.spool_dir

    def goes_elsewhere(self, new: ProductConfiguration) -> bool:
        """Return whether a newer configuration names another Arthur, or another organization."""
        return any(
            getattr(self.credentials, name) != getattr(new.credentials, name) for name in _PLACE
        )

    def with_reloaded(self, new: ProductConfiguration | None) -> ProductConfiguration:
        """Return this configuration with the credentials of a newer one.

        They are not taken from one for another Arthur or organization, which must not be seen here.

        Args:
            new: The newer one of the same product; None where that is no longer served.
        """
        if new is None or self.goes_elsewhere(new):
            return self
        return replace(self, credentials=new.credentials)

    def needs_restart(self, new: ProductConfiguration) -> list[str]:
        """Return the variables that a newer configuration changes and a reload can't."""
        own = {"url": self.address_variable, "api_key": self.key_variable}
        return [
            own.get(name, variable)
            for variable, name in _OF_ARTHUR.items()
            if (name in _PLACE or self.goes_elsewhere(new))
            and getattr(self.credentials, name) != getattr(new.credentials, name)
        ]


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings and credentials of a daemon.

    Attributes:
        daemon: Its own settings.
        relay: The settings of the pipelines, as they were given.
        products: The products that it delivers to: one or both, Arthur Scope first.
        broker: Where rows wait; None for a host, which has a spool.
    """

    daemon: DaemonSettings
    relay: RelaySettings
    products: tuple[ProductConfiguration, ...]
    broker: BrokerSettings | None = None

    @property
    def spool_dir(self) -> Path | None:
        """The directory that all spools are in; None where the broker keeps rows."""
        return self.relay.spool_dir

    def with_reloaded(self, new: Configuration) -> Configuration:
        """Return this configuration with the reloadable settings of a newer one.

        Raises:
            SettingsError: A start would refuse the combination, though neither of the two.
        """
        names = _RELOADABLE - (_TLS if self._turns_tls(new) else frozenset())
        changes = {name: getattr(new.daemon, name) for name in names}
        daemon = self.daemon.model_copy(update=changes)
        check_together(daemon, self.relay, products=len(self.products))
        later = {each.product: each for each in new.products}
        products = tuple(each.with_reloaded(later.get(each.product)) for each in self.products)
        return replace(self, daemon=daemon, products=products)

    def needs_restart(self, new: Configuration) -> list[str]:
        """Return the variables that a newer configuration changes and a reload can't."""
        reloadable = _RELOADABLE - (_TLS if self._turns_tls(new) else frozenset())
        names = [
            DAEMON_PREFIX + name.upper()
            for name in DaemonSettings.model_fields
            if name not in reloadable and getattr(self.daemon, name) != getattr(new.daemon, name)
        ]
        names += [
            ENVIRONMENT_PREFIX + name.upper()
            for name in RelaySettings.model_fields
            if getattr(self.relay, name) != getattr(new.relay, name)
        ]
        if self.broker is not None and new.broker is not None:
            names += [
                BROKER_PREFIX + name.upper()
                for name in BrokerSettings.model_fields
                if getattr(self.broker, name) != getattr(new.broker, name)
            ]
        before = {each.product: each for each in self.products}
        later = {each.product: each for each in new.products}
        for product in Product:
            old, found = before.get(product), later.get(product)
            if old is not None and found is not None:
                names += old.needs_restart(found)
            elif (only := old or found) is not None:
                names.append(only.address_variable)
        return names

    def _turns_tls(self, new: Configuration) -> bool:
        """Return whether TLS would be turned on or off; another certificate does neither."""
        return (self.daemon.tls_certificate is None) != (new.daemon.tls_certificate is None)


def reloadable_variables() -> list[str]:
    """Return the variables that a reload applies, sorted, without those for files of secrets."""
    names = [DAEMON_PREFIX + name.upper() for name in _RELOADABLE]
    of_arthur = [each for each, name in _OF_ARTHUR.items() if name not in _PLACE]
    return sorted([*names, *of_arthur, ENGINE_KEY])


def unknown_variables(names: Collection[str]) -> Iterator[Unknown]:
    """Yield the names that are settings neither of the daemon nor of the relay.

    See `variables.unknown_variables`.
    """
    settings = [DAEMON_PREFIX + name.upper() for name in DaemonSettings.model_fields]
    settings += [ENVIRONMENT_PREFIX + name.upper() for name in RelaySettings.model_fields]
    settings += [BROKER_PREFIX + name.upper() for name in BrokerSettings.model_fields]
    yield from variables.unknown_variables(names, tuple(settings))


def load(
    env_file: Path | None = None,
    *,
    given: Mapping[str, str] | None = None,
    started_with: Mapping[str, str] | None = None,
) -> Configuration:
    """Read the configuration.

    Args:
        env_file: A file of `NAME=value` lines. Its variables override those of the environment and
            are added to it.
        given: Variables of the command line, which override both.
        started_with: The environment to start from, by default the current one. A reload gives the
            process's first one, so that a line that was removed from the file has no effect.

    Raises:
        ConfigurationError: Something can't be used; the environment is then unchanged.
    """
    with environment_unless_refused():
        if started_with is not None:
            os.environ.clear()
            os.environ.update(started_with)
        if env_file is not None:
            os.environ.update(read_env_file(env_file))
        os.environ.update(given or {})
        return _load()


@contextmanager
def environment_unless_refused() -> Iterator[None]:
    """Restore the environment if the block raises."""
    before = dict(os.environ)
    try:
        yield
    except BaseException:
        os.environ.clear()
        os.environ.update(before)
        raise


def _load() -> Configuration:
    variables.leave_to_command(os.environ)
    daemon = DaemonSettings()
    relay = RelaySettings()
    broker = _place_of_rows(daemon, relay)
    if relay.disabled:
        raise SettingsError("ARTHUR_RELAY_DISABLED is set: there is nothing for the daemon to do.")
    for name in _OF_THE_APPLICATION:
        if name in relay.model_fields_set:
            raise SettingsError(
                f"ARTHUR_RELAY_{name.upper()} does nothing in the daemon, which never looks into"
                " rows: set it where inferences are captured, and not here."
            )
    are_both = means_both(os.environ)
    check_together(daemon, relay, products=1 + are_both)
    # Rows without room are refused, so that their sender keeps them; none is dropped.
    relay = relay.model_copy(update={"overflow": Overflow.DROP_NEWEST})
    return Configuration(daemon, relay, _of_both(relay) if are_both else (_of_one(relay),), broker)


def _place_of_rows(daemon: DaemonSettings, relay: RelaySettings) -> BrokerSettings | None:
    """Return the broker's settings, or None for a host, which has a spool instead.

    Raises:
        SettingsError: The role lacks what it needs, or has what it has no use for.
    """
    broker = BrokerSettings()
    role = f"{DAEMON_PREFIX}ROLE is {daemon.role.value}"
    if daemon.role is RoleName.HOST:
        if broker.url is not None:
            raise SettingsError(
                f"{BROKER_PREFIX}URL is set, and {role}: a host keeps rows in its spool. Remove it,"
                f" or set {DAEMON_PREFIX}ROLE to gateway or worker."
            )
        if relay.spool_dir is None:
            raise SettingsError(
                "The daemon needs a spool: set ARTHUR_RELAY_SPOOL_DIR to a directory on a local"
                " disk, such as /var/lib/arthur-relay."
            )
        return None
    if broker.url is None:
        raise SettingsError(
            f"{role}, which needs a broker: set {BROKER_PREFIX}URL to the NATS servers, such as"
            " tls://nats-0:4222,tls://nats-1:4222,tls://nats-2:4222."
        )
    if relay.spool_dir is not None:
        raise SettingsError(
            f"ARTHUR_RELAY_SPOOL_DIR is set, and {role}: the broker keeps the rows. Remove it, or"
            f" set {DAEMON_PREFIX}ROLE to host."
        )
    broker.check(allow_insecure=relay.allow_insecure)
    return broker


def _of_one(relay: RelaySettings) -> ProductConfiguration:
    """Return the configuration of the one product that is served."""
    insecure = relay.allow_insecure
    if means_engine(os.environ):
        credentials = resolve_engine_credentials(allow_insecure=insecure)
        return ProductConfiguration(Product.ENGINE, relay.for_engine(), credentials)
    credentials = credentials_from_environment(allow_insecure=insecure)
    return ProductConfiguration(Product.SCOPE, relay, credentials)


def _of_both(relay: RelaySettings) -> tuple[ProductConfiguration, ProductConfiguration]:
    """Return the configurations of both products. Scope's spool is where it is without the other.

    Raises:
        ConfigurationError: The address of the Engine or the credentials for Scope are missing, or
            something can't be used.
    """
    insecure = relay.allow_insecure
    if not os.environ.get("ARTHUR_BASE_URL", "").strip():
        raise SettingsError(
            f"ARTHUR_BASE_URL is not set, and {_MEANS_BOTH}: set it to the Engine's address."
        )
    try:
        of_scope = credentials_from_environment(allow_insecure=insecure)
    except CredentialsError as error:
        raise CredentialsError(f"{error} ({_MEANS_BOTH}.)") from None
    half = {name: share(getattr(relay, name), products=2) for name in _SHARED}
    scope = relay.model_copy(update=half)
    directory = relay.spool_dir and relay.spool_dir / ENGINE_DIRECTORY
    engine = scope.for_engine().model_copy(update={"spool_dir": directory})
    return (
        ProductConfiguration(Product.SCOPE, scope, of_scope),
        ProductConfiguration(
            Product.ENGINE,
            engine,
            resolve_engine_credentials(allow_insecure=insecure, key_variable=ENGINE_KEY),
            ENGINE_KEY,
        ),
    )


def check_together(daemon: DaemonSettings, relay: RelaySettings, *, products: int) -> None:
    """Refuse values that are allowed alone but not together.

    Args:
        daemon: The daemon's own settings.
        relay: Those of the pipelines, as they were given.
        products: How many products share the bounds.

    Raises:
        SettingsError: There are such values; the sentence names their variables.
    """
    daemon.check()
    each = "" if products == 1 else ", of which each product has one half"
    if relay.spool_dir and daemon.max_body_bytes > share(relay.spool_bytes, products=products) // 2:
        raise SettingsError(
            f"{DAEMON_PREFIX}MAX_BODY_BYTES ({daemon.max_body_bytes}) is more than half of what the"
            f" spool may take (ARTHUR_RELAY_SPOOL_BYTES, {relay.spool_bytes}{each})."
        )
    if daemon.max_body_bytes > share(daemon.max_intake_bytes, products=products):
        raise SettingsError(
            f"{DAEMON_PREFIX}MAX_INTAKE_BYTES ({daemon.max_intake_bytes}{each}) has no room for one"
            f" body ({DAEMON_PREFIX}MAX_BODY_BYTES, {daemon.max_body_bytes})."
        )
    if daemon.listen is not None:
        host, _ = read_address(daemon.listen)
        check_listener(daemon, relay, host, f"{DAEMON_PREFIX}LISTEN is {daemon.listen}")


def check_listener(daemon: DaemonSettings, relay: RelaySettings, host: str, what: str) -> None:
    """Refuse to take rows from other machines without tokens, or without TLS.

    Args:
        daemon: Has the tokens and the certificate.
        relay: Says whether plain HTTP is allowed.
        host: The name or address to listen on, whoever opened the socket.
        what: Describes the listener, for the message.

    Raises:
        SettingsError: The listener is not allowed.
    """
    daemon.check_tcp(host, what)
    if daemon.tls_certificate is None and not relay.allow_insecure and not is_loopback(host):
        raise SettingsError(
            f"{what}: without TLS the network sees tokens and prompts. Set"
            f" {DAEMON_PREFIX}TLS_CERTIFICATE and {DAEMON_PREFIX}TLS_KEY, or"
            " ARTHUR_RELAY_ALLOW_INSECURE=true if you mean it."
        )


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file of `NAME=value` lines.

    Raises:
        SettingsError: The file can't be read.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            found = dotenv_values(stream=stream, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"The file {path} can't be read: {reason}.") from None
    return {name: value for name, value in found.items() if value is not None}
