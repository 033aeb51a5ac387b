"""Rows that come encoded and are acknowledged: how a daemon's intake gives them to the worker.

A group is answered when its rows are safe in the buffer, or when they are not held at all. All
groups that wait when the worker looks share one commit, however many they are.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from arthur_relay.accounting import Ledger
from arthur_relay.buffers import IntakeBuffer
from arthur_relay.capture.queue import Wakes
from arthur_relay.row import Row, body_bytes
from arthur_relay.system.clocks import Clock
from arthur_relay.worker.flush import FlushTracker

COMMIT_BYTES = 8 * 1024 * 1024
"""Rows of one commit, about: the answers to all of them wait for it."""

HELD_SHARE = 0.8
"""How much of the buffer rows of models may fill of which nothing goes through."""

ROOM_BYTES = 256 * 1024
"""A hundred rows of 2 KB, and some."""


class IngestRefusal(Enum):
    """Why rows are not held."""

    FULL = "the spool is full"
    HELD = "the spool's last fifth is for other models, and nothing of this one goes through"
    UNWRITABLE = "the spool can't be written"
    CLOSED = "the relay is closed"


@dataclass(slots=True, eq=False)
class IngestBatch:
    """Rows that are handed over together; all are held, or none.

    Attributes:
        rows: The rows, one or more, of one model; nobody else may use them any longer.
        size: Bytes of their bodies.
        desk: Told what became of them.
    """

    rows: Sequence[Row]
    size: int
    desk: "IngestClient"

    @classmethod
    def of(cls, rows: Sequence[Row], desk: "IngestClient") -> "IngestBatch":
        """Return an offer of rows."""
        return cls(rows, body_bytes(rows), desk)


IngestAnswer = tuple[IngestBatch, IngestRefusal | None]
"""An offer, and why it is not held; None when it is safe."""


class IngestClient(Protocol):
    """Whoever offers rows."""

    def answered(self, answers: Sequence[IngestAnswer]) -> None:
        """Take answers to offers of one's own. The worker's thread as a rule; must not block."""
        ...


class KnowsHeld(Protocol):
    """The sender."""

    def is_held(self, model_id: str) -> bool:
        """Return whether nothing of a model goes through, while others' rows do."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class IngestQueue:
    """Offers on their way into the buffer.

    `offer` and `close` may be called from any thread, the rest belongs to the worker's loop.

    Attributes:
        buffer: Where the rows go.
        ledger: Counts those that are held; those that are refused were never captured.
        flushes: Told of what was taken.
        worker: Is woken.
        max_bytes: What the buffer may hold.
        sender: Knows whether nothing of a model goes through, while others' rows do.
        clock: Tells for how long rows could not be written.
    """

    buffer: IntakeBuffer
    ledger: Ledger
    flushes: FlushTracker
    worker: Wakes
    max_bytes: int
    sender: KnowsHeld
    clock: Clock
    _offers: deque[IngestBatch] = field(default_factory=deque)
    _woken: bool = False
    _closed: bool = False
    _failed_at: float | None = None

    def offer(self, offer: IngestBatch) -> None:
        """Hand rows over; the desk is told once whether they are safe. Never waits."""
        self._offers.append(offer)
        if self._closed:  # after the append: either `close` has seen it, or we see this
            self.close()
        elif not self._woken:
            self._woken = True
            self.worker.wake()

    def has_room(self) -> bool:
        """Say whether a usual request's rows fit in. Any thread."""
        return self.buffer.has_room(rows=100, size=ROOM_BYTES) or self.buffer.rows == 0

    def fails_for(self) -> float | None:
        """Return for how many seconds rows could not be written; None when they could. Any thread.

        It is the last attempt that counts, and there is none without rows.
        """
        failed_at = self._failed_at
        return None if failed_at is None else self.clock.monotonic() - failed_at

    def take_in(self) -> bool:
        """Make safe what was offered, about `COMMIT_BYTES` of it, and say so.

        Returns:
            Whether more is waiting.
        """
        self._woken = False  # first, so that whoever comes from now on wakes the worker
        if not self._offers:
            return False
        chosen: list[IngestBatch] = []
        answers: list[IngestAnswer] = []
        rows: list[Row] = []
        size = 0
        while size < COMMIT_BYTES:
            try:
                offer = self._offers.popleft()
            except IndexError:  # also where `close` was quicker
                break
            count, more = len(rows) + len(offer.rows), size + offer.size
            if not self.buffer.has_room(rows=count, size=more):
                answers.append((offer, IngestRefusal.FULL))
                continue
            if self.sender.is_held(offer.rows[0].model_id) and not self.buffer.has_room(
                rows=count, size=more + int(self.max_bytes * (1 - HELD_SHARE))
            ):
                answers.append((offer, IngestRefusal.HELD))
                continue
            chosen.append(offer)
            rows += offer.rows
            size += offer.size
        try:
            answers += self._store(chosen, rows)
        except BaseException:
            self._offers.extendleft(reversed(chosen))  # for the worker that comes after this one
            _tell(answers)
            raise
        _tell(answers)
        return bool(self._offers)

    def close(self) -> None:
        """Refuse what waits, and whatever still comes. Any thread."""
        self._closed = True
        answers: list[IngestAnswer] = []
        while True:
            try:
                answers.append((self._offers.popleft(), IngestRefusal.CLOSED))
            except IndexError:
                break
        _tell(answers)

    def _store(self, offers: Sequence[IngestBatch], rows: Sequence[Row]) -> list[IngestAnswer]:
        """Hold the rows of some offers, or none of them, and return the answers."""
        if not rows:
            return [(offer, None) for offer in offers]
        epoch = self.flushes.epoch
        for row in rows:
            row.epoch = epoch
        if not self.buffer.store(rows):
            self._failed_at = self.clock.monotonic()
            return [(offer, IngestRefusal.UNWRITABLE) for offer in offers]
        self._failed_at = None
        # Before any of them can be delivered, so that never more is settled than was captured.
        for offer in offers:
            self.ledger.accept(len(offer.rows), offer.rows[0].model_id)
        self.flushes.take(len(rows))
        return [(offer, None) for offer in offers]


def _tell(answers: Sequence[IngestAnswer]) -> None:
    by_desk: dict[int, list[IngestAnswer]] = {}
    for answer in answers:
        by_desk.setdefault(id(answer[0].desk), []).append(answer)
    for found in by_desk.values():
        found[0][0].desk.answered(found)
