"""The buffer on disk: a committed row is safe, and only rows that are being sent are in memory.

`commit` does all the writing, once a turn of the worker: new, acked and updated rows go into one
transaction. Until then they are in memory too. So a full disk loses nothing that fits into memory,
and delivery goes on.

`Spool` joins the parts: `segments` has the open files, `storage` reads, writes and rebuilds them,
`rows_in_memory` has new and leased rows, `reading_order` decides which rows are leased next, and
`row_counts` and `disk_state` keep what the others have found.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from arthur_relay.buffers import (
    ANY_BYTES,
    Buffer,
    DamagedFiles,
    Loss,
    Recover,
    count_nothing,
    inferences_among,
)
from arthur_relay.buffers.spool.directory import SpoolDirectory
from arthur_relay.buffers.spool.disk_state import DiskState
from arthur_relay.buffers.spool.reading_order import PlacedRows, ReadingOrder
from arthur_relay.buffers.spool.row_counts import RowCounts
from arthur_relay.buffers.spool.rows_in_memory import RowsInMemory
from arthur_relay.buffers.spool.schemas import SpoolSchemas
from arthur_relay.buffers.spool.segment import ROW_OVERHEAD_BYTES, Opening, Place, Segment
from arthur_relay.buffers.spool.segments import Segments
from arthur_relay.buffers.spool.sqlite_file import LOG_BYTES
from arthur_relay.buffers.spool.storage import Storage
from arthur_relay.encoding.product import Product, RowWords
from arthur_relay.row import Row, RowOwner
from arthur_relay.settings import Durability, RelaySettings
from arthur_relay.system.clocks import Clock, SystemClock

UNWRITTEN_BYTES = 8 * 1024 * 1024
"""The most bytes of rows, overhead included, that wait in memory while the disk fails."""

LOG_SHARE = 16
"""A small spool writes its log back when the log takes one part in this many of `max_bytes`."""

NOBODY = RowOwner("")
"""The owner of a spool that was given none."""


def nobody() -> RowOwner:
    """Return the owner of rows whose owner is not known."""
    return NOBODY


class Spool:
    """Rows in the files of a directory. See the protocols of `buffers` for each method.

    Args:
        directory: Creates the directory and hands out its files.
        max_bytes: The most bytes that the files and their logs may take.
        power_safe: Whether each commit is forced to the disk.
        clock: Measures durations, and gives the time for the names of damaged files.
        owner: Returns who sends the rows, as far as is known.
        words: What the log calls rows.
    """

    is_durable = True
    keeper = "the spool"
    closing_seconds = 0.0

    def __init__(
        self,
        directory: SpoolDirectory,
        *,
        max_bytes: int,
        power_safe: bool,
        clock: Clock,
        owner: Callable[[], RowOwner] = nobody,
        words: RowWords = Product.SCOPE.words,
    ) -> None:
        self._max_bytes = max_bytes
        self._opening = Opening(
            owner,
            power_safe,
            clock,
            log_bytes=min(LOG_BYTES, max_bytes // LOG_SHARE),
            aside_bytes=max_bytes,
            words=words,
        )
        self._segments = Segments(directory, self._opening)
        self._memory = RowsInMemory(self._segments)
        self._counts = RowCounts()
        self._disk = DiskState(clock, words)
        self._storage = Storage(self._segments, self._memory, counts=self._counts, disk=self._disk)
        self._order = ReadingOrder(self._storage, self._memory, self._disk)
        self.schemas = SpoolSchemas(self._segments, self._storage)

    @classmethod
    def of(
        cls,
        directory: Path,
        settings: RelaySettings,
        owner: Callable[[], RowOwner],
        words: RowWords,
    ) -> "Spool":
        """Return the spool of a directory, with the size and the durability of the settings."""
        return cls(
            SpoolDirectory(directory),
            max_bytes=settings.spool_bytes,
            power_safe=settings.durability is Durability.POWER,
            clock=SystemClock(),
            owner=owner,
            words=words,
        )

    def as_buffer(self) -> Buffer:
        """Return its interfaces."""
        return Buffer(
            leases=self,
            deferred=self,
            intake=self,
            durable=self,
            journal=self,
            status=self,
            schemas=self.schemas,
        )

    @property
    def rows(self) -> int:
        """The number of rows held, leased ones included."""
        return self._counts.rows

    @property
    def size(self) -> int:
        """The bytes held. 0 when no row is held, unless another process keeps the log long."""
        is_taken = self.rows or any(segment.file.is_read_elsewhere for segment in self._segments)
        return self._held_bytes() if is_taken else 0

    @property
    def waiting(self) -> int:
        """The number of rows that can be leased."""
        return self._counts.rows - len(self._memory.leased)

    @property
    def kept(self) -> int:
        """The number of rows that outlive the process; never too high, even during a commit."""
        return self._segments.kept

    @property
    def oldest_at(self) -> float | None:
        """When the oldest row on disk was stored, in seconds since 1970, or None. Any thread."""
        return self._segments.oldest_at

    @property
    def trouble(self) -> str | None:
        """Why rows cannot be kept now, as a clause, or None when they can. Any thread."""
        return self._segments.trouble() or self._disk.failure or None

    @property
    def left_alone(self) -> int:
        """The number of rows in the directory that are, or may be, for others. Any thread."""
        return self._segments.left_alone

    @property
    def asks_for_owner(self) -> bool:
        """Whether files were left alone that may be ours. Any thread."""
        return self._segments.asks_for_owner

    @property
    def damaged_files(self) -> DamagedFiles:
        """The damaged files that were found. Any thread."""
        counts = self._opening.damaged
        return DamagedFiles(counts["set_aside"], counts["removed"])

    def open(self, recover: Recover = count_nothing) -> int:
        """Claim a file of our own and all abandoned ones; returns the number of rows in them.

        Raises:
            ConfigurationError: A file cannot be opened, or a later version wrote it.
        """
        if self._segments:
            return 0
        self._counts.recover = recover
        own = self._segments.open_own(recover)
        self._memory.start_after(own.file.last_seq)
        self._order.start(own)
        self._counts.add_recovered(own.file.rows, lost=own.lost)
        return own.file.rows + self.adopt(recover)

    def adopt(self, recover: Recover = count_nothing) -> int:
        """Now and then, take over the files that dead processes have left.

        Returns:
            The number of rows in them.
        """
        found = 0
        for segment in self._segments.adopt(recover):
            # Counted before anything else is read from it, which may show that it is damaged.
            self._counts.add_recovered(segment.file.rows, lost=segment.lost)
            for model_id, text in self.schemas.texts().items():
                self.schemas.keep(model_id, text)  # this file may be deleted before ours
            if segment.file.rows:
                self._order.add_backlog(segment)
                found += segment.file.rows
            else:
                self._close(segment, keep=False)
        return found

    def has_room(self, *, rows: int, size: int) -> bool:
        """Return whether that many more rows fit in: into memory while the disk fails."""
        if self.rows == 0 and rows <= 1 and not any(segment.retained for segment in self._segments):
            return True
        more = size + rows * ROW_OVERHEAD_BYTES
        if self._disk.is_failing:
            return self._memory.unwritten_bytes + more <= UNWRITTEN_BYTES
        return self._held_bytes() + self._segments.logs_may_grow + more <= self._max_bytes

    def put(self, rows: Sequence[Row]) -> None:
        """Hold rows; the next commit that succeeds makes them safe."""
        self._memory.add(rows)
        self._counts.add(rows)

    def store(self, rows: Sequence[Row]) -> bool:
        """Write rows at once. Rows that cannot be written are not held."""
        memory = self._memory
        if memory.unwritten or self._disk.is_failing:
            self.commit()
        if memory.unwritten or self._disk.failed_lately():
            return False
        if not self._storage.write(self._segments.own, list(enumerate(rows, memory.next_seq))):
            return False
        memory.next_seq += len(rows)
        self._counts.add(rows)
        return True

    def commit(self) -> None:
        """Write all changes. Those that cannot be written wait in memory for the next commit."""
        if self._disk.failed_lately() or not self._storage.check():
            return
        for segment in list(self._segments):
            if not self._storage.has_changes(segment):
                continue
            if not self._storage.write_changes(segment):
                return
            if not segment.file.rows and segment is not self._segments.own:
                self._close(segment, keep=False)
        self._disk.clear()

    @property
    def is_looking(self) -> bool:
        """Whether the last lease ended before it had looked at all waiting rows."""
        return self._order.is_looking

    @property
    def has_fresh(self) -> bool:
        """Whether any row of this process has not been leased yet."""
        return self._order.has_fresh

    def lease(
        self,
        limit: int,
        but: AbstractSet[str] = frozenset(),
        *,
        most_bytes: int = ANY_BYTES,
    ) -> list[Row]:
        """Lease up to `limit` waiting rows."""
        if self._storage.has_foreign_owner():
            self._order.is_looking = False
            return []
        leased = self._lend(self._order.take(limit, but, most_bytes))
        is_short = self._order.has_read_all and self.waiting > self._order.apart
        if is_short and not self._disk.is_failing:
            for segment in self._segments:
                self._storage.count_removed(segment, apart=self._order.apart_in(segment))
        return leased

    def lease_of(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease up to `limit` waiting rows of one model."""
        if self._storage.has_foreign_owner():
            return []
        return self._lend(self._order.take_of(model_id, limit, most_bytes))

    def lease_backlog(self, limit: int, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease up to `limit` rows that an earlier process left."""
        if self._storage.has_foreign_owner():
            return []
        return self._lend(self._order.take_backlog(limit, most_bytes))

    def lease_put_off(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease up to `limit` rows of one model that were put off."""
        if self._storage.has_foreign_owner():
            return []
        return self._lend(self._order.take_put_off(model_id, limit, most_bytes))

    def put_off(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait until `lease_put_off` asks for them."""
        for row in rows:
            place = self._memory.leased.pop(row, None)
            if place is not None:
                self._order.put_off(row, place)

    def has_put_off(self, model_id: str) -> bool:
        """Return whether rows of a model are put off."""
        return self._order.has_put_off(model_id)

    def release(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait again, after those of their model that were sent as often."""
        for row in rows:
            place = self._memory.leased.pop(row, None)
            if place is not None:
                self._order.pass_over(row, place)

    def release_all(self) -> None:
        """Make every leased row wait again, before all others."""
        self._memory.requeue_leased()
        self._order.end_put_off()

    def on_their_way(
        self, inferences: AbstractSet[tuple[str, str]]
    ) -> AbstractSet[tuple[str, str]]:
        """Return which of some inferences are leased themselves."""
        return inferences_among(self._memory.leased, inferences)

    def settle(self, rows: Iterable[Row]) -> None:
        """Forget leased rows."""
        for row in rows:
            place = self._memory.leased.pop(row, None)
            if place is not None:
                self._forget(row, place)

    def replace(self, old: Row, new: Row) -> None:
        """Put a smaller form of a leased row in its place."""
        self._memory.replace(old, new)

    def evict(self) -> Row | None:
        """Forget the oldest waiting row and return it."""
        for row, place in self._order.take_oldest():
            self._forget(row, place)
            return row
        return None

    def note(self, rows: Iterable[Row], *, at_once: bool = False) -> None:
        """Keep the histories of leased rows. Never raises because of a disk."""
        with_unwritten = False
        for row in rows:
            place = self._memory.leased.get(row)
            if place is None:
                continue
            segment, seq = place
            if self._memory.is_unwritten(segment, seq):
                with_unwritten = True  # it is written with the history that it has then
            else:
                segment.noted[seq] = row.history
        if at_once:
            self._storage.write_histories(with_unwritten=with_unwritten)

    def retain(self, row: Row) -> object | None:
        """Settle a leased row, but keep it on disk until its dead letter is safe."""
        segment, seq = place = self._memory.leased.get(row, (None, 0))
        if segment is None or self._memory.is_unwritten(segment, seq):
            return None
        del self._memory.leased[row]
        self._counts.remove(row)
        segment.retained[seq] = row.model_id
        return place

    def let_go(self, retained: Iterable[object]) -> None:
        """Forget retained rows with the next commit."""
        for found in retained:
            match found:
                case (Segment() as segment, int(seq)):
                    segment.let_go(seq)

    def lost(self) -> Loss:
        """Return the rows lost since the last call."""
        return self._counts.take_loss()

    def rows_by_model(self) -> Counter[str]:
        """Return the number of rows held, by model. Reads all files."""
        found = self._memory.unwritten_by_model()
        for segment in self._segments:
            found.update(segment.rows_by_model())
            found.subtract([*segment.acked.values(), *segment.retained.values()])
        return found

    def close(self, out_of_time: Callable[[], bool] = bool) -> int:  # noqa: ARG002 - it is soon done
        """Write what can be written and release the files; returns how many rows they keep."""
        self._storage.allow_attempt()
        self.commit()
        kept = self.kept
        knows_models = bool(self.schemas.texts())  # those of the others are in our own as well
        for number, segment in enumerate(list(self._segments)):
            self._close(segment, keep=segment.file.rows > 0 or (number == 0 and knows_models))
        return kept

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent."""
        for segment in self._segments:
            segment.claim.release()

    def _lend(self, taken: PlacedRows) -> list[Row]:
        self._memory.leased.update(taken)
        return [row for row, _ in taken]

    def _forget(self, row: Row, place: Place) -> None:
        segment, seq = place
        self._counts.remove(row)
        if self._memory.is_unwritten(segment, seq):
            self._memory.forget_unwritten(seq)
        else:
            segment.forget(row, seq)

    def _close(self, segment: Segment, *, keep: bool) -> None:
        self._segments.remove(segment)
        self._order.remove_backlog(segment)
        segment.close(keep=keep)

    def _held_bytes(self) -> int:
        return self._segments.size + self._memory.unwritten_bytes
