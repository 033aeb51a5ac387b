"""What becomes of a relay that has nothing to do: it costs no thread, and may be forgotten."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from arthur_relay.runtime.process_registry import registry

if TYPE_CHECKING:
    from arthur_relay.capture.open_runs import OpenRuns
    from arthur_relay.runtime.process_registry import Closable

IDLE_SECONDS = 30.0
"""After how long without a capture, an open run and anything to deliver a relay's threads end, and
its connections. Long enough that a pause between two requests costs no new connection."""


class RelayIdling:
    """Does for a relay what `pipeline.Owner` asks.

    Args:
        relay: The relay.
        open_runs: Its open runs, which have to be ended some day.
    """

    def __init__(self, relay: Closable, open_runs: OpenRuns) -> None:
        self._relay = relay
        self._open_runs = open_runs
        self.idle_seconds = IDLE_SECONDS

    def may_idle(self) -> bool:
        """Whether no one else relies on it."""
        return registry().can_spare(self._relay)

    def let_go(self, *, keeps_letters: bool) -> bool:
        """Have a run that begins wake the relay, and the registry keep it alive no longer.

        Unless it has dead letters in memory: a handler that is made later may ask for them.
        """
        self._open_runs.owner_pid = None
        if registry().let_go(self._relay, keep=keeps_letters):
            return True
        self._open_runs.owner_pid = os.getpid()
        return False

    def take_back(self) -> None:
        """Have it kept alive, and closed at the process's exit."""
        registry().take_back(self._relay)
        self._open_runs.owner_pid = os.getpid()

    def has_work(self) -> bool:
        """Whether runs are open."""
        return len(self._open_runs) > 0
