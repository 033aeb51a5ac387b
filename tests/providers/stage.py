"""A handler on a relay that delivers to memory, for one run."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings
from arthur_relay.destinations.scope.schema import Attribute
from arthur_relay.testing import MemoryDestination, memory_engine

from .recorder import Recorder
from .table import FIELDS

TIMEOUT_SECONDS = 30.0

_STAGES = {
    "input_text": "PIPELINE_INPUT",
    "output_text": "PREDICTED_VALUE",
    "output_tokens": "PREDICTED_VALUE",
    "output_likelihoods": "PREDICTED_VALUE",
}


class Stage:
    """Our handlers and a recorder behind them, inside of the `with` block.

    One handler makes rows for Arthur Scope, the other spans for Arthur Engine.

    The model has registered every field of the table.

    Args:
        **more: More attributes that it has registered, with their types.
    """

    def __init__(self, **more: str) -> None:
        self._destination = MemoryDestination(
            Attribute(name, kind, _STAGES.get(name, "NON_INPUT_DATA"), position)
            for position, (name, kind) in enumerate({**FIELDS, **more}.items())
        )
        settings = RelaySettings(flush_interval_seconds=0.01)
        self.relay = Relay(self._destination, model_id="test-model", settings=settings)
        self.handler = ArthurCallbackHandler(relay=self.relay)
        self._engine_relay, self._engine = memory_engine()
        self._engine_handler = ArthurCallbackHandler(relay=self._engine_relay)
        self.recorder = Recorder(self.handler)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.relay.close(TIMEOUT_SECONDS)
        self._engine_relay.close(TIMEOUT_SECONDS)

    @property
    def config(self) -> dict[str, Any]:
        """What a call is given."""
        return {"callbacks": [self.handler, self._engine_handler, self.recorder]}

    def row(self, *, unmatched_events: int = 0) -> dict[str, Any]:
        """Return the attributes of the only row, when nothing was lost on its way.

        Args:
            unmatched_events: At most so many events may have come for runs that had ended.
        """
        (row,) = self.rows(unmatched_events=unmatched_events)
        data: dict[str, Any] = row["inference_data"]
        return data

    def rows(self, *, unmatched_events: int = 0) -> list[dict[str, Any]]:
        """Return all rows, in the order of their delivery, when none was lost on its way."""
        assert not self.handler.flush(TIMEOUT_SECONDS).timed_out
        stats, rows = self.relay.stats(), self._destination.inferences
        assert (stats.captured, stats.delivered, stats.rejected) == (len(rows), len(rows), 0)
        assert not stats.dropped
        assert stats.capture_errors == 0
        assert stats.unmatched_events <= unmatched_events
        return rows

    def span(self) -> dict[str, Any]:
        """Return the only run's span, when nothing was lost on its way."""
        assert not self._engine_handler.flush(TIMEOUT_SECONDS).timed_out
        stats = self._engine_relay.stats()
        assert (stats.captured, stats.delivered, stats.capture_errors) == (1, 1, 0)
        (span,) = self._engine.spans
        return span
