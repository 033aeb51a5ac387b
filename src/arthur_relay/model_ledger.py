"""The same accounts as the ledger's by model: bounded, as what comes from outside must not grow."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from arthur_relay.reasons import OTHER, BoundedReasons

MODELS = 100
"""Models with accounts of their own; those that come later share one."""


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

    @property
    def pending(self) -> dict[str, int]:
        """Rows that wait, by model; it is what makes the sums come out even."""
        left = Counter(self.captured)
        left.subtract(self.delivered)
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

    def capture(self, rows: int, model_id: str) -> None:
        """Record rows that are held; before any of them is settled."""
        if model_id not in self._labels and len(self._labels) < MODELS:
            self._labels.add(model_id)
        self._captured[self._label(model_id)] += rows

    def recover(self, rows: int, found: Mapping[str, int]) -> None:
        """Record rows that were found; those of models that are not known are `other`."""
        # Those with the most rows first, should there be too many.
        for model_id, count in sorted(found.items(), key=lambda item: -item[1]):
            self.capture(count, model_id)
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

    def lose(self, reason: str, rows: int, left: Mapping[str, int]) -> None:
        """Record that rows are gone: those that are pending and not held any more.

        Args:
            reason: Why.
            rows: How many.
            left: How many of each model are held.
        """
        held: Counter[str] = Counter()
        for model_id, count in left.items():
            held[self._label(model_id)] += count
        pending = self.accounts().pending
        # First where rows are missing; what can't be told apart is taken where there is any.
        for surplus in (held, Counter[str]()):
            for label, count in pending.items():
                gone = min(rows, max(0, count - surplus[label]))
                pending[label] -= gone
                rows -= gone
                if gone:
                    self._dropped[label, reason] += gone

    def accounts(self) -> Accounts:
        """Return a consistent reading. Any thread."""
        # Each copy is one step of C code; captured is read last, as what is settled was captured
        # before.
        delivered, rejected = dict(self._delivered), dict(self._rejected)
        dropped = dict(self._dropped)
        return Accounts(dict(self._captured), delivered, rejected, dropped)

    def _label(self, model_id: str) -> str:
        return model_id if model_id in self._labels else OTHER
