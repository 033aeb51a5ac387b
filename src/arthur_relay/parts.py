"""The pipeline of one process: what a relay is composed of, and a forked child gets anew."""

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from arthur_relay.pipeline.flushes import Barrier
from arthur_relay.pipeline.inlet import Inlet
from arthur_relay.pipeline.ledger import Ledger
from arthur_relay.pipeline.runtime import Runtime
from arthur_relay.pipeline.worker import Worker
from arthur_relay.stats import DropReason

logger = logging.getLogger("arthur_relay")


@dataclass(slots=True)
class Parts:
    """The parts, and where they are between start and end.

    Attributes:
        live_in: The process in which the worker was started, or None.
        closing: Done when the worker has delivered everything after `begin_close`.
        ended: Done when the worker has gone and everything left is accounted for.
        told_end: Whether the log knows what was left at the end.
    """

    ledger: Ledger
    inlet: Inlet
    worker: Worker
    runtime: Runtime
    live_in: int | None = None
    closing: Barrier = field(default_factory=lambda: Barrier(closing=True))
    ended: "Future[None]" = field(default_factory=Future)
    told_end: bool = False
    _open: list[None] = field(default_factory=lambda: [None])
    _closing_out: "threading.RLock" = field(default_factory=threading.RLock)

    @property
    def is_open(self) -> bool:
        """Whether nobody has begun to close them. Any thread."""
        return bool(self._open)

    @property
    def spooled(self) -> int:
        """Inferences that are safe on disk. Any thread."""
        ended = self.ledger.left_at_end is not None
        return self.ledger.kept_at_end if ended else self.worker.buffer.kept

    def close_out(self) -> None:
        """Account for what is left, once the worker has ended or is given up. Any thread."""
        with self._closing_out:  # whoever is second finds it done
            buffer = self.worker.buffer
            # A worker that could not be stopped may be using it; what it has written stays.
            kept = buffer.kept if self.runtime.is_alive else buffer.close()
            self.ledger.close_out(kept)
            if self.told_end:
                return
            self.told_end = True
            totals = self.ledger.totals()
            if lost := totals.dropped.get(DropReason.SHUTDOWN, 0):
                logger.warning("%d inferences were not delivered in time and are dropped", lost)
            if totals.pending:
                logger.warning("%d inferences stay in the spool for a later start", totals.pending)

    def shut(self) -> bool:
        """Take no more captures. Returns whether this call was the first, in any thread."""
        try:
            self._open.pop()  # one step of C code: only one thread gets it
        except IndexError:
            return False
        self.inlet.close()
        return True
