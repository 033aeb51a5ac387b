"""A sandbox that plays the Engine, clients of it, and relays to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay import Relay, RelaySettings
from arthur_relay.credentials import Credentials
from arthur_relay.destinations.engine.client import EngineDestination
from arthur_relay.sandbox import ArthurSandbox
from tests.environment import forget_arthur

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TASK = "b0d9ad8e-6d2c-4a6e-9f39-7fe6bc9d6c39"
CANARY = "a-prompt-that-nobody-may-see"
KEY = "canary-key-5d1e"

QUICK: dict[str, Any] = {
    "flush_interval_seconds": 0.0,
    "retry_initial_seconds": 0.001,
    "retry_max_seconds": 0.01,
    "breaker_max_seconds": 0.02,
    "shutdown_timeout_seconds": 20.0,
}


@pytest.fixture(autouse=True)
def _no_arthur_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch)


@pytest.fixture
def sandbox() -> Iterator[ArthurSandbox]:
    with ArthurSandbox(api_key=KEY, task_id=TASK) as running:
        yield running


def destination(sandbox: ArthurSandbox, *, key: str | None = None, **options: Any) -> Any:
    settings = RelaySettings(**{**QUICK, **options})
    credentials = Credentials(sandbox.url, api_key=sandbox.api_key if key is None else key)
    return EngineDestination.of(credentials, settings)


@pytest.fixture
def make_relay(sandbox: ArthurSandbox) -> Iterator[Callable[..., Relay]]:
    """Return a function that makes relays to the sandbox, all closed at the end."""
    made: list[Relay] = []

    def make(*, key: str | None = None, **settings: Any) -> Relay:
        chosen = RelaySettings(**{**QUICK, **settings})
        relay = Relay(destination(sandbox, key=key, **settings), settings=chosen)
        made.append(relay)
        return relay

    yield make
    sandbox.faults.reset()
    for relay in made:
        relay.close()
