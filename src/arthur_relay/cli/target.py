"""Where rows of the environment go: which product, at which address, and whose they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from arthur_relay.broker.settings import BrokerSettings
from arthur_relay.cli import fail
from arthur_relay.credentials import (
    ENGINE_KEY,
    Credentials,
    credentials_from_environment,
    means_both,
    means_engine,
    resolve_engine_credentials,
)
from arthur_relay.daemon.configuration import ENGINE_DIRECTORY
from arthur_relay.destinations.engine.client import EngineDestination, engine_owner
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.encoding.product import Product
from arthur_relay.errors import ConfigurationError
from arthur_relay.relay import Relay
from arthur_relay.row import RowOwner
from arthur_relay.settings import RelaySettings
from arthur_relay.system.terminal import printable

WAYS_TO_MEAN = {
    Product.ENGINE: "ARTHUR_BASE_URL or ARTHUR_TASK_ID",
    Product.SCOPE: "ARTHUR_ENDPOINT_URL, without ARTHUR_BASE_URL and ARTHUR_TASK_ID",
}

READING_ROLES = "TASK-ADMIN or ORG-ADMIN"
"""The Engine's roles that may write traces, and read them."""


def settings_of_environment() -> RelaySettings:
    """Return the settings of the environment.

    Raises:
        typer.Exit: They are not valid; the reason is printed.
    """
    try:
        return RelaySettings()
    except ConfigurationError as error:
        fail(str(error), code=2)


def need_directory(directory: Path, variable: str) -> None:
    """End the command where a directory is not there: a list of it would say that all is well.

    Args:
        directory: The directory.
        variable: The variable that names it, or a file in it.

    Raises:
        typer.Exit: With 2; the reason is printed.
    """
    try:
        is_there = directory.is_dir()
    except OSError as error:
        fail(f"The directory of {variable} can't be looked at: {error}.", code=2)
    if not is_there:
        fail(
            f"There is no directory {printable(str(directory))}: set {variable} to what the"
            " applications have, or --env-file to the daemon's file.",
            code=2,
        )


@dataclass(frozen=True, slots=True)
class Target:
    """The Arthur of the environment.

    Attributes:
        product: Which of the two.
        credentials: Its address, and a key or a login.
    """

    product: Product
    credentials: Credentials

    @classmethod
    def of_environment(cls, settings: RelaySettings, product: Product | None = None) -> Target:
        """Return the Arthur of the environment.

        Args:
            settings: The settings of the environment.
            product: Which one is meant in the environment of a daemon for both; if None, the
                spool's directory says it.

        Raises:
            typer.Exit: The environment does not say; the reason is printed.
        """
        insecure = settings.allow_insecure
        try:
            if means_both(os.environ):
                if (product or _product_of(settings)) is Product.SCOPE:
                    return cls(Product.SCOPE, credentials_from_environment(allow_insecure=insecure))
                found = resolve_engine_credentials(allow_insecure=insecure, key_variable=ENGINE_KEY)
                return cls(Product.ENGINE, found)
            if means_engine(os.environ):
                return cls(Product.ENGINE, resolve_engine_credentials(allow_insecure=insecure))
            return cls(Product.SCOPE, credentials_from_environment(allow_insecure=insecure))
        except ConfigurationError as error:
            fail(str(error), code=2)

    @property
    def owner(self) -> RowOwner:
        """The owner of the rows that are captured for it."""
        if self.product is Product.ENGINE:
            return engine_owner(self.credentials)
        return self.credentials.owner

    def relay(self, settings: RelaySettings) -> Relay:
        """Return a relay to it, without a model or a task of its own.

        Raises:
            ConfigurationError: It can't be made.
        """
        if self.product is Product.ENGINE:
            settings = settings.for_engine()
            return Relay(EngineDestination.of(self.credentials, settings), settings=settings)
        return Relay(ScopeDestination.of(self.credentials, settings), settings=settings)


def _product_of(settings: RelaySettings) -> Product:
    """Return which product's spool the settings name."""
    directory = settings.spool_dir
    is_engine = directory is not None and directory.name == ENGINE_DIRECTORY
    return Product.ENGINE if is_engine else Product.SCOPE


def broker_of_environment(settings: RelaySettings) -> BrokerSettings | None:
    """Return the settings of the fleet's broker; None where the environment has none.

    Raises:
        typer.Exit: They are not valid; the reason is printed.
    """
    try:
        broker = BrokerSettings()
        if broker.url is None:
            return None
        broker.check(allow_insecure=settings.allow_insecure)
    except ConfigurationError as error:
        fail(str(error), code=2)
    return broker


def other_product(product: Product, target: Target) -> str:
    """Return the end of a sentence about rows that are for the other product."""
    return f"for {product}, and the environment means {target.product}: set {WAYS_TO_MEAN[product]}"
