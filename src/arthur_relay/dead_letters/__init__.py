"""Dead letters: rows that Arthur rejected, kept with the reason so that they can be sent again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from arthur_relay.accounting import BoundedReasons
from arthur_relay.encoding.product import product_of_row
from arthur_relay.row import RowKind
from arthur_relay.sentences import named
from arthur_relay.system.log_once import LogOnce
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.dead_letters")

LETTER_TEXTS = 200
"""So many characters of its ids and of Arthur's words are part of the overhead."""

LETTER_OVERHEAD_BYTES = 600
"""About what a letter costs in memory beside its row: the objects around it."""

DAMAGED = "damaged letter"
"""The reason of a letter whose own reason can't be read."""

UNWRITTEN_BYTES = 1024 * 1024
"""The most bytes of letters that wait in memory while they can't be written."""


def letter_bytes(body: int, texts: int) -> int:
    """Return the bytes that a letter counts for.

    Args:
        body: The bytes of its row.
        texts: The characters of its ids and of Arthur's words together.
    """
    return body + LETTER_OVERHEAD_BYTES + max(0, texts - LETTER_TEXTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A row that Arthur rejected, or that could not be delivered in time.

    Attributes:
        inference_id: The inference's id.
        model_id: The model's id.
        kind: Whether it is the inference itself or its ground truth.
        reason: Why it was rejected, in a few words that quote no text of the row.
        said: What Arthur said of it; "" where it said nothing, or what may quote the row.
        status: The HTTP status of the row or the request, or None when there was no answer.
        attempts: The number of attempts to send it.
        rejected_at: When it was rejected, timezone-aware.
        destination: The address that it was sent to.
        body: The row as it was sent, or would have been sent, redacted: JSON in UTF-8, or for a
            span an `ExportTraceServiceRequest` of OpenTelemetry. Empty if it could not be encoded.
        damage: What was wrong with the stored letter when it was read; usually empty.
    """

    inference_id: str
    model_id: str
    kind: RowKind
    reason: str
    status: int | None
    attempts: int
    rejected_at: datetime
    destination: str
    body: bytes = field(repr=False)  # it has prompts
    damage: str = ""
    said: str = ""

    @property
    def full_reason(self) -> str:
        """The reason, with what Arthur said of it."""
        return f"{self.reason}: {self.said}" if self.said else self.reason

    @property
    def size(self) -> int:
        """The bytes that it counts for."""
        texts = len(self.inference_id) + len(self.model_id) + len(self.said)
        return letter_bytes(len(self.body), texts)

    def within(self, max_bytes: int) -> DeadLetter:
        """Return this letter, without its row if it would take more than all letters may."""
        return self if self.size <= max_bytes else replace(self, body=b"", damage="too large")

    @property
    def can_be_sent(self) -> bool:
        """Whether the letter has a row that Arthur could read."""
        return not self.damage and product_of_row(self.body) is not None


def identity(letter: DeadLetter) -> tuple[object, ...]:
    """Return what identifies a letter, the same for all copies of it."""
    return letter.inference_id, letter.model_id, letter.kind, letter.reason, letter.rejected_at


def damaged(what: str, body: bytes) -> DeadLetter:
    """Return a letter that stands for one that can't be read."""
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
    """Return a letter that any version of this package wrote. Never raises.

    Args:
        found: The stored fields, by name.
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
            said=str(found.get("said") or ""),  # letters of earlier versions have none
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

LetterKey = int
"""Identifies a letter as long as its store keeps it."""


class KeptLetters(Protocol):
    """Letters that are kept somewhere. Any thread."""

    def letters(self) -> Iterator[tuple[LetterKey, DeadLetter]]:
        """Yield the letters, oldest first.

        Raises:
            OSError: They can't be read or written.
            sqlite3.Error: The same.
        """
        ...

    def count(self) -> Mapping[str, int]:
        """Return how many letters are kept, by reason; raises what `letters` does."""
        ...

    def remove(self, keys: Collection[LetterKey]) -> int:
        """Remove letters; returns how many were still there. Raises what `letters` does."""
        ...


class DeadLetterStore(KeptLetters, Protocol):
    """Keeps letters up to a size, and evicts the oldest. Any thread."""

    def add(self, letters: Sequence[DeadLetter]) -> int:
        """Keep letters; returns how many older ones were evicted and are lost.

        Raises what `letters` does.
        """
        ...


class LetterWriter(Protocol):
    """Makes letters safe, at once or in the background. Worker's thread, but for what is said."""

    @property
    def evicted(self) -> int:
        """The number of letters that are lost, for want of room. Any thread."""
        ...

    def add(self, letter: DeadLetter, of: object | None) -> None:
        """Add a letter. Never raises.

        Args:
            letter: The letter.
            of: Returned by `commit` once the letter is safe.
        """
        ...

    def commit(self) -> list[object]:
        """Return the `of` of each letter that has become safe, if one was given. Never raises."""
        ...

    def count(self) -> Mapping[str, int] | None:
        """Return how many letters are kept, by reason; None while it is not known. Any thread.

        Raises:
            OSError: They can't be read.
            sqlite3.Error: The same.
        """
        ...


class StoreWriter:
    """Writes letters to a store. See `LetterWriter` for each method.

    Args:
        store: The store.
        logs_evictions: Whether it matters to people what the store evicts.

    Attributes:
        evicted: As the protocol says.
    """

    def __init__(self, store: DeadLetterStore, *, logs_evictions: bool) -> None:
        self._store = store
        self._logs_evictions = logs_evictions
        self._unwritten: list[_Entry] = []
        self._once = LogOnce()
        self.evicted = 0

    def add(self, letter: DeadLetter, of: object | None) -> None:
        """Add a letter; `commit` writes it."""
        self._unwritten.append((letter, of))

    def commit(self) -> list[object]:
        """Write all added letters; those that can't be written wait, up to `UNWRITTEN_BYTES`."""
        entries = self._unwritten
        if not entries:
            return []
        try:
            evicted = self._store.add([letter for letter, _ in entries])
        except Exception as error:  # noqa: BLE001 - a full disk must not cost the worker
            self.evicted += _cut(entries, UNWRITTEN_BYTES)
            place = f"{named('spool_dir')} or {named('dead_letter_file')}"
            log_unwritten(self._once, f"{_why(error)}; {place} says where they are kept")
            return []
        safe = [of for _, of in entries if of is not None]
        entries.clear()
        self._once.reset("unwritten")
        self.evicted += evicted
        if evicted and self._logs_evictions:
            log_evicted(self._once)
        return safe

    def count(self) -> Mapping[str, int]:
        """Return how many letters the store keeps, by reason."""
        return self._store.count()


class DeadLetters:
    """Collects letters, and has them made safe once per turn of the worker.

    `letters` and `count` are for any thread, everything else for the worker's.

    Args:
        stores: Where letters are kept; `letters` reads the first one.
        first: Makes letters safe before any store does; its word counts then.
        on_dead_letter: Called with each letter, on the worker's thread.

    Attributes:
        added: The number of added letters, by reason; `BoundedReasons` bounds the reasons.
    """

    def __init__(
        self,
        stores: Sequence[DeadLetterStore],
        *,
        first: LetterWriter | None = None,
        on_dead_letter: Callable[[DeadLetter], object] | None = None,
    ) -> None:
        self._stores = tuple(stores)
        self._writers: list[LetterWriter] = [] if first is None else [first]
        for store in stores:
            self._writers.append(StoreWriter(store, logs_evictions=not self._writers))
        self._on_dead_letter = on_dead_letter
        self.added: Counter[str] = Counter()
        self._reasons = BoundedReasons()
        self._once = LogOnce()

    @property
    def evicted(self) -> int:
        """The number of letters that are lost, because where they are kept first was full."""
        return self._writers[0].evicted if self._writers else 0

    def add(self, letter: DeadLetter, of: object | None = None) -> None:
        """Add a letter; `commit` has it written. Never raises.

        Args:
            letter: The letter.
            of: Returned by `commit` once the letter is safe.
        """
        self.added[self._reasons.bound(letter.reason)] += 1
        for writer in self._writers:
            writer.add(letter, of)
        if self._on_dead_letter is not None:
            try:
                self._on_dead_letter(letter)
            except BaseException as error:  # noqa: BLE001 - the application's; even its SystemExit must not end the worker
                if self._once.is_first("on_dead_letter"):
                    # Without the error's text, which might quote the letter.
                    logger.warning("arthur-relay: on_dead_letter raised %s", type(error).__name__)

    def commit(self) -> list[object]:
        """Have all added letters written. Never raises.

        Returns:
            The `of` of each letter that has become safe where it is kept first, and where one was
            given.
        """
        found = [writer.commit() for writer in self._writers]
        return found[0] if found else []

    def letters(self) -> list[DeadLetter]:
        """Return the letters of the first store, oldest first.

        Raises:
            OSError: It can't be read.
            sqlite3.Error: The same.
        """
        return [letter for _, letter in self._stores[0].letters()] if self._stores else []

    def count(self) -> Mapping[str, int] | None:
        """Return how many letters are kept, by reason; None while it is not known.

        Raises what `letters` does.
        """
        return self._writers[0].count() if self._writers else {}


def log_unwritten(once: LogOnce, why: str) -> None:
    """Log the first time in a row that letters can't be written; a success resets `unwritten`."""
    if once.is_first("unwritten"):
        logger.warning("arthur-relay: dead letters can't be written (%s)", why)


def log_evicted(once: LogOnce) -> None:
    """Log the first time that letters are lost for want of room."""
    if once.is_first("evicted"):
        logger.warning(
            "arthur-relay: there is no room for more dead letters, the oldest are lost: replay"
            " or purge them, or raise %s",
            named("dead_letter_bytes"),
        )


def _why(error: Exception) -> str:
    """Return the text of a file's or database's error, and only the type of any other one.

    The text of another error might quote the letter.
    """
    is_of_the_disk = isinstance(error, OSError) or type(error).__module__ == "sqlite3"
    return str(error) if is_of_the_disk else type(error).__name__


def _cut(entries: list[_Entry], most_bytes: int) -> int:
    """Forget the oldest letters until the others fit; returns how many.

    With a spool, their rows stay in it, and a later process sends them again.
    """
    size = sum([letter.size for letter, _ in entries])
    forgotten = 0
    while size > most_bytes:
        size -= entries[forgotten][0].size
        forgotten += 1
    del entries[:forgotten]
    return forgotten
