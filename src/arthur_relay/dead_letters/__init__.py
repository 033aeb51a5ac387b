"""What was rejected, or given up: kept with the reason, to be looked at and sent again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from arthur_relay.reasons import BoundedReasons
from arthur_relay.row import RowKind
from arthur_relay.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.dead_letters")

LETTER_OVERHEAD_BYTES = 600
"""What a letter costs in memory beside its row, about: the objects around it."""

UNWRITTEN_BYTES = 1024 * 1024
"""Letters that wait in memory while they can't be written, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A row that Arthur did not take.

    Attributes:
        inference_id: The inference's id.
        model_id: The model's.
        kind: Whether it is the inference itself or its ground truth.
        reason: Why, in a few words without any text.
        status: The HTTP status, of the row or the request, or None when it never got one.
        attempts: How often it was sent.
        rejected_at: When it was given up, timezone-aware.
        destination: Where it was sent.
        body: The row as it was, or would have been, sent: JSON, UTF-8, redacted. Empty when it
            could not be encoded.
    """

    inference_id: str
    model_id: str
    kind: RowKind
    reason: str
    status: int | None
    attempts: int
    rejected_at: datetime
    destination: str
    body: bytes = field(repr=False)  # it holds texts

    @property
    def size(self) -> int:
        """Bytes that it takes, as accounted."""
        return len(self.body) + LETTER_OVERHEAD_BYTES


Key = int
"""Says which letter is meant, as long as it is kept."""


class Keeper(Protocol):
    """Keeps letters, bounded by bytes: the oldest give way. Any thread."""

    def add(self, letters: Sequence[DeadLetter]) -> int:
        """Keep letters; returns how many gave way to them, which are lost.

        Raises:
            OSError: They can't be written.
            sqlite3.Error: The same.
        """
        ...

    def letters(self) -> Iterator[tuple[Key, DeadLetter]]:
        """Yield what is kept, oldest first; raises what `add` does."""
        ...

    def count(self) -> Mapping[str, int]:
        """Return how many are kept, by reason; raises what `add` does."""
        ...

    def remove(self, keys: Collection[Key]) -> int:
        """Keep these no longer; returns how many were still there. Raises what `add` does."""
        ...


class DeadLetters:
    """Collects letters, and has them kept once a turn of the worker.

    `letters` and `count` may be called by any thread; the rest belongs to the worker.

    Args:
        keepers: Where they are kept; the first one is read.
        told: Called with each letter, on the worker's thread.

    Attributes:
        added: How many were taken, by reason, of which there are no more than `BoundedReasons` has.
        evicted: How many of those that are read gave way to newer ones, for want of room.
    """

    def __init__(
        self, keepers: Sequence[Keeper], *, told: Callable[[DeadLetter], object] | None = None
    ) -> None:
        self._keepers = tuple(keepers)
        self._told = told
        self.added: Counter[str] = Counter()
        self._reasons = BoundedReasons()
        self._unwritten: dict[Keeper, list[DeadLetter]] = {keeper: [] for keeper in keepers}
        self._told_failure = False
        self._told_unwritten = False
        self._told_evicted = False
        self.evicted = 0

    def add(self, letter: DeadLetter) -> None:
        """Take a letter. Never raises."""
        self.added[self._reasons.bound(letter.reason)] += 1
        for letters in self._unwritten.values():
            letters.append(letter)
        if self._told is not None:
            try:
                self._told(letter)
            except Exception as error:  # noqa: BLE001 - the application's function
                if not self._told_failure:
                    self._told_failure = True
                    # Without its text, which might quote the letter.
                    logger.warning("arthur-relay: on_dead_letter raised %s", type(error).__name__)

    def commit(self) -> None:
        """Have everything kept. Never raises; what can't be written waits, as far as it may."""
        for keeper, letters in self._unwritten.items():
            if not letters:
                continue
            is_read = keeper is self._keepers[0]
            try:
                gone = keeper.add(letters)
            except Exception as error:  # noqa: BLE001 - a full disk must not cost the worker
                self.evicted += _cut(letters, UNWRITTEN_BYTES) if is_read else 0
                if not self._told_unwritten:
                    self._told_unwritten = True
                    logger.warning("arthur-relay: dead letters can't be written (%s)", error)
            else:
                letters.clear()
                self._told_unwritten = False
                self._count_evicted(gone if is_read else 0)

    def _count_evicted(self, letters: int) -> None:
        self.evicted += letters
        if letters and not self._told_evicted:
            self._told_evicted = True
            logger.warning(
                "arthur-relay: there is no room for more dead letters, the oldest are lost: replay"
                " or purge them, or raise ARTHUR_RELAY_DEAD_LETTER_BYTES"
            )

    def letters(self) -> list[DeadLetter]:
        """Return what is kept, oldest first.

        Raises:
            OSError: It can't be read.
            sqlite3.Error: The same.
        """
        return [letter for _, letter in self._keepers[0].letters()] if self._keepers else []

    def count(self) -> Mapping[str, int]:
        """Return how many are kept, by reason; raises what `letters` does."""
        return self._keepers[0].count() if self._keepers else {}


def _cut(letters: list[DeadLetter], most_bytes: int) -> int:
    """Forget the oldest until the others take no more than so many bytes; returns how many."""
    size = sum([letter.size for letter in letters])
    gone = 0
    while size > most_bytes:
        size -= letters[gone].size
        gone += 1
    del letters[:gone]
    return gone
