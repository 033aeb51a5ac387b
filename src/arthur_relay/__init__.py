"""arthur-relay: logs the LLM inferences of LangChain applications to Arthur, in the background."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arthur_relay.callback import ArthurCallbackHandler
    from arthur_relay.dead_letters import DeadLetter
    from arthur_relay.destinations import Destination
    from arthur_relay.destinations.scope.schema import Attribute, ModelSchema
    from arthur_relay.encoding.model import Schema
    from arthur_relay.errors import (
        ConfigurationError,
        CredentialsError,
        ModelError,
        RelayError,
        SettingsError,
        SpoolError,
        UnreachableError,
    )
    from arthur_relay.inference import Inference
    from arthur_relay.relay import Relay
    from arthur_relay.row import (
        Attempt,
        Batch,
        Failure,
        History,
        Outcome,
        Row,
        RowKind,
        Verdict,
    )
    from arthur_relay.settings import (
        Connect,
        Durability,
        Overflow,
        RelaySettings,
        Trace,
    )
    from arthur_relay.settings.types import BuiltInRedactor
    from arthur_relay.shutdown import exit_on_sigterm, lifespan
    from arthur_relay.stats import (
        DropReason,
        FlushResult,
        Health,
        HealthStatus,
        Stats,
    )

__all__ = [
    "ArthurCallbackHandler",
    "Attempt",
    "Attribute",
    "Batch",
    "BuiltInRedactor",
    "ConfigurationError",
    "Connect",
    "CredentialsError",
    "DeadLetter",
    "Destination",
    "DropReason",
    "Durability",
    "Failure",
    "FlushResult",
    "Health",
    "HealthStatus",
    "History",
    "Inference",
    "ModelError",
    "ModelSchema",
    "Outcome",
    "Overflow",
    "Relay",
    "RelayError",
    "RelaySettings",
    "Row",
    "RowKind",
    "Schema",
    "SettingsError",
    "SpoolError",
    "Stats",
    "Trace",
    "UnreachableError",
    "Verdict",
    "exit_on_sigterm",
    "lifespan",
]

_MODULES = {
    "ArthurCallbackHandler": "callback",
    "Attempt": "row",
    "Attribute": "destinations.scope.schema",
    "Batch": "row",
    "BuiltInRedactor": "settings.types",
    "Connect": "settings",
    "DeadLetter": "dead_letters",
    "Destination": "destinations",
    "DropReason": "stats",
    "Durability": "settings",
    "Failure": "row",
    "FlushResult": "stats",
    "Health": "stats",
    "HealthStatus": "stats",
    "History": "row",
    "Inference": "inference",
    "ModelSchema": "destinations.scope.schema",
    "Outcome": "row",
    "Overflow": "settings",
    "Relay": "relay",
    "RelaySettings": "settings",
    "Row": "row",
    "RowKind": "row",
    "Schema": "encoding.model",
    "Stats": "stats",
    "Trace": "settings",
    "Verdict": "row",
    "exit_on_sigterm": "shutdown",
    "lifespan": "shutdown",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use, because httpx and pydantic-settings make an import slow.
    if name not in __all__:
        raise AttributeError(f"module 'arthur_relay' has no attribute {name!r}")
    return getattr(import_module(f"arthur_relay.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
