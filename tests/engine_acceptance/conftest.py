"""The Engine that these tests run against: a real one where variables name one, else the sandbox.

`ARTHUR_TEST_ENGINE_URL`, `ARTHUR_TEST_ENGINE_KEY` and `ARTHUR_TEST_ENGINE_TASK_ID` name a real one.
The key must be one that may write traces and read them, such as one with the role TASK-ADMIN. The
tests leave some 40 spans and a few annotations in the task: give one that is for tests.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings
from arthur_relay.credentials import Credentials
from arthur_relay.destinations.engine.client import EngineDestination
from arthur_relay.sandbox import ArthurSandbox
from tests.environment import forget_arthur

from .engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PREFIX = "ARTHUR_TEST_ENGINE_"
NAMED = {name: os.environ.get(PREFIX + name, "").strip() for name in ("URL", "KEY", "TASK_ID")}

SETTINGS: dict[str, Any] = {
    "flush_interval_seconds": 0.05,
    "retry_initial_seconds": 0.2,
    "retry_max_seconds": 1.0,
    "breaker_max_seconds": 1.0,
    "shutdown_timeout_seconds": 60.0,
    "connect_timeout_seconds": 20.0,
    "allow_insecure": True,
}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch, "OPENINFERENCE_", "OTEL_")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if any(NAMED.values()):
        missing = [PREFIX + name for name, value in NAMED.items() if not value]
        assert not missing, f"set {', '.join(missing)} as well"
        yield Engine(NAMED["URL"].rstrip("/"), NAMED["KEY"], NAMED["TASK_ID"])
        return
    with ArthurSandbox() as sandbox:
        yield Engine(sandbox.url, sandbox.api_key, sandbox.task_id)


@pytest.fixture
def make_relay(engine: Engine) -> Iterator[Callable[..., Relay]]:
    """Return a function that makes relays to the Engine, all closed at the end."""
    made: list[Relay] = []

    def make(*, url: str | None = None, **options: Any) -> Relay:
        settings = RelaySettings(**{**SETTINGS, **options}).for_engine()
        credentials = Credentials(url or engine.url, api_key=engine.key)
        destination = EngineDestination.of(credentials, settings)
        made.append(Relay(destination, model_id=engine.task_id, settings=settings))
        return made[-1]

    yield make
    for relay in made:
        relay.close(10)


@pytest.fixture
def make_handler(engine: Engine) -> Iterator[Callable[..., ArthurCallbackHandler]]:
    """Return a function that makes handlers for the Engine; their relays are closed at the end."""
    made: list[ArthurCallbackHandler] = []

    def make(**given: Any) -> ArthurCallbackHandler:
        arguments = {"task_id": engine.task_id, "base_url": engine.url, "api_key": engine.key}
        settings = RelaySettings(**SETTINGS)
        handler = ArthurCallbackHandler.from_engine(**{**arguments, **given}, settings=settings)
        made.append(handler)
        return handler

    yield make
    for handler in made:
        handler.relay.close(10)
