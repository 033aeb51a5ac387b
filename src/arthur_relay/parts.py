"""The pipeline of one process: what a relay is composed of, and a forked child gets anew."""

from concurrent.futures import Future
from dataclasses import dataclass, field

from arthur_relay.pipeline.flushes import Barrier
from arthur_relay.pipeline.inlet import Inlet
from arthur_relay.pipeline.ledger import Ledger
from arthur_relay.pipeline.runtime import Runtime
from arthur_relay.pipeline.worker import Worker


@dataclass(slots=True)
class Parts:
    """The parts, and where they are between start and end.

    Attributes:
        live_in: The process in which the worker was started, or None.
        closing: Done when the worker has delivered everything after `begin_close`.
        ended: Done when the worker has gone and everything left is accounted for.
        told_loss: Whether the log knows what was lost at the end.
    """

    ledger: Ledger
    inlet: Inlet
    worker: Worker
    runtime: Runtime
    live_in: int | None = None
    closing: Barrier = field(default_factory=lambda: Barrier(closing=True))
    ended: "Future[None]" = field(default_factory=Future)
    told_loss: bool = False
    _open: list[None] = field(default_factory=lambda: [None])

    @property
    def is_open(self) -> bool:
        """Whether nobody has begun to close them. Any thread."""
        return bool(self._open)

    def shut(self) -> bool:
        """Take no more captures. Returns whether this call was the first, in any thread."""
        try:
            self._open.pop()  # one step of C code: only one thread gets it
        except IndexError:
            return False
        self.inlet.close()
        return True
