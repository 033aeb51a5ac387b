"""Helps users to test their own code without Arthur: a sandbox, and a destination in memory.

In a `conftest.py`, `pytest_plugins = ["arthur_relay.testing"]` brings the fixtures `arthur_sandbox`
and `arthur_memory`. The sandbox needs the extra `arthur-relay[daemon]`, the rest needs nothing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

import orjson

try:
    import pytest
except ImportError:  # users may use the rest of this module with another test runner
    pytest = None  # type: ignore[assignment]  # looked at below

from arthur_relay.destinations.scope.schema import COMMON_ATTRIBUTES, Attribute, ModelSchema
from arthur_relay.relay import Relay
from arthur_relay.row import DELIVERED, Attempt, Batch
from arthur_relay.settings import RelaySettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from arthur_relay.sandbox import ArthurSandbox as ArthurSandbox  # noqa: PLC0414 - exported

LLM_ATTRIBUTES = COMMON_ATTRIBUTES
"""The attributes of a model that has registered all that the relay can send."""


class MemoryDestination:
    """A destination that keeps all rows in memory; every model exists, with the same attributes.

    Any thread may read it.

    Args:
        attributes: The models' attributes.
    """

    name = "memory"

    def __init__(self, attributes: Iterable[Attribute] = LLM_ATTRIBUTES) -> None:
        self._attributes = tuple(attributes)
        self._rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    @property
    def inferences(self) -> list[dict[str, Any]]:
        """The delivered inferences, oldest first, as Arthur would get them, with `model_id`."""
        with self._lock:
            return list(self._rows)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing: delivered rows are kept."""

    async def fetch_schema(self, model_id: str) -> ModelSchema:
        """Return the model."""
        return ModelSchema(model_id, self._attributes)

    async def deliver(self, batch: Batch) -> Attempt:
        """Keep the batch's rows."""
        rows = [{**orjson.loads(row.body), "model_id": batch.model_id} for row in batch.rows]
        with self._lock:
            self._rows += rows
        return Attempt((DELIVERED,) * len(rows))


def memory_relay(
    *, model_id: str = "test-model", settings: RelaySettings | None = None
) -> tuple[Relay, MemoryDestination]:
    """Return a relay that delivers to memory, and its destination. Close the relay."""
    destination = MemoryDestination()
    if settings is None:
        settings = RelaySettings(flush_interval_seconds=0.01)
    return Relay(destination, model_id=model_id, settings=settings), destination


def __getattr__(name: str) -> Any:
    # The sandbox needs the extra `daemon`, the rest of this module does not.
    if name == "ArthurSandbox":
        from arthur_relay.sandbox import ArthurSandbox as Sandbox  # noqa: PLC0415 - an extra

        return Sandbox
    raise AttributeError(f"module 'arthur_relay.testing' has no attribute {name!r}")


if pytest is not None:

    @pytest.fixture
    def arthur_sandbox() -> Iterator[ArthurSandbox]:
        """Run a sandbox during a test."""
        from arthur_relay.sandbox import ArthurSandbox as Sandbox  # noqa: PLC0415 - an extra

        with Sandbox() as sandbox:
            yield sandbox

    @pytest.fixture
    def arthur_memory() -> Iterator[tuple[Relay, MemoryDestination]]:
        """Make a relay that delivers to memory, and close it after the test."""
        relay, destination = memory_relay()
        with relay:
            yield relay, destination
