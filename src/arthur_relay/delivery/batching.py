"""From the buffer into batches: leases rows, puts ground truth in its order, and groups the rest.

`Batcher` groups rows of one model and kind by count, bytes and age. It is pure: the time is an
argument. `BatchingStage` takes the rows from the buffer, and gives full batches to the sender.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from anyio.abc import TaskGroup

from arthur_relay.buffers import DeferringBuffer, DeliveryJournal, LeaseBuffer
from arthur_relay.delivery.ground_truth import GroundTruthOrder
from arthur_relay.delivery.in_flight import fitting_parts, note_death
from arthur_relay.delivery.row_outcomes import Settles
from arthur_relay.delivery.sender import Sender
from arthur_relay.row import NO_HISTORY, Batch, Outcome, Row, RowKind, Verdict
from arthur_relay.settings import RelaySettings

UNSENT_ROWS = 20_000
UNSENT_SHARE = 4
"""Leased rows that wait in batches that are not full, at most: so many, and bytes of this part of
the queue, or of two batches. Beyond that, the batch that was opened first is sent as it is."""

MAX_DEATHS = 2
"""After so many deaths of the worker while it handled a row, the row is set aside."""

SET_ASIDE = "the worker died of it"

_Key = tuple[str, RowKind]


@dataclass(slots=True)
class _OpenBatch:
    opened_at: float
    size: int = 0
    rows: list[Row] = field(default_factory=list)


class Batcher:
    """Collects rows into batches.

    A batch closes when it has `max_rows`, when one more row would make it larger than
    `max_bytes`, or when its first row has waited `linger_seconds`. A single row larger than
    `max_bytes` travels alone. Rows of a model and kind leave in the order in which they came.

    Args:
        max_rows: Rows in a batch, 1 or more.
        max_bytes: Bytes in a batch, separators included.
        linger_seconds: How long the first row of a batch may wait for others, 0 or more.
    """

    def __init__(self, *, max_rows: int, max_bytes: int, linger_seconds: float) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._linger = linger_seconds
        self._open: dict[_Key, _OpenBatch] = {}
        self.rows = 0
        """Rows in batches that are open."""
        self.size = 0
        """Their bytes, separators included."""

    def add(self, rows: Sequence[Row], now: float) -> list[Batch]:
        """Take rows, and return the batches that are full because of them, oldest first."""
        full: list[Batch] = []
        if not rows:
            return full
        total = 0
        batches, max_rows, max_bytes = self._open, self._max_rows, self._max_bytes
        model_id, kind = rows[0].model_id, rows[0].kind
        key = model_id, kind
        opened = batches.get(key)
        for row in rows:
            if row.model_id is not model_id or row.kind is not kind:  # seldom
                model_id, kind = key = row.model_id, row.kind
                opened = batches.get(key)
            size = len(row.body) + 1  # `row.size`, without a call
            if opened is not None and opened.size + size > max_bytes:
                full.append(self._close(key))
                opened = None
            if opened is None:
                opened = batches[key] = _OpenBatch(opened_at=now)
            opened.rows.append(row)
            opened.size += size
            total += size
            if len(opened.rows) >= max_rows or opened.size >= max_bytes:
                full.append(self._close(key))
                opened = None
        self.rows += len(rows)
        self.size += total
        return full

    def due(self, now: float) -> list[Batch]:
        """Return the batches whose first row has waited long enough, oldest first."""
        ripe = [
            (batch.opened_at, key)
            for key, batch in self._open.items()
            if batch.opened_at + self._linger <= now
        ]
        return [self._close(key) for _, key in sorted(ripe)]

    def flush(self) -> list[Batch]:
        """Return all open batches, whatever their age."""
        return [self._close(key) for key in list(self._open)]

    def oldest(self) -> list[Batch]:
        """Return the batch that was opened first, whatever its age; none when none is open."""
        return [self._close(key) for key in list(islice(self._open, 1))]

    def next_due(self) -> float | None:
        """Return when the next batch will be due, or None when none is open."""
        opened = min((batch.opened_at for batch in self._open.values()), default=None)
        return None if opened is None else opened + self._linger

    def _close(self, key: _Key) -> Batch:
        closed = self._open.pop(key)
        self.rows -= len(closed.rows)
        self.size -= closed.size
        return Batch(key[0], tuple(closed.rows))


@dataclass(slots=True, eq=False, kw_only=True)
class BatchingStage:
    """Forms batches of the rows that wait in the buffer. Worker's loop only.

    Attributes:
        leases: The buffer, which hands the rows out.
        deferred: The same, which holds ground truth back.
        journal: The same, which writes down what happened to rows.
        ground_truth: Says which ground truth has to wait for its inference.
        settlement: Settles rows that the worker dies of.
        sender: Gets the batches.
        settings: The sizes of a batch, and how long it may wait for more rows.
    """

    leases: LeaseBuffer
    deferred: DeferringBuffer
    journal: DeliveryJournal
    ground_truth: GroundTruthOrder
    settlement: Settles
    sender: Sender
    settings: RelaySettings
    _batcher: Batcher = field(init=False)
    _ready: deque[Batch] = field(default_factory=deque)
    _in_hand: Sequence[Row] = ()
    _favours_put_off: bool = False

    def __post_init__(self) -> None:
        self._forget()

    def enter(self) -> None:
        """Get ready for a loop. All that an earlier one had leased waits again in the buffer."""
        self._forget()
        if self._in_hand:  # an earlier loop died of these rows, or close to them
            note_death(self._in_hand)
            self.journal.note(self._in_hand, at_once=True)
            self._in_hand = ()
        self.leases.release_all()

    def release_unsent(self) -> None:
        """Make the rows of batches that are not sent yet wait in the buffer again."""
        self._ready.extend(self._batcher.flush())
        while self._ready:
            self.leases.release(self._ready.popleft().rows)

    def start_turn(self, now: float) -> None:
        """Sort ground truth into batches that may go by now."""
        due = self.ground_truth.due(now, self.deferred.on_their_way)
        if due:
            self._ready.extend(self._batcher.add(due, now))

    def send_next(self, group: TaskGroup, now: float) -> bool:
        """Take one step: send a batch that is ready, or lease some rows for the next ones.

        Returns:
            False when no batch is ready and no row can be leased.
        """
        if self._ready:
            self.sender.start(group, self._ready.popleft().rows)
            return True
        if self._has_enough_unsent:
            self._ready.extend(self._batcher.oldest())
            return True
        return self._lease(now)

    def close_batches(self, now: float, *, at_once: bool) -> bool:
        """Close the batches that have waited long enough for more rows.

        Args:
            now: The time.
            at_once: Whether all of them are closed.

        Returns:
            Whether any batch is ready now.
        """
        self._ready.extend(self._batcher.flush() if at_once else self._batcher.due(now))
        return bool(self._ready)

    @property
    def has_put_off(self) -> bool:
        """Whether any ground truth is put off."""
        return self.ground_truth.has_put_off

    def next_due(self) -> float | None:
        """Return when `start_turn` or `close_batches` will have something to do, or None."""
        dues = self._batcher.next_due(), self.ground_truth.next_due()
        return min((due for due in dues if due is not None), default=None)

    def hurry(self, now: float) -> None:
        """Let ground truth go now that waits for a time."""
        self.ground_truth.hurry(now)

    def _forget(self) -> None:
        """Forget the rows that were on their way: the buffer has them."""
        self._batcher = Batcher(
            max_rows=self.settings.batch_size,
            max_bytes=self.settings.batch_bytes,
            linger_seconds=self.settings.flush_interval_seconds,
        )
        self.ground_truth.clear()
        self._ready.clear()

    @property
    def _has_enough_unsent(self) -> bool:
        most = max(2 * self.settings.batch_bytes, self.settings.queue_bytes // UNSENT_SHARE)
        return self._batcher.rows >= UNSENT_ROWS or self._batcher.size >= most

    def _lease(self, now: float) -> bool:
        """Sort some rows into batches: ground truth that was put off, and other rows, in turn.

        Returns:
            Whether there were any.
        """
        self._favours_put_off = not self._favours_put_off
        if self._favours_put_off and self._lease_put_off(now):
            return True
        settings = self.settings
        waiting = self.sender.waiting_models()
        rows = self.leases.lease(settings.batch_size, waiting, most_bytes=settings.batch_bytes)
        if rows:
            self._form_batches(rows, now)
            return True
        return not self._favours_put_off and self._lease_put_off(now)

    def _lease_put_off(self, now: float) -> bool:
        """Sort ground truth that was put off into batches. Returns whether there was any."""
        size, most_bytes = self.settings.batch_size, self.settings.batch_bytes
        while (model_id := self.ground_truth.put_off_due(now)) is not None:
            if rows := self.deferred.lease_put_off(model_id, size, most_bytes=most_bytes):
                self._sort_in(rows, now)
                return True
            if not self.deferred.has_put_off(model_id):
                self.ground_truth.forget(model_id)
        return False

    def _form_batches(self, rows: Sequence[Row], now: float) -> None:
        """Sort leased rows into batches; should the worker die of that, they are remembered."""
        again = [row for row in rows if row.history is not NO_HISTORY]
        if not again:  # nearly always
            self._sort_in(rows, now)
            return
        self._sort_in([row for row in rows if row.history is NO_HISTORY], now)
        self._in_hand = again.copy()
        for row in [row for row in again if row.history.deaths]:
            again.remove(row)
            if row.history.deaths < MAX_DEATHS:
                self._sort_in([row], now, as_it_is=True)
            else:
                outcome = Outcome(Verdict.REJECTED, SET_ASIDE)
                self.settlement.rejected(row, outcome, attempts=row.history.attempts)
        for part in fitting_parts(again, self.settings.batch_size, self.settings.batch_bytes):
            self._sort_in(part, now, as_it_is=True)
        self._in_hand = ()

    def _sort_in(self, rows: Sequence[Row], now: float, *, as_it_is: bool = False) -> None:
        outer, self._in_hand = self._in_hand, rows
        may_go = self._without_early_ground_truth(rows, now)
        if not as_it_is:
            self._ready.extend(self._batcher.add(may_go, now))
        elif may_go:
            self._ready.append(Batch(may_go[0].model_id, tuple(may_go)))
        self._in_hand = outer

    def _without_early_ground_truth(self, rows: Sequence[Row], now: float) -> Sequence[Row]:
        """Return the rows that may go now: not ground truth whose inference is on its way."""
        kind = RowKind.GROUND_TRUTH  # found once: Python 3.11 takes long to find a member
        truths = [row for row in rows if row.kind is kind]
        if not truths:  # nearly always
            return rows
        early = self.ground_truth.keep_back(truths, self.deferred.on_their_way, now)
        self.deferred.put_off(self.ground_truth.beyond())
        return [row for row in rows if row not in early] if early else rows
