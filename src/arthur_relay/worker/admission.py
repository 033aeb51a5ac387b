"""Makes room for rows in the buffer, and decides what gives way when there is none."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from arthur_relay.accounting import Ledger
from arthur_relay.buffers import CompactableBuffer, IntakeBuffer
from arthur_relay.encoding.product import RowWords
from arthur_relay.row import Row, body_bytes
from arthur_relay.sentences import named
from arthur_relay.settings import RelaySettings
from arthur_relay.stats import DropReason
from arthur_relay.system.worker_logs import WorkerLogger
from arthur_relay.worker.awaiting_schema import AwaitingSchema
from arthur_relay.worker.compactor import DeliveryHealth
from arthur_relay.worker.settlement import Settlement

logger = WorkerLogger("arthur_relay.worker")

QUICK_FULLNESS = 0.7
"""How full the capture queue may be before rows are compressed faster, and less well."""

QUIET_SECONDS = 60.0
"""How long nothing is dropped before the log says that the queue has room again."""


class OverflowNotice:
    """The log lines when the queue begins to overflow and when it has room again; pure.

    Args:
        settings: The overflow policy and the spool, which the text names.
        words: What the text calls rows.
    """

    def __init__(self, settings: RelaySettings, words: RowWords) -> None:
        self._policy = settings.overflow.value
        more = (
            f"raise {named('spool_bytes')}" if settings.spool_dir else f"set {named('spool_dir')}"
        )
        self._remedy = f"raise {named('queue_bytes')} and {named('queue_size')}, or {more}"
        self._rows = words.many
        self._seen = 0
        self._seen_at = 0.0
        self._overflows = False

    def look(self, overflown: int, now: float) -> tuple[int, str] | None:
        """Return the level and the text to log, or None.

        Args:
            overflown: How many inferences did not fit so far.
            now: The time in seconds, on any scale.
        """
        grew = overflown > self._seen
        self._seen = overflown
        if grew:
            self._seen_at = now
        if grew and not self._overflows:
            self._overflows = True
            return logging.WARNING, (
                f"the queue is full; {self._rows} are dropped"
                f" (overflow = {self._policy}), see stats(): {self._remedy}"
            )
        if self._overflows and now >= self._seen_at + QUIET_SECONDS:
            self._overflows = False
            return logging.INFO, f"the queue has room again; {overflown} {self._rows} were dropped"
        return None


class HasFullness(Protocol):
    """Knows how full it is: the capture queue."""

    @property
    def fullness(self) -> float:
        """How full it is: 0 when it is empty, 1 or more when it is full."""
        ...


class HasOverShare(Protocol):
    """Knows who uses more than their share: the memory budget."""

    @property
    def over_share(self) -> int:
        """The bytes that the capture queue and the open runs use beyond their shares."""
        ...


class Nudged(Protocol):
    """Compresses rows in another thread: the compactor."""

    def nudge(self) -> None:
        """Look again whether there is something to compress."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class Admission:
    """Puts rows into the buffer, at the cost of older ones where the policy says so.

    Worker's loop only.

    Attributes:
        buffer: Where encoded rows wait.
        compaction: Makes room there.
        awaiting: Where captures wait whose model is not known yet.
        ledger: Has the number of inferences that did not fit, for the log.
        settlement: Settles captures and rows that give way.
        settings: The overflow policy.
        budget: Knows the bytes that large captures use, which rows can't have.
        queue: The capture queue, which fills up while rows are compressed.
        sender: Knows whether deliveries go well.
        compactor: Compresses rows in another thread.
        words: What the log calls rows.
        gives_up_oldest: The setting; looked up once, because each slice of captures asks for it.
    """

    buffer: IntakeBuffer
    compaction: CompactableBuffer
    awaiting: AwaitingSchema
    ledger: Ledger
    settlement: Settlement
    settings: RelaySettings
    budget: HasOverShare
    queue: HasFullness
    sender: DeliveryHealth
    compactor: Nudged
    words: RowWords
    gives_up_oldest: bool = field(init=False)
    _notice: OverflowNotice = field(init=False)

    def __post_init__(self) -> None:
        self.gives_up_oldest = self.settings.gives_up_oldest
        self._notice = OverflowNotice(self.settings, self.words)

    def has(self, size: int, *, rows: int = 1) -> bool:
        """Return whether that many more rows, of so many bytes in all, fit in."""
        awaiting = self.awaiting
        others = awaiting.size + self.budget.over_share
        return self.buffer.has_room(rows=rows + awaiting.rows, size=size + others)

    def hold(self, rows: Sequence[Row]) -> None:
        """Put rows into the buffer."""
        if not self.gives_up_oldest or self.has(body_bytes(rows), rows=len(rows)):
            # Rows that may not be dropped were taken because there was room; a few may exceed it.
            self.buffer.put(rows)
        else:
            for row in rows:
                if self.make_for(len(row.body)):
                    self.buffer.put([row])
                else:
                    self.settlement.dropped(DropReason.OVERFLOW, 1, row.epoch)
        self.compactor.nudge()

    def make_for(self, size: int) -> bool:
        """Make room for a row, or for a capture. Returns whether there is room now."""
        while not (fits := self.has(size)) and self._make():
            pass
        return fits

    def is_stalled(self) -> bool:
        """Return whether the buffer is full, and its rows may not be dropped."""
        if self.gives_up_oldest or self.has(1):
            return False
        # While deliveries go well there will be room soon, so compressing is not worth the work.
        return self.sender.is_healthy or not self._compact()

    def log_overflow(self) -> None:
        """Log when the queue begins to overflow, and when it has stopped."""
        overflown = self.ledger.dropped_by_reason().get(DropReason.OVERFLOW, 0)
        if notice := self._notice.look(overflown, anyio.current_time()):
            level, text = notice
            logger.log(level, "arthur-relay: %s", text)

    def _make(self) -> bool:
        """Compress rows, or else give up the oldest if the policy allows it; False for neither."""
        if self._compact():
            return True
        if not self.gives_up_oldest:
            return False
        row = self.buffer.evict()
        if row is not None:
            self.settlement.evicted(row)
            return True
        waiting = self.awaiting.evict()
        if waiting is None:
            return False
        capture, epoch = waiting
        self.settlement.dropped(DropReason.OVERFLOW, capture.rows, epoch)
        return True

    def _compact(self) -> bool:
        """Compress some rows. Returns whether there were any to compress."""
        try:
            return self.compaction.compact(quickly=self.queue.fullness >= QUICK_FULLNESS)
        except (MemoryError, OSError):
            return False  # the machine has no memory for the work itself
