"""Whom a pipeline works for: an application's relay, which may rest, or the daemon."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from arthur_relay.runtime.process_registry import registry
from arthur_relay.system.clocks import Clocks

if TYPE_CHECKING:
    from arthur_relay.capture.open_runs import OpenRuns
    from arthur_relay.encoding.model import Schema
    from arthur_relay.runtime.process_registry import Closable
    from arthur_relay.worker.known_models import KnownModels

IDLE_SECONDS = 30.0
"""How long a relay has to be without captures, open runs and rows until its threads and connections
end. Long enough that a pause between two requests costs no new connection."""


class PipelineHost(Protocol):
    """Whom a pipeline works for."""

    @property
    def idle_seconds(self) -> float | None:
        """How long there has to be no work until the thread may end; None if it never does."""
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
        """Return whether there will be work even if nothing is captured now. Any thread."""
        ...

    def sweep(self) -> bool:
        """Give up open runs that never ended. Returns whether any is open. The worker's thread."""
        ...

    def on_learned(self, model_id: str, schema: Schema) -> None:
        """Take note of a model that became known. The worker's thread."""
        ...


class StandingHost:
    """A host that keeps its thread and has no open runs: the daemon."""

    idle_seconds: float | None = None

    def may_idle(self) -> bool:
        """Return False: it never may."""
        return False

    def let_go(self, *, keeps_letters: bool) -> bool:  # noqa: ARG002 - the protocol's
        """Return False: it never may."""
        return False

    def take_back(self) -> None:
        """Do nothing: the thread never ended."""

    def has_work(self) -> bool:
        """Return True: clients may send rows at any time."""
        return True

    def sweep(self) -> bool:
        """Return False: no run is open."""
        return False

    def on_learned(self, model_id: str, schema: Schema) -> None:
        """Do nothing: whatever clients send passes through."""


class RelayHost:
    """A relay in an application: without work it costs no thread, and may be garbage-collected.

    Args:
        relay: The relay.
        open_runs: Its open runs.
        models: The models that it knows.
        run_max_age_seconds: How long a run may be open.
    """

    def __init__(
        self,
        relay: Closable,
        open_runs: OpenRuns,
        models: KnownModels,
        *,
        run_max_age_seconds: float,
    ) -> None:
        self._relay = relay
        self._open_runs = open_runs
        self._models = models
        self._run_max_age_seconds = run_max_age_seconds
        self.idle_seconds: float | None = IDLE_SECONDS

    def may_idle(self) -> bool:
        """Return whether the registry can spare the relay."""
        return registry().can_spare(self._relay)

    def let_go(self, *, keeps_letters: bool) -> bool:
        """Have the next run wake the relay, and the registry keep it alive no longer.

        A relay with dead letters in memory stays: a handler that is made later may ask for them.
        """
        self._open_runs.owner_pid = None
        if registry().let_go(self._relay, keep=keeps_letters):
            return True
        self._open_runs.owner_pid = os.getpid()
        return False

    def take_back(self) -> None:
        """Have the relay kept alive, and closed when the process exits."""
        registry().take_back(self._relay)
        self._open_runs.owner_pid = os.getpid()

    def has_work(self) -> bool:
        """Return whether runs are open."""
        return len(self._open_runs) > 0

    def sweep(self) -> bool:
        """Give up runs that are too old. Returns whether any is open."""
        self._open_runs.sweep(Clocks.perf_counter() - self._run_max_age_seconds)
        return len(self._open_runs) > 0

    def on_learned(self, model_id: str, schema: Schema) -> None:
        """Have the handlers of a model keep only the values that can be sent."""
        self._models.learn(model_id, schema)
