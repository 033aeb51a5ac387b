"""A handler on a relay that delivers to memory, for one run."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings
from arthur_relay.schema import Attribute
from arthur_relay.testing import MemoryDestination

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
    """Our handler and a recorder behind it, inside of the `with` block.

    The model has registered every field of the table.
    """

    def __init__(self) -> None:
        self._destination = MemoryDestination(
            Attribute(name, kind, _STAGES.get(name, "NON_INPUT_DATA"), position)
            for position, (name, kind) in enumerate(FIELDS.items())
        )
        settings = RelaySettings(flush_interval_seconds=0.01)
        self.relay = Relay(self._destination, model_id="test-model", settings=settings)
        self.handler = ArthurCallbackHandler(relay=self.relay)
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

    @property
    def config(self) -> dict[str, Any]:
        """What a call is given."""
        return {"callbacks": [self.handler, self.recorder]}

    def row(self, *, unmatched_events: int = 0) -> dict[str, Any]:
        """Return the attributes of the only row, when nothing was lost on its way.

        Args:
            unmatched_events: At most so many events may have come for runs that had ended.
        """
        assert not self.handler.flush(TIMEOUT_SECONDS).timed_out
        stats = self.relay.stats()
        assert (stats.captured, stats.delivered, stats.rejected) == (1, 1, 0)
        assert not stats.dropped
        assert stats.capture_errors == 0
        assert stats.unmatched_events <= unmatched_events
        (row,) = self._destination.inferences
        data: dict[str, Any] = row["inference_data"]
        return data
