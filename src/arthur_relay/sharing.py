"""Handlers share relays: one for each address, credentials and settings in a process."""

from __future__ import annotations

import os
from typing import Any

from arthur_relay.credentials import (
    DEFAULT_URL,
    Credentials,
    credentials_from_environment,
    means_engine,
    resolve_credentials,
    resolve_engine_credentials,
)
from arthur_relay.destinations.engine.client import EngineDestination
from arthur_relay.destinations.engine.task import task_named
from arthur_relay.destinations.scope.arthurai_sdk import credentials_of, schema_of
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.encoding.model import check_model_id
from arthur_relay.errors import ConfigurationError, CredentialsError
from arthur_relay.relay import Relay, host_of
from arthur_relay.runtime.process_registry import registry
from arthur_relay.settings import Connect, RelaySettings
from arthur_relay.worker.relay_host import RelayHost


def relay_and_model(
    *, arthur_model: Any, relay: Relay | None, model_id: str | None, settings: RelaySettings | None
) -> tuple[Relay, str]:
    """Return the relay and the model of a handler; ask Arthur for the model unless that is lazy.

    Raises:
        ConfigurationError: See `ArthurCallbackHandler`.
    """
    if (arthur_model is None) == (relay is None):
        raise ConfigurationError(
            "Give ArthurCallbackHandler either an arthurai.ArthurModel or relay=..., or use"
            " ArthurCallbackHandler.from_credentials(...) or .from_env()."
        )
    if relay is None:
        if model_id is not None:
            raise ConfigurationError(
                "The arthurai.ArthurModel says which model to log to: leave model_id out."
            )
        return _relay_of_model(arthur_model, settings)
    if settings is not None:
        raise ConfigurationError(
            "A relay has its settings already: give settings=... to the relay, or make the handler"
            " by from_credentials or from_env."
        )
    disabled = relay.settings.disabled
    model = relay.model_id if model_id is None or disabled else check_model_id(model_id)
    if model is None and not relay.settings.disabled:
        raise ConfigurationError(
            "The handler has no model to log to: give model_id=... to the handler or to its relay."
        )
    if model is not None and relay.settings.connect is Connect.EAGER:
        try:
            relay.connect(model)
        except CredentialsError:
            if registry().unshare(host_of(relay)):
                relay.close()  # nobody can use it, and nobody else would end its thread
            raise
    return relay, model or ""


def relay_for_credentials(
    url: str | None, login: str | None, password: str | None, *, settings: RelaySettings | None
) -> Relay:
    """Return the process's relay for an address, credentials and settings.

    Raises:
        ConfigurationError: One of them can't be used.
    """
    settings = settings if settings is not None else RelaySettings()
    if settings.disabled:
        return _disabled(settings)
    credentials = resolve_credentials(
        url=url, login=login, password=password, allow_insecure=settings.allow_insecure
    )
    return _shared(credentials, settings)


def relay_for_environment(*, settings: RelaySettings | None) -> tuple[Relay, str]:
    """Return the process's relay, and the model or the task, of the environment.

    `ARTHUR_BASE_URL` or `ARTHUR_TASK_ID` mean Arthur Engine, `ARTHUR_MODEL_ID` means Arthur Scope.

    Raises:
        ConfigurationError: A variable is missing or has a value that is not allowed.
    """
    settings = settings if settings is not None else RelaySettings()
    if settings.disabled:
        return _disabled(settings), ""
    if means_engine(os.environ):
        return relay_for_engine(settings=settings)
    model_id = os.environ.get("ARTHUR_MODEL_ID", "").strip()
    if not model_id:
        raise ConfigurationError(
            "ARTHUR_MODEL_ID is not set: set it to the id of the Arthur model to log to; or"
            " ARTHUR_TASK_ID, for Arthur Engine."
        )
    credentials = credentials_from_environment(allow_insecure=settings.allow_insecure)
    return _shared(credentials, settings), model_id


def relay_for_engine(
    task: str | None = None,
    *,
    task_id: str | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    service_version: str | None = None,
    settings: RelaySettings | None,
) -> tuple[Relay, str]:
    """Return the process's relay to an Arthur Engine, and the task.

    Raises:
        ConfigurationError: An argument or a variable is missing, or has a value that is not
            allowed.
    """
    settings = settings if settings is not None else RelaySettings()
    if settings.disabled:
        return _disabled(settings), ""
    settings = settings.for_engine()
    named = task_named(task, task_id, os.environ)
    credentials = resolve_engine_credentials(
        url=base_url, api_key=api_key, allow_insecure=settings.allow_insecure
    )

    def make() -> RelayHost:
        destination = EngineDestination.of(credentials, settings, service_version=service_version)
        return host_of(Relay(destination, settings=settings))

    key = ("engine", credentials, service_version, settings)
    host: RelayHost = registry().shared(key, make)
    return host.relay, named


def _relay_of_model(arthur_model: Any, settings: RelaySettings | None) -> tuple[Relay, str]:
    settings = settings if settings is not None else RelaySettings()
    if settings.disabled:
        return _disabled(settings), ""
    schema = schema_of(arthur_model)
    credentials = credentials_of(arthur_model, allow_insecure=settings.allow_insecure)
    relay = _shared(credentials, settings)
    host_of(relay).register(schema)
    return relay, schema.model_id


def _shared(credentials: Credentials, settings: RelaySettings) -> Relay:
    def make() -> RelayHost:
        return host_of(Relay(ScopeDestination.of(credentials, settings), settings=settings))

    host: RelayHost = registry().shared((credentials, settings), make)
    return host.relay


def _disabled(settings: RelaySettings) -> Relay:
    """Return a relay that does nothing; it needs no credentials, which a test run may lack."""
    return _shared(Credentials(DEFAULT_URL, api_key=""), settings)
