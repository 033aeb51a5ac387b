"""A relay without work: its threads end, and nothing keeps it alive."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from arthur_relay.runtime.process_registry import registry

if TYPE_CHECKING:
    from arthur_relay.capture.open_runs import OpenRuns
    from arthur_relay.runtime.process_registry import Closable

IDLE_SECONDS = 30.0
"""A relay's threads and connections end when for this long there was no capture, no open run and
nothing to deliver. A pause between two requests is shorter, and costs no new connection."""


class RelayIdling:
    """Implements `pipeline.Owner` for a relay.

    Args:
        relay: The relay.
        open_runs: Its open runs, which need a thread until they have ended.
    """

    def __init__(self, relay: Closable, open_runs: OpenRuns) -> None:
        self._relay = relay
        self._open_runs = open_runs
        self.idle_seconds = IDLE_SECONDS

    def may_idle(self) -> bool:
        """Whether the relay may be without a thread."""
        return registry().can_spare(self._relay)

    def let_go(self, *, keeps_letters: bool) -> bool:
        """Let the next run wake the relay, and the registry keep it alive no longer.

        The registry keeps a relay with dead letters in memory, because a handler that is made later
        may read them. Returns whether the thread may end.
        """
        self._open_runs.owner_pid = None
        if registry().let_go(self._relay, keep=keeps_letters):
            return True
        self._open_runs.owner_pid = os.getpid()
        return False

    def take_back(self) -> None:
        """Have the registry keep the relay alive, and close it when the process exits."""
        registry().take_back(self._relay)
        self._open_runs.owner_pid = os.getpid()

    def has_work(self) -> bool:
        """Whether runs are open."""
        return len(self._open_runs) > 0
