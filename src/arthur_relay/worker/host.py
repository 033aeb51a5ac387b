"""What a pipeline asks of its owner: an application's relay, or the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from arthur_relay.encoding.model import Schema


class PipelineHost(Protocol):
    """The owner of a pipeline."""

    @property
    def idle_seconds(self) -> float | None:
        """The seconds without work after which the thread may end; None if it never may."""
        ...

    def may_idle(self) -> bool:
        """Return whether the thread may end now. The worker's thread."""
        ...

    def let_go(self, *, keeps_letters: bool) -> bool:
        """Prepare for the end of the thread.

        Args:
            keeps_letters: Whether there are dead letters, in memory only.

        Returns:
            Whether it may end.
        """
        ...

    def take_back(self) -> None:
        """Prepare for a thread that starts. Any thread; takes no lock, never raises."""
        ...

    def has_work(self) -> bool:
        """Return whether there will be something to do. Any thread."""
        ...

    def sweep(self) -> bool:
        """Give up open runs that never ended; returns whether any is open. The worker's thread."""
        ...

    def on_learned(self, model_id: str, schema: Schema) -> None:
        """Use what became known of a model. The worker's thread."""
        ...


class StandingHost:
    """The daemon: it keeps its thread, and has no open runs."""

    idle_seconds: float | None = None

    def may_idle(self) -> bool:
        """Return that it may not."""
        return False

    def let_go(self, *, keeps_letters: bool) -> bool:  # noqa: ARG002 - the protocol's
        """Return that it may not."""
        return False

    def take_back(self) -> None:
        """Do nothing: the thread never ended."""

    def has_work(self) -> bool:
        """Return that there always may be some."""
        return True

    def sweep(self) -> bool:
        """Return that no run is open."""
        return False

    def on_learned(self, model_id: str, schema: Schema) -> None:
        """Do nothing: the daemon passes on everything that a client sends."""
