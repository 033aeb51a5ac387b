"""Helps users to test their own code without Arthur: a sandbox, and destinations in memory.

In a `conftest.py`, `pytest_plugins = ["arthur_relay.testing"]` brings the fixtures
`arthur_sandbox`, `arthur_memory` and `arthur_memory_engine`. The sandbox needs the extra
`arthur-relay[daemon]`, spans need `arthur-relay[engine]`, the rest needs nothing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

import orjson

try:
    import pytest
except ImportError:  # users may use the rest of this module with another test runner
    pytest = None  # type: ignore[assignment]  # looked at below

from arthur_relay.destinations.engine.encoder import EngineRowFormat
from arthur_relay.destinations.engine.feedback import read_feedback
from arthur_relay.destinations.engine.libraries import check_libraries
from arthur_relay.destinations.engine.row_ids import RowId
from arthur_relay.destinations.engine.task import Task
from arthur_relay.destinations.scope.schema import COMMON_ATTRIBUTES, Attribute, ModelSchema
from arthur_relay.relay import Relay
from arthur_relay.row import DELIVERED, Attempt, Batch, RowKind
from arthur_relay.settings import RelaySettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from arthur_relay.encoding.model import Schema
    from arthur_relay.sandbox import ArthurSandbox as ArthurSandbox  # noqa: PLC0414 - exported

__all__ = [
    "LLM_ATTRIBUTES",
    "ArthurSandbox",
    "MemoryDestination",
    "MemoryEngine",
    "memory_engine",
    "memory_relay",
]

LLM_ATTRIBUTES = COMMON_ATTRIBUTES
"""The attributes of a model that has registered what the relay usually sends."""


class _InMemory:
    """What both destinations in memory have; see `Destination`."""

    name = "memory"

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing: what was delivered is kept."""


class MemoryDestination(_InMemory):
    """A destination that keeps all rows in memory. Every model exists, with the same attributes.

    Any thread may read it.

    Args:
        attributes: The models' attributes.
    """

    def __init__(self, attributes: Iterable[Attribute] = LLM_ATTRIBUTES) -> None:
        super().__init__()
        self._attributes = tuple(attributes)
        self._rows: list[dict[str, Any]] = []

    @property
    def inferences(self) -> list[dict[str, Any]]:
        """The delivered inferences, oldest first, as Arthur would get them, with `model_id`."""
        with self._lock:
            return list(self._rows)

    async def fetch_schema(self, model_id: str) -> ModelSchema:
        """Return the model."""
        return ModelSchema(model_id, self._attributes)

    async def deliver(self, batch: Batch) -> Attempt:
        """Keep the batch's rows."""
        rows = [{**orjson.loads(row.body), "model_id": batch.model_id} for row in batch.rows]
        with self._lock:
            self._rows += rows
        return Attempt((DELIVERED,) * len(rows))


class MemoryEngine(_InMemory):
    """An Arthur Engine that keeps all spans and feedback in memory; every task exists.

    Any thread may read it.
    """

    takes_traces = True

    def __init__(self) -> None:
        super().__init__()
        self.row_format = EngineRowFormat()
        self._spans: list[dict[str, Any]] = []
        self._annotations: dict[str, dict[str, Any]] = {}

    @property
    def spans(self) -> list[dict[str, Any]]:
        """The delivered spans, in order of arrival: a trace's root comes last. May be empty.

        Each has `name`; `kind`, such as `LLM`; `attributes`, by OpenInference's names; `parent`,
        the `span_id` of its parent, or None; `span_id` and `trace_id` in hex; `error`, the message
        of a failed run, or None; `events`, each with `name` and `attributes`; and `task`.
        """
        with self._lock:
            return list(self._spans)

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """The feedback, the last for each trace, in the order of traces. May be empty.

        Each has `trace_id`, `annotation_score`, 0 or 1, and `annotation_description`, or None.
        """
        with self._lock:
            return list(self._annotations.values())

    async def fetch_schema(self, model_id: str) -> Schema:
        """Return the task."""
        return Task.named(model_id)

    async def deliver(self, batch: Batch) -> Attempt:
        """Keep the batch's spans, or its feedback."""
        if batch.kind is RowKind.GROUND_TRUTH:
            with self._lock:
                for row in batch.rows:
                    trace_id = RowId.parse(row.id).trace_id
                    given = orjson.loads(read_feedback(row.body).body)
                    self._annotations[trace_id] = {"trace_id": trace_id, **given}
        else:
            # Not needed by those who test inferences; it takes 0.1 s to import.
            from arthur_relay.destinations.engine.span_bytes import (  # noqa: PLC0415 - see above
                read_spans,
            )

            found = [span for row in batch.rows for span in read_spans(row.body)]
            with self._lock:
                self._spans += [{**span, "task": batch.model_id} for span in found]
        return Attempt((DELIVERED,) * len(batch.rows))


def memory_relay(
    *, model_id: str = "test-model", settings: RelaySettings | None = None
) -> tuple[Relay, MemoryDestination]:
    """Return a relay that delivers to memory, and its destination. Close the relay.

    Args:
        model_id: The model of inferences that do not name one.
        settings: The relay's settings. None takes them from the environment, but has rows wait only
            10 ms for others.
    """
    destination = MemoryDestination()
    if settings is None:
        settings = RelaySettings(flush_interval_seconds=0.01)
    return Relay(destination, model_id=model_id, settings=settings), destination


def memory_engine(
    *, task: str = "test-task", settings: RelaySettings | None = None
) -> tuple[Relay, MemoryEngine]:
    """Return a relay that delivers spans to memory, and its destination. Close the relay.

    `ArthurCallbackHandler(relay=relay)` sends to it what a handler of `from_engine` sends to Arthur
    Engine.

    Args:
        task: The task's name.
        settings: As for `memory_relay`.

    Raises:
        ConfigurationError: The extra `arthur-relay[engine]` is not installed.
    """
    check_libraries()
    destination = MemoryEngine()
    if settings is None:
        settings = RelaySettings(flush_interval_seconds=0.01)
    return Relay(destination, model_id=task, settings=settings), destination


def __getattr__(name: str) -> Any:
    # The sandbox needs the extra `daemon`, the rest of this module does not.
    if name == "ArthurSandbox":
        from arthur_relay.sandbox import ArthurSandbox as Sandbox  # noqa: PLC0415 - an extra

        return Sandbox
    raise AttributeError(f"module 'arthur_relay.testing' has no attribute {name!r}")


if pytest is not None:
    __all__ += ["arthur_memory", "arthur_memory_engine", "arthur_sandbox"]

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

    @pytest.fixture
    def arthur_memory_engine() -> Iterator[tuple[Relay, MemoryEngine]]:
        """Make a relay that delivers spans to memory, and close it after the test."""
        relay, destination = memory_engine()
        with relay:
            yield relay, destination
