"""What was rejected, or given up: kept with the reason, to be looked at and sent again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from arthur_relay.log_once import LogOnce
from arthur_relay.reasons import BoundedReasons
from arthur_relay.row import RowKind
from arthur_relay.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.dead_letters")

LETTER_IDS = 200
LETTER_OVERHEAD_BYTES = 600
"""What a letter costs in memory beside its row, about: the objects around it."""

DAMAGED = "damaged letter"
"""The reason of a letter that does not say its own any more."""

UNWRITTEN_BYTES = 1024 * 1024
"""Letters that wait in memory while they can't be written, at most."""


def letter_bytes(body: int, ids: int) -> int:
    """Return what a letter takes, as accounted.

    Args:
        body: The bytes of its row.
        ids: The characters of its ids together.
    """
    return body + LETTER_OVERHEAD_BYTES + max(0, ids - LETTER_IDS)


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
        damage: What is wrong with the letter itself, as it was read; empty as a rule.
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
    damage: str = ""

    @property
    def size(self) -> int:
        """Bytes that it takes, as accounted."""
        return letter_bytes(len(self.body), len(self.inference_id) + len(self.model_id))

    def within(self, max_bytes: int) -> DeadLetter:
        """Return this letter, without its row if it would take more than all letters may."""
        return self if self.size <= max_bytes else replace(self, body=b"", damage="too large")

    @property
    def can_be_sent(self) -> bool:
        """Whether its row is there, and something that Arthur could read."""
        if self.damage:
            return False
        try:
            return isinstance(orjson.loads(self.body), dict)
        except ValueError:
            return False


def damaged(what: str, body: bytes) -> DeadLetter:
    """Return what is left of a letter that can't be read."""
    return DeadLetter(
        inference_id="?",
        model_id="?",
        kind=RowKind.INFERENCE,
        reason=DAMAGED,
        status=None,
        attempts=0,
        rejected_at=datetime.fromtimestamp(0, UTC),
        destination="?",
        body=body,
        damage=what,
    )


def read_letter(found: Mapping[str, Any], body: bytes) -> DeadLetter:
    """Return a letter as an earlier, this, or a later version wrote it; never raises.

    Args:
        found: What was written, by name.
        body: The row.
    """
    try:
        return DeadLetter(
            inference_id=str(found["inference_id"]),
            model_id=str(found["model_id"]),
            kind=RowKind(found["kind"]),
            reason=str(found["reason"]),
            status=None if found["status"] is None else int(found["status"]),
            attempts=int(found["attempts"]),
            rejected_at=_moment(str(found["rejected_at"])),
            destination=str(found["destination"]),
            body=body,
        )
    except (KeyError, TypeError, ValueError) as error:
        letter = damaged(f"{type(error).__name__} in what was written", body)
        texts = {
            name: found[name]
            for name in ("inference_id", "model_id", "destination", "reason")
            if isinstance(found.get(name), str)
        }
        return replace(letter, **texts)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


_Entry = tuple[DeadLetter, object]

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
        self._unwritten: dict[Keeper, list[_Entry]] = {keeper: [] for keeper in keepers}
        self._once = LogOnce()
        self.evicted = 0

    def add(self, letter: DeadLetter, of: object | None = None) -> None:
        """Take a letter. Never raises.

        Args:
            letter: The letter.
            of: What `commit` returns once it is safe.
        """
        self.added[self._reasons.bound(letter.reason)] += 1
        for entries in self._unwritten.values():
            entries.append((letter, of))
        if self._told is not None:
            try:
                self._told(letter)
            except BaseException as error:  # noqa: BLE001 - the application's; it may exit, we not
                if self._once.is_first("on_dead_letter"):
                    # Without its text, which might quote the letter.
                    logger.warning("arthur-relay: on_dead_letter raised %s", type(error).__name__)

    def commit(self) -> list[object]:
        """Have everything kept. Never raises; what can't be written waits, as far as it may.

        Returns:
            What the letters are of that are safe from now on, those that say so: the first keeper
            has them.
        """
        safe: list[object] = []
        for keeper, entries in self._unwritten.items():
            if not entries:
                continue
            is_read = keeper is self._keepers[0]
            try:
                gone = keeper.add([letter for letter, _ in entries])
            except Exception as error:  # noqa: BLE001 - a full disk must not cost the worker
                lost = _cut(entries, UNWRITTEN_BYTES)
                self.evicted += lost if is_read else 0
                if self._once.is_first("unwritten"):
                    logger.warning("arthur-relay: dead letters can't be written (%s)", _why(error))
            else:
                if keeper is self._keepers[0]:
                    safe += [of for _, of in entries if of is not None]
                entries.clear()
                self._once.reset("unwritten")
                self._count_evicted(gone if is_read else 0)
        return safe

    def _count_evicted(self, letters: int) -> None:
        self.evicted += letters
        if letters and self._once.is_first("evicted"):
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


def _why(error: Exception) -> str:
    """Return what a file or a database says of an error; of another one its type alone.

    That one's text might quote the letter.
    """
    is_of_the_disk = isinstance(error, OSError) or type(error).__module__ == "sqlite3"
    return str(error) if is_of_the_disk else type(error).__name__


def _cut(entries: list[_Entry], most_bytes: int) -> int:
    """Forget the oldest until the others take no more than so many bytes; returns how many.

    Where there is a spool, their rows stay in it, and are sent again by a later process.
    """
    size = sum([letter.size for letter, _ in entries])
    gone = 0
    while size > most_bytes:
        size -= entries[gone][0].size
        gone += 1
    del entries[:gone]
    return gone
