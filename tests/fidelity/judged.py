"""A relay that delivers to memory, where each row is judged as Arthur judges it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings
from arthur_relay.destinations.scope.schema import Attribute
from arthur_relay.sandbox.validation import Schema, check_inference
from arthur_relay.testing import MemoryDestination
from tests.delivered import DeliveredRows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from arthur_relay import Stats

TIMEOUT_SECONDS = 30.0


class Judged(DeliveredRows):
    """A relay and a handler of it, inside of the `with` block; checks the relay's books at its end.

    Args:
        attributes: The model's.
        **settings: The relay's.
    """

    def __init__(self, attributes: Sequence[Mapping[str, Any]], **settings: Any) -> None:
        self._judge = Schema.of({"attributes": [dict(each) for each in attributes]})
        self._destination = MemoryDestination(
            Attribute(each["name"], each["value_type"], each["stage"], position)
            for position, each in enumerate(attributes)
        )
        chosen = RelaySettings(**{"flush_interval_seconds": 0.01, **settings})
        self._relay = Relay(self._destination, model_id="m", settings=chosen)
        self.handler = self.make_handler()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._relay.close(TIMEOUT_SECONDS)
        if kind is None:
            self._look_into_the_books()

    def make_handler(self) -> ArthurCallbackHandler:
        """Another handler of the same relay and model."""
        return ArthurCallbackHandler(relay=self._relay)

    def stats(self) -> Stats:
        """The relay's counts, after everything that was captured is settled."""
        assert not self._relay.flush(TIMEOUT_SECONDS).timed_out
        return self._look_into_the_books()

    def rows(self) -> list[dict[str, Any]]:
        """The rows that arrived, oldest first, each one that Arthur takes."""
        self.stats()
        rows = self._destination.inferences
        ids = [check_inference(self._judge, _as_sent(row)) for row in rows]
        assert len(set(ids)) == len(ids)
        return rows

    def _look_into_the_books(self) -> Stats:
        stats = self._relay.stats()
        assert stats.pending == 0
        assert stats.captured == stats.delivered + stats.rejected + sum(stats.dropped.values())
        assert stats.rejected == 0, stats.rejected_reasons
        assert stats.delivered == len(self._destination.inferences)
        assert stats.worker_restarts == 0
        return stats


def _as_sent(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "model_id"}
