"""Takes in rows that come encoded and are acknowledged: how a daemon's intake hands them over.

A batch is answered when its rows are safe in the buffer, or when none of them is held. All batches
that wait when the worker looks share one commit, however many they are.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from arthur_relay.accounting import Ledger
from arthur_relay.buffers import IntakeBuffer
from arthur_relay.capture.queue import WakesWorker
from arthur_relay.row import Row, body_bytes
from arthur_relay.system.clocks import Clock
from arthur_relay.worker.flush import FlushTracker

COMMIT_BYTES = 8 * 1024 * 1024
"""About the size of a commit: the answers to all of its batches wait for it."""

HELD_SHARE = 0.8
"""How much of the buffer may be full before rows of models that are held are refused."""

ROOM_BYTES = 256 * 1024
"""A usual request, with a margin: a hundred rows of 2 KB."""


class IngestRefusal(Enum):
    """The reasons why rows are not held."""

    FULL = "the spool is full"
    HELD = "the spool's last fifth is for other models, and nothing of this one goes through"
    UNWRITABLE = "the spool can't be written"
    CLOSED = "the relay is closed"
    BROKER_FULL = "the broker is full"
    BROKER_AWAY = "the broker can't be reached"
    OVER_SHARE = "the broker has more of this model's rows than their share of its room"
    TOO_LARGE = "the broker takes smaller rows than before"
    CLIENT_GONE = "the client is gone"


@dataclass(slots=True, eq=False)
class IngestBatch:
    """Rows that are handed over together; all of them are held, or none.

    Attributes:
        rows: The rows, one or more; nobody else may use them any longer.
        size: The bytes of their bodies.
        by_model: How many there are of each model.
        client: Whoever handed them over, and gets the answer.
    """

    rows: Sequence[Row]
    size: int
    by_model: Mapping[str, int]
    client: "IngestClient"

    @classmethod
    def of(cls, rows: Sequence[Row], client: "IngestClient") -> "IngestBatch":
        """Return a batch of some rows."""
        by_model = Counter([row.model_id for row in rows])
        return cls(rows, body_bytes(rows), by_model, client)


IngestAnswer = tuple[IngestBatch, IngestRefusal | None]
"""A batch, and why it is not held; None when it is safe."""


class IngestClient(Protocol):
    """Hands over rows."""

    def answered(self, answers: Sequence[IngestAnswer]) -> None:
        """Take the answers to its own batches. Usually the worker's thread; must not block."""
        ...


class KnowsHeld(Protocol):
    """Knows which models are held: the sender."""

    def is_held(self, model_id: str) -> bool:
        """Return whether nothing of a model goes through, while others' rows do."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class IngestQueue:
    """Batches on their way into the buffer.

    `offer` and `close` may be called from any thread, the rest belongs to the worker's loop.

    Attributes:
        buffer: Where the rows go.
        ledger: Counts those that are held; those that are refused were never captured.
        flushes: Counts them for the flushes that wait.
        worker: The worker's thread, which is woken.
        max_bytes: The bytes that the buffer may hold.
        sender: Knows which models are held.
        clock: Measures for how long rows could not be written.
    """

    buffer: IntakeBuffer
    ledger: Ledger
    flushes: FlushTracker
    worker: WakesWorker
    max_bytes: int
    sender: KnowsHeld
    clock: Clock
    _batches: deque[IngestBatch] = field(default_factory=deque)
    _woken: bool = False
    _closed: bool = False
    _failed_at: float | None = None

    def offer(self, batch: IngestBatch) -> None:
        """Hand rows over; their client hears once whether they are safe. Never waits."""
        self._batches.append(batch)
        if self._closed:  # looked at after the append, so that `close` sees the batch, or we this
            self.close()
        elif not self._woken:
            self._woken = True
            self.worker.wake()

    def has_room(self) -> bool:
        """Return whether the rows of a usual request fit in. Any thread."""
        return self.buffer.has_room(rows=100, size=ROOM_BYTES) or self.buffer.rows == 0

    def fails_for(self) -> float | None:
        """Return for how many seconds rows could not be written, or None. Any thread.

        The last attempt counts; there is none without rows.
        """
        failed_at = self._failed_at
        return None if failed_at is None else self.clock.monotonic() - failed_at

    def take_in(self) -> bool:
        """Make batches safe, up to about `COMMIT_BYTES`, and answer them.

        Returns:
            Whether more batches wait.
        """
        self._woken = False  # first, so that a batch that comes from now on wakes the worker
        if not self._batches:
            return False
        chosen: list[IngestBatch] = []
        answers: list[IngestAnswer] = []
        rows: list[Row] = []
        size = 0
        while size < COMMIT_BYTES:
            try:
                batch = self._batches.popleft()
            except IndexError:  # `close` may have been quicker
                break
            count, more = len(rows) + len(batch.rows), size + batch.size
            if not self.buffer.has_room(rows=count, size=more):
                answers.append((batch, IngestRefusal.FULL))
                continue
            if any(map(self.sender.is_held, batch.by_model)) and not self.buffer.has_room(
                rows=count, size=more + int(self.max_bytes * (1 - HELD_SHARE))
            ):
                answers.append((batch, IngestRefusal.HELD))
                continue
            chosen.append(batch)
            rows += batch.rows
            size += batch.size
        try:
            answers += self._store(chosen, rows)
        except BaseException:
            self._batches.extendleft(reversed(chosen))  # for the worker's next run
            _send_answers(answers)
            raise
        _send_answers(answers)
        return bool(self._batches)

    def close(self) -> None:
        """Refuse what waits, and whatever still comes. Any thread."""
        self._closed = True
        answers: list[IngestAnswer] = []
        while True:
            try:
                answers.append((self._batches.popleft(), IngestRefusal.CLOSED))
            except IndexError:
                break
        _send_answers(answers)

    def _store(self, batches: Sequence[IngestBatch], rows: Sequence[Row]) -> list[IngestAnswer]:
        """Hold the rows of some batches, or none of them, and return the answers."""
        if not rows:
            return [(batch, None) for batch in batches]
        epoch = self.flushes.epoch
        for row in rows:
            row.epoch = epoch
        if not self.buffer.store(rows):
            self._failed_at = self.clock.monotonic()
            return [(batch, IngestRefusal.UNWRITABLE) for batch in batches]
        self._failed_at = None
        # Before any of them can be delivered: never more may be settled than was captured.
        for batch in batches:
            for model_id, count in batch.by_model.items():
                self.ledger.accept(count, model_id)
        self.flushes.take(len(rows))
        return [(batch, None) for batch in batches]


def _send_answers(answers: Sequence[IngestAnswer]) -> None:
    """Give each client its answers, by one call."""
    by_client: dict[int, list[IngestAnswer]] = {}
    for answer in answers:
        by_client.setdefault(id(answer[0].client), []).append(answer)
    for found in by_client.values():
        found[0][0].client.answered(found)
