"""Room for what waits behind the capture queue, and what gives way when there is none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio

from arthur_relay.accounting import Ledger
from arthur_relay.buffers import CompactableBuffer, IntakeBuffer
from arthur_relay.row import Row, body_bytes
from arthur_relay.settings import RelaySettings
from arthur_relay.stats import DropReason
from arthur_relay.system.worker_logs import WorkerLogger
from arthur_relay.worker.awaiting_schema import AwaitingSchema
from arthur_relay.worker.flush import FlushTracker
from arthur_relay.worker.overflow_notice import OverflowNotice

logger = WorkerLogger("arthur_relay.worker")

QUICK_FULLNESS = 0.7
"""How full the capture queue may be before the worker compresses less well."""


@dataclass(slots=True, eq=False, kw_only=True)
class Admission:
    """Puts rows into the buffer, at the cost of older ones where the policy says so.

    Worker's loop only.

    Attributes:
        buffer: Where encoded rows wait.
        compaction: Makes room there.
        awaiting: Where captures wait whose model is not known yet.
        ledger: Counts what gives way.
        flushes: Told of what gives way.
        settings: The overflow policy.
        goes_well: Says whether deliveries go well.
        inlet_fullness: Says how full the capture queue is, 0 to 1 and more.
        filled: Told when rows were put into the buffer.
        borrowed: Returns the bytes of what rows may take that large captures have before them.
        gives_up_oldest: The setting; found once, for each slice of captures asks.
    """

    buffer: IntakeBuffer
    compaction: CompactableBuffer
    awaiting: AwaitingSchema
    ledger: Ledger
    flushes: FlushTracker
    settings: RelaySettings
    goes_well: Callable[[], bool]
    inlet_fullness: Callable[[], float]
    filled: Callable[[], None]
    borrowed: Callable[[], int]
    gives_up_oldest: bool = field(init=False)
    _notice: OverflowNotice = field(init=False)

    def __post_init__(self) -> None:
        self.gives_up_oldest = self.settings.gives_up_oldest
        self._notice = OverflowNotice(self.settings.overflow.value)

    @property
    def taken_bytes(self) -> int:
        """Bytes that wait behind the capture queue, as accounted. Any thread may read it."""
        return self.buffer.size + self.awaiting.size

    def spare(self) -> int:
        """Return the bytes that neither rows nor large captures take. Any thread may ask."""
        return self.settings.buffer_bytes - self.taken_bytes - self.borrowed()

    def has(self, size: int, *, rows: int = 1) -> bool:
        """Say whether that many more rows, of so many bytes in all, fit in."""
        awaiting = self.awaiting
        others = awaiting.size + self.borrowed()
        return self.buffer.has_room(rows=rows + awaiting.rows, size=size + others)

    def hold(self, rows: Sequence[Row]) -> None:
        """Put rows into the buffer."""
        if not self.gives_up_oldest or self.has(body_bytes(rows), rows=len(rows)):
            # What may not be dropped was taken because there was room; it may go a little beyond.
            self.buffer.put(rows)
        else:
            for row in rows:
                if self.make_for(len(row.body)):
                    self.buffer.put([row])
                else:
                    self.ledger.drop(DropReason.OVERFLOW, 1)
                    self.flushes.settle_all([row.epoch])
        self.filled()

    def make_for(self, size: int) -> bool:
        """Make room for a row, or for a capture; returns whether there is some now."""
        while not (fits := self.has(size)) and self._make():
            pass
        return fits

    def is_stalled(self) -> bool:
        """Say whether the buffer is full and the policy is to keep what is in it."""
        if self.gives_up_oldest or self.has(1):
            return False
        # While deliveries go well there will be room soon, so it is not worth the work.
        return self.goes_well() or not self._compact()

    def tell(self) -> None:
        """Log when the queue begins to overflow, and when it has stopped."""
        overflown = self.ledger.dropped_by_reason().get(DropReason.OVERFLOW, 0)
        if notice := self._notice.look(overflown, anyio.current_time()):
            logger.warning("arthur-relay: %s", notice)

    def _make(self) -> bool:
        """Compact what waits, else give up the oldest if the policy allows; False when it can't."""
        if self._compact():
            return True
        if not self.gives_up_oldest:
            return False
        row = self.buffer.evict()
        if row is not None:
            self.ledger.drop_held(DropReason.OVERFLOW, 1, row.model_id)
            self.flushes.settle_all([row.epoch])
            return True
        staged = self.awaiting.evict()
        if staged is None:
            return False
        capture, epoch = staged
        self.ledger.drop(DropReason.OVERFLOW, capture.rows)
        self.flushes.settle(capture.rows, epoch)
        return True

    def _compact(self) -> bool:
        """Make room without a loss. Returns whether that was possible."""
        try:
            return self.compaction.compact(quickly=self.inlet_fullness() >= QUICK_FULLNESS)
        except (MemoryError, OSError):
            return False  # the machine has no memory for the work itself
