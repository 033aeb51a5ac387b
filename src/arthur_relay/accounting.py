"""Counts every inference: captured, delivered, rejected, dropped; in all, and by model.

A signal handler may raise between any two steps of Python code, also during a capture. So two
changes that belong together are made by one step of C code: an iterator that makes the one and then
the other, run by a call that Python does not interrupt.
"""

import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count, islice, tee
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from arthur_relay.inference import Capture
from arthur_relay.stats import DropReason

REASONS = 40
"""How many reasons have a count of their own; all others share one."""

OTHER = "other"

_USUAL = re.compile(r"(http|row) [1-5][0-9][0-9]|[a-z_ ]{1,40}")

MODELS = 100
"""How many models have accounts of their own; later ones share one."""

_run = deque[Any](maxlen=0).extend
"""Runs an iterator to its end, in one step of C code, and keeps nothing."""

_first = itemgetter(0)
_rows_of = attrgetter("rows")


class AtomicCounter:
    """Counts up from any thread, signal handler or finaliser without a lock.

    `itertools.count` advances in one step of C code, and its `repr` contains its value.

    Attributes:
        increment: Counts up by one.
        steps: An iterator that counts up by one with each step.
    """

    __slots__ = ("increment", "steps")

    def __init__(self) -> None:
        self.steps = count()
        self.increment = self.steps.__next__

    def add(self, amount: int) -> None:
        """Count up by `amount`, 0 or more."""
        _run(islice(self.steps, amount))

    def value(self) -> int:
        """Return the count. Any thread or signal handler; takes no lock."""
        return int(repr(self.steps)[6:-1])  # count(7)


class Totals:
    """A consistent reading of the ledger."""

    __slots__ = (
        "captured",
        "delivered",
        "dropped",
        "pending",
        "recovered",
        "rejected",
        "rejected_reasons",
        "returned",
    )

    def __init__(self, ledger: "Ledger") -> None:
        # Captured is read last, so that it includes all that is settled: pending is never negative.
        self.delivered = ledger.delivered
        self.rejected_reasons: Mapping[str, int] = dict(ledger.rejected)
        self.rejected = sum(self.rejected_reasons.values())
        dropped = ledger.dropped_by_reason()
        self.returned = ledger.returned
        settled = self.delivered + self.rejected + sum(dropped.values()) + self.returned
        self.recovered = ledger.recovered
        self.captured = ledger.captured.value() + self.recovered
        self.pending = self.captured - settled
        if ledger.left_at_end is not None:
            # Derived, so that a worker that still runs can't count an inference twice.
            cut = min(ledger.left_at_end, self.pending)
            kept = min(ledger.kept_at_end, cut)
            for reason, rows in (
                (DropReason.SHUTDOWN, cut - kept),
                (DropReason.CLOSED, self.pending - cut),
            ):
                if rows > 0:
                    dropped[reason.value] = dropped.get(reason.value, 0) + rows
            self.pending = kept
        self.dropped: Mapping[str, int] = dropped


class BoundedReasons:
    """Maps reasons, of which Arthur words some, to a bounded number of them. One thread."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def bound(self, reason: str) -> str:
        """Return the reason, or `other` if its form is unusual or there are too many."""
        if reason in self._known:
            return reason
        if len(self._known) >= REASONS or _USUAL.fullmatch(reason) is None:
            return OTHER
        self._known.add(reason)
        return reason


class Accounts(NamedTuple):
    """A consistent reading: no model has more settled rows than captured ones.

    All keys are bounded: models are ids or `other`, reasons are words, or a status, or `other`.
    """

    captured: Mapping[str, int]
    """Rows by model, with those that were found in the spool."""
    delivered: Mapping[str, int]
    rejected: Mapping[tuple[str, str], int]
    """Rows by model and reason."""
    dropped: Mapping[tuple[str, str], int]
    """Rows by model and `DropReason`."""
    returned: Mapping[str, int] = MappingProxyType({})
    """Rows by model that went back to the broker, for any worker to deliver."""

    @property
    def pending(self) -> dict[str, int]:
        """Rows that wait, by model: those captured and not settled."""
        left = Counter(self.captured)
        left.subtract(self.delivered)
        left.subtract(self.returned)
        for settled in (self.rejected, self.dropped):
            for (model, _), rows in settled.items():
                left[model] -= rows
        return dict(left)


class ModelLedger:
    """Counts rows by model. The worker's thread counts, any thread reads.

    A model gets an account with its first row, while there are fewer than `MODELS`, and keeps it.
    """

    def __init__(self) -> None:
        self._labels: set[str] = set()
        self._reasons = BoundedReasons()
        self._captured: Counter[str] = Counter()
        self._delivered: Counter[str] = Counter()
        self._rejected: Counter[tuple[str, str]] = Counter()
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._returned: Counter[str] = Counter()

    def capture(self, rows: int, model_id: str) -> None:
        """Record captured rows, before any of them is settled."""
        if model_id not in self._labels and len(self._labels) < MODELS:
            self._labels.add(model_id)
        self._captured[self._label(model_id)] += rows

    def recover(self, rows: int, found: Mapping[str, int]) -> None:
        """Record rows found in the spool; rows without a known model count as `other`."""
        # The models with the most rows first, in case there are too many.
        for model_id, found_rows in Counter(found).most_common():
            self.capture(found_rows, model_id)
        if missing := rows - sum(found.values()):
            self._captured[OTHER] += missing

    def deliver(self, rows: int, model_id: str) -> None:
        """Record that Arthur acknowledged rows."""
        self._delivered[self._label(model_id)] += rows

    def reject(self, reason: str, rows: int, model_id: str) -> None:
        """Record that Arthur refused rows for good."""
        self._rejected[self._label(model_id), self._reasons.bound(reason)] += rows

    def drop(self, reason: str, rows: int, model_id: str) -> None:
        """Record that rows were given up."""
        self._dropped[self._label(model_id), reason] += rows

    def give_back(self, rows: int, model_id: str) -> None:
        """Record that rows went back to the broker."""
        self._returned[self._label(model_id)] += rows

    def lose(self, reason: str, rows: int, left: Mapping[str, int]) -> None:
        """Record that rows were lost: those that are pending, but in no buffer any more.

        Args:
            reason: Why they were lost.
            rows: How many.
            left: How many rows of each model are still held.
        """
        held: Counter[str] = Counter()
        for model_id, held_rows in left.items():
            held[self._label(model_id)] += held_rows
        pending = self.accounts().pending
        # First from models with missing rows; the rest from any model with pending rows.
        for surplus in (held, Counter[str]()):
            for label, pending_rows in pending.items():
                lost = min(rows, max(0, pending_rows - surplus[label]))
                pending[label] -= lost
                rows -= lost
                if lost:
                    self._dropped[label, reason] += lost

    def accounts(self) -> Accounts:
        """Return a consistent reading. Any thread."""
        # Each copy is one step of C code; captured is read last, so that it includes all that is
        # settled.
        delivered, rejected = dict(self._delivered), dict(self._rejected)
        dropped, returned = dict(self._dropped), dict(self._returned)
        return Accounts(dict(self._captured), delivered, rejected, dropped, returned)

    def _label(self, model_id: str) -> str:
        return model_id if model_id in self._labels else OTHER


class Ledger:
    """Counts inferences, in rows, by what became of them.

    Any thread may use `captured` and `drop()`. The rest belongs to the worker, and after
    `close_out()` to its caller.

    Args:
        by_model: Counts the same by model; None if nobody reads that.
    """

    def __init__(self, by_model: ModelLedger | None = None) -> None:
        self.by_model = by_model
        self.captured = AtomicCounter()
        self.delivered = 0
        self.rejected: Counter[str] = Counter()
        self.returned = 0
        self._dropped = {reason: AtomicCounter() for reason in DropReason}
        self.requests = 0
        self.retries = 0
        self.malformed_answers = 0
        self.attributes_omitted = 0
        self.redaction_failures = 0
        self._sealed = False
        self.recovered = 0
        self.left_at_end: int | None = None
        self.kept_at_end = 0

    def entering(self, capture: Capture) -> Iterator[Capture]:
        """Return an iterator that counts a capture and then yields it, once. Any thread."""
        steps, rows = self.captured.steps, capture.rows
        if rows == 1:  # nearly always
            return map(_first, zip((capture,), steps, strict=False))
        return map(_first, zip((capture,), map(_run, (islice(steps, rows),)), strict=False))

    def lose(self, reason: DropReason, rows: int) -> None:
        """Record captured rows that are dropped at once. Any thread."""
        captured = islice(self.captured.steps, rows)
        if self._sealed:
            _run(captured)
        else:
            _run(zip(captured, islice(self._dropped[reason].steps, rows), strict=False))

    def drop_oldest(self, reason: DropReason, waiting: deque[Capture]) -> Capture:
        """Take the oldest capture out of a queue, and record that it is dropped. Any thread.

        Raises:
            IndexError: The queue is empty.
        """
        if self._sealed:
            return waiting.popleft()
        found: list[Capture] = []
        oldest, again = tee(islice(iter(waiting.popleft, None), 1))
        steps = map(partial(islice, self._dropped[reason].steps), map(_rows_of, again))
        found.extend(map(_first, zip(oldest, map(_run, steps), strict=False)))
        return found[0]

    def accept(self, rows: int, model_id: str) -> None:
        """Record rows that came encoded and were taken in. The worker's thread."""
        self.captured.add(rows)
        if self.by_model is not None:
            self.by_model.capture(rows, model_id)

    def drop(self, reason: DropReason, rows: int) -> None:
        """Record that captures were dropped. Any thread; lock-free."""
        if not self._sealed:
            self._dropped[reason].add(rows)

    def drop_held(self, reason: DropReason, rows: int, model_id: str) -> None:
        """Record that held rows were dropped."""
        if not self._sealed:
            self._dropped[reason].add(rows)
            if self.by_model is not None:
                self.by_model.drop(reason.value, rows, model_id)

    def lose_held(
        self, reason: DropReason, rows: int, left: Callable[[], Mapping[str, int]]
    ) -> None:
        """Record that held rows were lost; it is not known which.

        Args:
            reason: Why they were lost.
            rows: How many.
            left: Returns how many rows of each model are still held; only called if needed.
        """
        if not self._sealed:
            self._dropped[reason].add(rows)
            if self.by_model is not None:
                self.by_model.lose(reason.value, rows, left())

    def deliver(self, rows: int, model_id: str) -> None:
        """Record that Arthur acknowledged rows."""
        if not self._sealed:
            self.delivered += rows
            if self.by_model is not None:
                self.by_model.deliver(rows, model_id)

    def reject(self, reason: str, rows: int, model_id: str) -> None:
        """Record that Arthur refused rows for good."""
        if not self._sealed:
            self.rejected[reason] += rows
            if self.by_model is not None:
                self.by_model.reject(reason, rows, model_id)

    def give_back(self, rows: int, model_id: str) -> None:
        """Record that rows went back to the broker, for any worker to deliver."""
        if not self._sealed:
            self.returned += rows
            if self.by_model is not None:
                self.by_model.give_back(rows, model_id)

    def recover(self, rows: int, by_model: Callable[[], Mapping[str, int]] = dict) -> None:
        """Record rows that an earlier process had captured.

        Args:
            rows: How many.
            by_model: Returns how many of each model, as far as known; only called if needed.
        """
        self.recovered += rows
        if self.by_model is not None and rows:
            self.by_model.recover(rows, by_model())

    def omit(self, _name: str) -> None:
        """Count a value that could not be sent as its attribute's type."""
        self.attributes_omitted += 1

    def redaction_failed(self) -> None:
        """Count a text that was withheld because its redactor raised."""
        self.redaction_failures += 1

    def dropped_by_reason(self) -> dict[str, int]:
        """Return how many rows were dropped for each reason that happened."""
        values = {reason.value: counter.value() for reason, counter in self._dropped.items()}
        return {reason: value for reason, value in values.items() if value}

    def totals(self) -> Totals:
        """Return a consistent reading; takes locks, not for the caller's path."""
        return Totals(self)

    def close_out(self, kept: int = 0) -> int:
        """Count all pending rows as dropped at shutdown; from now on, count only new captures.

        The worker may not have stopped in time: whatever it still does is not counted, so that no
        inference is counted twice.

        Args:
            kept: How many of the pending rows are not dropped, because a later process finds them
                on disk.

        Returns:
            How many rows were pending.
        """
        if self.left_at_end is None:
            self._sealed = True
            # Not by `totals`, which derives pending once another thread has set `left_at_end`.
            dropped = sum(counter.value() for counter in self._dropped.values())
            settled = self.delivered + sum(self.rejected.values()) + dropped + self.returned
            left = self.captured.value() + self.recovered - settled
            if self.left_at_end is None:
                self.kept_at_end = kept
                self.left_at_end = left
        return self.left_at_end
