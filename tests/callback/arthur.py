"""A sandbox with a handler that logs to it; checks the relay's books whenever it is looked into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from arthur_relay import ArthurCallbackHandler, RelaySettings
from arthur_relay.sandbox import ArthurSandbox, attribute, demo_attributes
from tests.delivered import DeliveredRows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from arthur_relay import Stats

TIMEOUT_SECONDS = 30.0

TEXT_ONLY = (
    attribute("input_text", "UNSTRUCTURED_TEXT", "PIPELINE_INPUT"),
    attribute("output_text", "UNSTRUCTURED_TEXT", "PREDICTED_VALUE"),
)
"""A model that can't tell failed runs apart."""


def extra(**types: str) -> tuple[dict[str, Any], ...]:
    """Attributes beside the texts, by name and type."""
    return tuple(attribute(name, kind, "NON_INPUT_DATA") for name, kind in types.items())


class Arthur(DeliveredRows):
    """A running sandbox and a handler of it, inside of the `with` block.

    Args:
        attributes: The model's; the demo model's and the run ids when None.
        **settings: The relay's.
    """

    def __init__(
        self, attributes: Sequence[Mapping[str, Any]] | None = None, **settings: Any
    ) -> None:
        if attributes is None:
            ids = extra(run_id="STRING", parent_run_id="STRING")
            attributes = [*demo_attributes(), *ids]
        self.sandbox = ArthurSandbox(model={"attributes": [dict(each) for each in attributes]})
        self.settings = RelaySettings(**settings)

    def __enter__(self) -> Self:
        self.sandbox.start()
        self.handler = self.make_handler()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.handler.relay.close(TIMEOUT_SECONDS)
            if kind is None:
                self._look_into_the_books()
        finally:
            self.sandbox.stop()

    def make_handler(self) -> ArthurCallbackHandler:
        """Another handler of the same relay and model."""
        sandbox = self.sandbox
        return ArthurCallbackHandler.from_credentials(
            sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=self.settings
        )

    def stats(self) -> Stats:
        """The relay's counts, after everything that was captured is settled."""
        assert not self.handler.flush(TIMEOUT_SECONDS).timed_out
        return self._look_into_the_books()

    def rows(self) -> list[dict[str, Any]]:
        """The rows that arrived, as JSON, oldest first."""
        self.stats()
        return self.sandbox.inferences

    def _look_into_the_books(self) -> Stats:
        stats = self.handler.relay.stats()
        settled = stats.delivered + stats.rejected + sum(stats.dropped.values())
        assert stats.pending == 0
        assert stats.captured == settled
        assert stats.rejected == 0, stats.rejected_reasons
        assert stats.delivered == len(self.sandbox.inferences)
        assert self.sandbox.duplicates == 0
        assert stats.worker_restarts == 0
        return stats
