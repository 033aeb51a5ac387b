"""arthur-relay: logs the LLM inferences of LangChain applications to Arthur, in the background."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arthur_relay.callback import ArthurCallbackHandler
    from arthur_relay.dead_letters import DeadLetter
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
    from arthur_relay.settings import RelaySettings
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
    "ConfigurationError",
    "CredentialsError",
    "DeadLetter",
    "DropReason",
    "FlushResult",
    "Health",
    "HealthStatus",
    "Inference",
    "ModelError",
    "Relay",
    "RelayError",
    "RelaySettings",
    "SettingsError",
    "SpoolError",
    "Stats",
    "UnreachableError",
    "exit_on_sigterm",
    "lifespan",
]

_MODULES = {
    "ArthurCallbackHandler": "callback",
    "DeadLetter": "dead_letters",
    "DropReason": "stats",
    "FlushResult": "stats",
    "Health": "stats",
    "HealthStatus": "stats",
    "Inference": "inference",
    "Relay": "relay",
    "RelaySettings": "settings",
    "Stats": "stats",
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
