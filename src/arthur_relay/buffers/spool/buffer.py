"""The buffer on disk: a committed row is safe, and only rows that are being sent are in memory.

`commit` does all the writing, once a turn of the worker: new, acked and updated rows go into one
transaction. Until then they are in memory too. So a full disk loses nothing that fits into memory,
and delivery goes on.
"""

import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from arthur_relay.buffers import (
    ANY_BYTES,
    Buffer,
    DamagedFiles,
    Loss,
    Recover,
    attempts_rank,
    count_nothing,
    inferences_among,
)
from arthur_relay.buffers.spool.directory import SpoolDirectory
from arthur_relay.buffers.spool.file_format import ForeignSpoolError, NotASpoolError, is_damage
from arthur_relay.buffers.spool.passed_over import PassedOver, Place
from arthur_relay.buffers.spool.schemas import SpoolSchemas
from arthur_relay.buffers.spool.segment import (
    ROW_OVERHEAD_BYTES,
    Opening,
    Segment,
    bytes_of,
    log_missing,
)
from arthur_relay.buffers.spool.segments import Cursor, Segments
from arthur_relay.buffers.spool.sqlite_file import LOG_BYTES
from arthur_relay.errors import ConfigurationError
from arthur_relay.row import RECOVERED, Row, RowOwner, body_bytes
from arthur_relay.system.clocks import Clock
from arthur_relay.system.log_once import LogOnce
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.spool")

UNWRITTEN_BYTES = 8 * 1024 * 1024
"""The most bytes of rows, overhead included, that wait in memory while the disk fails."""

RETRY_SECONDS = 1.0
"""The time between attempts to write while the disk is full or fails."""

ADOPT_SECONDS = 30.0
"""How often a process looks for files that dead processes have left."""

LOG_SHARE = 16
"""A small spool writes its log back when the log takes one part in this many of `max_bytes`."""

NOBODY = RowOwner("")
"""The owner of a spool that was given none."""

LOOK_ROWS = 5000
LOOK_BYTES = 64 * 1024 * 1024
"""The most rows that one lease reads while it passes over those of some models."""

READ_ROWS = 500
READ_BYTES = 2 * 1024 * 1024
"""About how many of those are in memory at a time."""

_FAILURES = (ConfigurationError, ForeignSpoolError, NotASpoolError, OSError, sqlite3.Error)


def nobody() -> RowOwner:
    """Return the owner of rows of which nobody says whose they are."""
    return NOBODY


class Spool:
    """Rows in the files of a directory. See the protocols of `buffers` for each method.

    A lease takes half of its rows from those that earlier processes left, oldest first, and the
    other half from new ones, so that neither half waits for the other.

    Args:
        directory: Makes the directory and hands out its files.
        max_bytes: The most bytes that the files and their logs may take.
        power_safe: Whether each commit is forced to the disk.
        clock: Tells durations, and the time for the names of damaged files.
        owner: Returns who sends the rows, as far as is known.
    """

    is_durable = True
    closing_seconds = 0.0

    def __init__(
        self,
        directory: SpoolDirectory,
        *,
        max_bytes: int,
        power_safe: bool,
        clock: Clock,
        owner: Callable[[], RowOwner] = nobody,
    ) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._opening = Opening(
            owner,
            power_safe,
            clock,
            log_bytes=min(LOG_BYTES, max_bytes // LOG_SHARE),
            aside_bytes=max_bytes,
        )
        self._clock = clock
        self._segments = Segments()  # the first one is written to
        self.schemas = SpoolSchemas(self._segments, self)
        self._backlog: deque[Cursor] = deque()
        self._fresh: Cursor | None = None
        self._favours_fresh = False
        self._unwritten: dict[int, Row] = {}
        self._unwritten_bytes = 0
        self._next_seq = 1
        self._leased: dict[Row, Place] = {}
        self._requeued: deque[tuple[Row, Place]] = deque()
        self._passed_over_rows = PassedOver()
        self._put_off = PassedOver()
        self._is_looking = False
        self._rows = 0
        self._epochs: Counter[int] = Counter()  # of what is held
        self._first_seq = 1  # of this process, in the file that is written to
        self._loss = Loss()
        self._recover: Recover = count_nothing
        self._failed_at: float | None = None
        self._failure = ""
        self._once = LogOnce()
        self._left_alone: dict[Path, int] = {}
        self.asks_for_owner = False
        self._adopted_at = self._looked_at = float("-inf")

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
        return self._rows

    @property
    def size(self) -> int:
        """The bytes held. 0 when no row is held, unless another process keeps the log long."""
        is_taken = self._rows or any(segment.file.is_read_elsewhere for segment in self._segments)
        return self._held_bytes() if is_taken else 0

    @property
    def waiting(self) -> int:
        """The number of rows that can be leased."""
        return self._rows - len(self._leased)

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
        return self._segments.trouble() or self._failure or None

    def open(self, recover: Recover = count_nothing) -> int:
        """Claim a file of our own and all abandoned ones; returns the number of rows in them.

        Raises:
            ConfigurationError: A file cannot be opened, or a later version wrote it.
        """
        if self._segments:
            return 0
        self._recover = recover
        own = self._enter_first(recover)
        self._next_seq = self._first_seq = own.file.last_seq + 1
        self._backlog.append(Cursor(own, 0, own.file.last_seq, RECOVERED))
        self._fresh = Cursor(own, own.file.last_seq)
        self._hold(own)
        return own.file.rows + self.adopt(recover)

    def adopt(self, recover: Recover = count_nothing) -> int:
        """Now and then, take over the files that dead processes have left.

        Returns:
            The number of rows in them.
        """
        if not self._segments or self._clock.monotonic() < self._adopted_at + ADOPT_SECONDS:
            return 0
        self._adopted_at = self._clock.monotonic()
        self._left_alone = {}
        found = 0
        for claim in self._directory.orphans({segment.claim.path for segment in self._segments}):
            try:
                segment = self._segments.enter(claim, recover, self._opening)
            except ForeignSpoolError as error:
                self._log_foreign(claim.path, error)
                continue
            except ConfigurationError as error:
                logger.debug("a spool was left alone: %s", error)  # its own process will say so
                continue
            self._hold(segment)  # before damage may be found in it
            for model_id, text in self.schemas.texts().items():
                self.schemas.keep(model_id, text)  # this file may be gone before ours
            if segment.file.rows:
                self._backlog.append(Cursor(segment, 0, segment.file.last_seq, RECOVERED))
                found += segment.file.rows
            else:
                self._leave(segment, keep=False)
        return found

    def has_room(self, *, rows: int, size: int) -> bool:
        """Return whether that many more rows fit in: into memory while the disk fails."""
        if (
            self._rows == 0
            and rows <= 1
            and not any(segment.retained for segment in self._segments)
        ):
            return True
        more = size + rows * ROW_OVERHEAD_BYTES
        if self._failed_at is not None:
            return self._unwritten_bytes + more <= UNWRITTEN_BYTES
        return self._held_bytes() + self._segments.logs_may_grow + more <= self._max_bytes

    def put(self, rows: Sequence[Row]) -> None:
        """Hold rows; the next commit that succeeds makes them safe."""
        for row in rows:
            self._unwritten[self._next_seq] = row
            self._unwritten_bytes += bytes_of(row)
            self._next_seq += 1
            self._epochs[row.epoch] += 1
        self._rows += len(rows)

    def store(self, rows: Sequence[Row]) -> bool:
        """Write rows at once. Rows that cannot be written are not held."""
        if self._unwritten or self._failed_at is not None:
            self.commit()
        if self._unwritten or self._failed_lately():
            return False
        if not self._write(self._segments[0], list(enumerate(rows, self._next_seq))):
            return False
        self._next_seq += len(rows)
        self._rows += len(rows)
        for row in rows:
            self._epochs[row.epoch] += 1
        return True

    def commit(self) -> None:
        """Write all changes. Those that cannot be written wait in memory for the next commit."""
        if self._failed_lately() or not self._look():
            return
        for segment in list(self._segments):
            fresh = list(self._unwritten.items()) if segment is self._segments[0] else []
            if not (fresh or segment.is_to_be_written):
                continue
            if not self._write(segment, fresh):
                return
            if fresh:
                self._all_written()
            if not segment.file.rows and segment is not self._segments[0]:
                self._leave(segment, keep=False)
        self._failed_at, self._failure = None, ""

    @property
    def is_looking(self) -> bool:
        """Whether the last lease ended before it had looked at all waiting rows."""
        return self._is_looking

    def lease(
        self,
        limit: int,
        but: AbstractSet[str] = frozenset(),
        *,
        most_bytes: int = ANY_BYTES,
    ) -> list[Row]:
        """Lease up to `limit` waiting rows."""
        self._is_looking = False
        if self._is_estranged():
            return []
        taken: list[tuple[Row, Place]] = []
        left, looked_at = most_bytes, 0
        for model_id in self._passed_over_rows.models(but):
            some = self._read_apart(self._passed_over_rows, model_id, limit - len(taken), left)
            left -= _body_bytes(some)
            taken += some
            if left <= 0 or len(taken) >= limit:
                break
        while left > 0 and (found := self._read_next(limit - len(taken), left)):
            looked_at += len(found)
            some = self._pass_over(found, but) if but else found
            left -= _body_bytes(some)
            taken += some
            if looked_at >= LOOK_ROWS and len(taken) < limit:
                self._is_looking = True
                break
        self._leased.update(taken)
        is_all = left > 0 and len(taken) < limit and not self._is_looking
        if is_all and self.waiting > self._passed_over and self._failed_at is None:
            self._lose_removed()
        return [row for row, _ in taken]

    def lease_of(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease up to `limit` waiting rows of one model."""
        if self._is_estranged():
            return []
        taken = self._read_apart(self._passed_over_rows, model_id, limit, most_bytes)
        left = 0 if taken else most_bytes
        rows_left, bytes_left = LOOK_ROWS, LOOK_BYTES
        while left > 0 and len(taken) < limit and rows_left > 0 and bytes_left > 0:
            found = self._read_next(min(rows_left, READ_ROWS), READ_BYTES)
            if not found:
                break
            rows_left -= len(found)
            bytes_left -= _body_bytes(found)
            for row, place in found:
                if row.model_id == model_id and len(taken) < limit and left > 0:
                    taken.append((row, place))
                    left -= len(row.body)
                else:
                    self._set_apart(self._passed_over_rows, row, place)
        self._leased.update(taken)
        return [row for row, _ in taken]

    def put_off(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait until `lease_put_off` asks for them."""
        for row in rows:
            place = self._leased.pop(row, None)
            if place is not None:
                self._set_apart(self._put_off, row, place)

    def has_put_off(self, model_id: str) -> bool:
        """Return whether rows of a model are put off."""
        return self._put_off.has(model_id)

    def lease_put_off(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease up to `limit` rows of one model that were put off."""
        if self._is_estranged():
            return []
        taken = self._read_apart(self._put_off, model_id, limit, most_bytes)
        self._leased.update(taken)
        return [row for row, _ in taken]

    def release(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait again, after those of their model that were sent as often."""
        for row in rows:
            place = self._leased.pop(row, None)
            if place is not None:
                self._set_apart(self._passed_over_rows, row, place)

    def on_their_way(
        self, inferences: AbstractSet[tuple[str, str]]
    ) -> AbstractSet[tuple[str, str]]:
        """Return which of some inferences are leased themselves."""
        return inferences_among(self._leased, inferences)

    def lease_backlog(self, limit: int, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease up to `limit` rows that an earlier process left."""
        taken = [] if self._is_estranged() else self._read_backlog(limit, most_bytes)
        self._leased.update(taken)
        return [row for row, _ in taken]

    @property
    def has_fresh(self) -> bool:
        """Whether any row of this process has not been leased yet."""
        return self._fresh is not None and self._fresh.after < self._next_seq - 1

    def settle(self, rows: Iterable[Row]) -> None:
        """Forget leased rows."""
        for row in rows:
            place = self._leased.pop(row, None)
            if place is not None:
                self._forget(row, place)

    def replace(self, old: Row, new: Row) -> None:
        """Put a smaller form of a leased row in its place."""
        segment, seq = self._leased[new] = self._leased.pop(old)
        if self._is_unwritten(segment, seq):
            self._unwritten[seq] = new
            self._unwritten_bytes += bytes_of(new) - bytes_of(old)
        else:
            segment.updated[seq] = new

    def note(self, rows: Iterable[Row], *, at_once: bool = False) -> None:
        """Keep the histories of leased rows. Never raises because of a disk."""
        with_unwritten = False
        for row in rows:
            place = self._leased.get(row)
            if place is None:
                continue
            segment, seq = place
            if self._is_unwritten(segment, seq):
                with_unwritten = True  # it is written with the history that it has then
            else:
                segment.noted[seq] = row.history
        if at_once:
            self._write_notes(with_unwritten=with_unwritten)

    def retain(self, row: Row) -> object | None:
        """Settle a leased row, but keep it on disk until its dead letter is safe."""
        segment, seq = place = self._leased.get(row, (None, 0))
        if segment is None or self._is_unwritten(segment, seq):
            return None
        del self._leased[row]
        self._rows -= 1
        self._epochs[row.epoch] -= 1
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
        found, self._loss = self._loss, Loss()
        return found

    @property
    def left_alone(self) -> int:
        """The number of rows in the directory that are, or may be, for others. Any thread."""
        return sum(list(self._left_alone.values()))

    @property
    def damaged_files(self) -> DamagedFiles:
        """The damaged files that were found. Any thread."""
        counts = self._opening.damaged
        return DamagedFiles(counts["set_aside"], counts["removed"])

    def rows_by_model(self) -> Counter[str]:
        """Return the number of rows held, by model. Reads all files."""
        found = Counter([row.model_id for row in self._unwritten.values()])
        for segment in self._segments:
            found.update(segment.rows_by_model())
            found.subtract([*segment.acked.values(), *segment.retained.values()])
        return found

    def evict(self) -> Row | None:
        """Forget the oldest waiting row and return it.

        While the disk fails, it is the oldest row in memory: only that makes room.
        """
        if self._failed_at is not None:
            found = self._oldest_unwritten(1)
        elif put_off := self._put_off.models():
            found = self._read_apart(self._put_off, put_off[0], 1)
        elif apart := self._passed_over_rows.models():
            found = self._read_apart(self._passed_over_rows, apart[0], 1)
        else:
            found = self._read_next(1)
        if not found:
            return None
        row, place = found[0]
        self._forget(row, place)
        return row

    def release_all(self) -> None:
        """Make every leased row wait again, before all others."""
        self._requeued.extendleft(reversed(self._leased.items()))
        self._leased.clear()
        self._passed_over_rows.take_over(self._put_off)

    def close(self, out_of_time: Callable[[], bool] = bool) -> int:  # noqa: ARG002 - it is soon done
        """Write what can be written and release the files; returns how many rows they keep."""
        self._failed_at, self._looked_at = None, float("-inf")  # one more attempt
        self.commit()
        kept = self.kept
        knows_models = bool(self.schemas.texts())  # those of the others are in our own as well
        for number, segment in enumerate(list(self._segments)):
            self._leave(segment, keep=segment.file.rows > 0 or (number == 0 and knows_models))
        return kept

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent."""
        for segment in self._segments:
            segment.claim.release()

    def _is_unwritten(self, segment: Segment, seq: int) -> bool:
        """Return whether a row is in memory only."""
        return segment is self._segments[0] and seq in self._unwritten

    def _all_written(self) -> None:
        self._unwritten.clear()
        self._unwritten_bytes = 0

    def _enter_first(self, recover: Recover) -> Segment:
        """Open the first file that no process holds and whose rows are not for others."""
        skipped: set[Path] = set()
        while True:
            claim = self._directory.claim(skipped)
            try:
                return self._segments.enter(claim, recover, self._opening)
            except ForeignSpoolError as error:
                skipped.add(claim.path)
                self._log_foreign(claim.path, error)

    def _hold(self, segment: Segment) -> None:
        """Count the rows of a file that was just opened, and those that it has lost."""
        self._rows += segment.file.rows
        self._epochs[RECOVERED] += segment.file.rows
        self._loss = self._loss.plus(segment.lost)

    def _write(
        self, segment: Segment, fresh: Sequence[tuple[int, Row]], *, is_mended: bool = False
    ) -> bool:
        """Write new rows and all changes to a file. Returns whether that succeeded."""
        if segment.is_damaged or self._is_estranged():
            return False
        try:
            segment.write(fresh)
        except sqlite3.Error as error:
            if is_damage(error) and not is_mended:
                return self._mend(segment, error) and self._write(segment, fresh, is_mended=True)
            segment.trouble = segment.claim.trouble()
            self._fail(error)
            if segment.is_done_with and segment.trouble is None:
                with suppress(*_FAILURES):
                    segment.start_over()
            return False
        self._failed_at, self._failure = None, ""
        if self._once.reset("failure"):
            logger.warning("arthur-relay: the spool can be written again")
        self._log_reader(segment)
        self.mend_noticed()
        return True

    def _write_notes(self, *, with_unwritten: bool) -> None:
        """Write histories only: a settled row may have to wait for its dead letter."""
        for segment in self._segments:
            fresh = self._unwritten if with_unwritten and segment is self._segments[0] else {}
            if not (segment.noted or fresh) or segment.is_damaged or self._failed_lately():
                continue
            try:
                segment.write_notes(fresh.items())
            except sqlite3.Error as error:
                if is_damage(error):
                    self._mend(segment, error)
                else:
                    self._fail(error)
            else:
                if fresh:
                    self._all_written()

    def _look(self) -> bool:
        """Now and then, check that the files are still in place. Returns whether they are."""
        now = self._clock.monotonic()
        if now < self._looked_at + RETRY_SECONDS:
            return True
        self._looked_at = now
        self._learn_owner()
        for segment in self._segments:
            segment.claim.renew_lock()
            segment.trouble = segment.claim.trouble()
            if segment.trouble is not None:
                self._fail(segment.trouble)
                return False
            if segment.is_damaged and not self._mend(segment, NotASpoolError("as before")):
                return False
        self.mend_noticed()
        return True

    def mend_noticed(self) -> bool:
        """Rebuild files whose damage a call noticed and ignored; returns whether any was."""
        found = False
        for segment in self._segments:
            if (
                segment.file.damage is not None
                and not segment.is_damaged
                and not self._failed_lately()
            ):
                found = self._mend(segment, segment.file.damage) or found
        return found

    def _learn_owner(self) -> None:
        """Write the owner into the files once more is known of it, and look for more files."""
        owner = self._opening.owner()
        is_known = owner.organization is not None
        if not (is_known or owner.is_refused):
            return
        if is_known and self.asks_for_owner:
            self.asks_for_owner = False
            self._adopted_at = float("-inf")
        for segment in self._segments:
            theirs = segment.file.owner
            is_news = is_known or theirs.organization is None  # a key that was good has an owner
            if theirs != owner and is_news and owner.may_send(theirs):
                self._adopted_at = float("-inf") if is_known else self._adopted_at
                with suppress(sqlite3.Error):  # another time
                    segment.file.belong_to(owner)

    def _is_estranged(self) -> bool:
        """Return whether our owner has changed, so that these rows are not ours to send."""
        owner = self._opening.owner()
        if not self._segments or owner.may_send(self._segments[0].file.owner) is not False:
            return False
        self._fail(f"its rows belong to {self._segments[0].file.owner}, not to {owner}")
        return True

    def _mend(self, segment: Segment, error: Exception) -> bool:
        """Rebuild a damaged file and count the missing rows. Returns whether that succeeded.

        Leased rows are in memory, so they are not lost with their page.
        """
        before = segment.kept
        in_memory = dict(self._in_memory(segment))
        try:
            segment.mend(error, in_memory)
        except _FAILURES as failure:
            self._fail(failure)
            return False
        segment.trouble = segment.claim.trouble()
        self._lose(segment, before - segment.file.rows + len(segment.retained))
        return True

    def _in_memory(self, segment: Segment) -> Iterator[tuple[int, Row]]:
        """Yield the rows of a file that were read and not settled, with their numbers."""
        for row, (its_segment, seq) in (*self._leased.items(), *self._requeued):
            if its_segment is segment and not self._is_unwritten(segment, seq):
                yield seq, row

    def _lose_removed(self) -> None:
        """Count rows that someone has removed from the files by hand."""
        for segment in self._segments:
            known = sum([1 for _ in self._in_memory(segment)])
            known += sum(
                apart.count_of(segment) for apart in (self._passed_over_rows, self._put_off)
            )
            lost = segment.kept - known
            if lost > 0:
                log_missing(segment.claim.path, lost)
                segment.file.rows -= lost
                segment.is_miscounted = True
                self._lose(segment, lost)

    def _lose(self, segment: Segment, rows: int) -> None:
        """Count rows as lost. A negative number means rows that were thought to be settled."""
        self._rows -= rows
        if rows < 0:
            self._recover(-rows, dict)
            self._epochs[RECOVERED] -= rows
            return
        left = Counter([row.epoch for row in self._unwritten.values()])
        if segment is self._segments[0]:
            with suppress(sqlite3.Error):
                left.update(segment.file.epochs(self._first_seq - 1))
            lost = {epoch: held - left[epoch] for epoch, held in self._epochs.items()}
            lost = {e: n for e, n in lost.items() if n > 0 and e != RECOVERED}
        else:
            lost = {}
        self._epochs.subtract(lost)
        self._epochs[RECOVERED] -= max(0, rows - sum(lost.values()))
        self._loss = self._loss.plus(rows, lost)

    def _log_reader(self, segment: Segment) -> None:
        if not segment.file.is_read_elsewhere:
            self._once.reset("reader")
        elif self._once.is_first("reader"):
            logger.warning(
                "arthur-relay: another process reads the spool file %s and keeps its log from"
                " shrinking; the log counts in spool_bytes",
                segment.claim.path,
            )

    def _log_foreign(self, path: Path, error: ForeignSpoolError) -> None:
        self._left_alone[path] = error.rows
        if not error.is_sure:
            self.asks_for_owner = True
            return
        if not self._once.is_first(path):
            return
        if error.owner is None:
            logger.warning(
                "arthur-relay: the spool file %s has %d inferences and does not say any more for"
                " whom: it is left alone. To send them to %s: arthur-relay spool adopt %s",
                path,
                error.rows,
                self._opening.owner(),
                path,
            )
            return
        logger.warning(
            "arthur-relay: the spool file %s has %d inferences for %s, and this process sends to"
            " %s: it is left alone. To send them here all the same: arthur-relay spool adopt %s",
            path,
            error.rows,
            error.owner,
            self._opening.owner(),
            path,
        )

    def _failed_lately(self) -> bool:
        failed = self._failed_at
        return failed is not None and self._clock.monotonic() < failed + RETRY_SECONDS

    def _leave(self, segment: Segment, *, keep: bool) -> None:
        self._segments.remove(segment)
        self._backlog = deque(cursor for cursor in self._backlog if cursor.segment is not segment)
        segment.close(keep=keep)

    def _fail(self, error: object) -> None:
        self._failure = f"it can't be used ({error})"
        if self._once.is_first("failure"):
            logger.warning(
                "arthur-relay: the spool can't be used (%s); new inferences wait in memory", error
            )
        self._failed_at = self._clock.monotonic()

    def _held_bytes(self) -> int:
        return self._segments.size + self._unwritten_bytes

    def _forget(self, row: Row, place: Place) -> None:
        segment, seq = place
        self._rows -= 1
        self._epochs[row.epoch] -= 1
        if segment is self._segments[0] and self._unwritten.pop(seq, None) is not None:
            self._unwritten_bytes -= bytes_of(row)
            return
        segment.forget(row, seq)

    def _read_next(self, limit: int, most_bytes: int = ANY_BYTES) -> list[tuple[Row, Place]]:
        """Read the next rows: requeued ones first, then old and new ones in turn."""
        taken: list[tuple[Row, Place]] = []
        while self._requeued and len(taken) < limit and most_bytes > 0:
            taken.append(self._requeued.popleft())
            most_bytes -= len(taken[-1][0].body)
        left = limit - len(taken)
        if left <= 0 or most_bytes <= 0:
            return taken
        self._favours_fresh = not self._favours_fresh  # a lease of one row can't be halved
        first, second = self._read_backlog, self._read_fresh
        if self._favours_fresh:
            first, second = second, first
        some = first((left + 1) // 2, (most_bytes + 1) // 2)
        others = second(left - len(some), most_bytes - _body_bytes(some))
        left -= len(some) + len(others)
        some += first(left, most_bytes - _body_bytes(some) - _body_bytes(others))
        older, fresh = (others, some) if self._favours_fresh else (some, others)
        return taken + older + fresh

    def _pass_over(
        self, found: Iterable[tuple[Row, Place]], but: AbstractSet[str]
    ) -> list[tuple[Row, Place]]:
        """Remember the places of some models' rows, and return the other rows."""
        others = []
        for row, place in found:
            if row.model_id in but:
                self._set_apart(self._passed_over_rows, row, place)
            else:
                others.append((row, place))
        return others

    @property
    def _passed_over(self) -> int:
        return len(self._passed_over_rows) + len(self._put_off)

    @staticmethod
    def _set_apart(apart: PassedOver, row: Row, place: Place) -> None:
        apart.add(row.model_id, place, len(row.body), attempts_rank(row))

    def _read_apart(
        self, apart: PassedOver, model_id: str, limit: int, most_bytes: int = ANY_BYTES
    ) -> list[tuple[Row, Place]]:
        """Read rows of a model from remembered places, and forget the places."""
        waiting = apart.take(model_id, limit, most_bytes)
        wanted: dict[Segment, list[int]] = {}
        for (segment, seq), _ in waiting:
            wanted.setdefault(segment, []).append(seq)
        read: dict[Place, Row] = {}
        for segment, numbers in wanted.items():
            read.update(self._read_again(segment, numbers))
        taken = []
        for place, size in waiting:
            if place in read:
                taken.append((read[place], place))
            elif self._failed_at is not None:
                apart.add(model_id, place, size, attempts=1)
        return taken

    def _read_again(self, segment: Segment, numbers: Sequence[int]) -> dict[Place, Row]:
        """Read rows by number, each in its newest form, whether or not that is written."""
        unwritten = self._unwritten if segment is self._segments[0] else {}
        newer = {
            seq: row for seq in numbers if (row := unwritten.get(seq) or segment.updated.get(seq))
        }
        found = newer | dict(
            self._read_these(segment, [seq for seq in numbers if seq not in newer])
        )
        for seq, row in found.items():
            if segment is not self._segments[0] or seq < self._first_seq:
                row.epoch = RECOVERED
            row.history = segment.noted.get(seq, row.history)
        return {(segment, seq): row for seq, row in found.items()}

    def _read_these(
        self, segment: Segment, numbers: list[int], *, is_mended: bool = False
    ) -> list[tuple[int, Row]]:
        """Read rows by number. The caller tries those again that cannot be read now."""
        try:
            return segment.file.read_these(numbers)
        except sqlite3.Error as error:
            is_to_be_mended = is_damage(error) and not segment.is_damaged and not is_mended
            if is_to_be_mended and self._mend(segment, error):
                return self._read_these(
                    segment, numbers, is_mended=True
                )  # as far as they were whole
            self._fail(error)
            return []

    def _read_backlog(self, limit: int, most_bytes: int) -> list[tuple[Row, Place]]:
        found: list[tuple[Row, Place]] = []
        while self._backlog and len(found) < limit and most_bytes > 0:
            rows = self._read(self._backlog[0], limit - len(found), most_bytes)
            most_bytes -= _body_bytes(rows)
            found += rows
            if not rows:
                if self._failed_at is not None:
                    break
                self._backlog.popleft()
        return found

    def _read_fresh(self, limit: int, most_bytes: int) -> list[tuple[Row, Place]]:
        cursor = self._fresh
        assert cursor is not None, "the spool is used before it was opened"
        found = self._read(cursor, limit, most_bytes)
        if cursor.after >= cursor.segment.file.last_seq:  # else the older ones could not be read
            left = most_bytes - _body_bytes(found)
            rest = self._oldest_unwritten(limit - len(found), left)
            if rest:
                cursor.after = rest[-1][1][1]
            found += rest
        return found

    def _oldest_unwritten(self, limit: int, most_bytes: int = ANY_BYTES) -> list[tuple[Row, Place]]:
        """Return waiting rows that are in memory only."""
        cursor = self._fresh
        assert cursor is not None, "the spool is used before it was opened"
        if limit <= 0 or cursor.after >= self._next_seq - 1:
            return []
        found: list[tuple[Row, Place]] = []
        for seq, row in self._unwritten.items():
            if len(found) >= limit or most_bytes <= 0:
                break
            if seq > cursor.after:
                found.append((row, (cursor.segment, seq)))
                most_bytes -= len(row.body)
        return found

    def _read(
        self, cursor: Cursor, limit: int, most_bytes: int, *, is_mended: bool = False
    ) -> list[tuple[Row, Place]]:
        segment = cursor.segment
        try:
            return [(row, (segment, seq)) for seq, row in cursor.read(limit, most_bytes)]
        except sqlite3.Error as error:
            if not is_damage(error) or is_mended:
                self._fail(error)
            elif not segment.is_damaged and self._mend(segment, error):
                return self._read(cursor, limit, most_bytes, is_mended=True)
            return []  # else it was logged why it cannot be rebuilt


def _body_bytes(found: Iterable[tuple[Row, Place]]) -> int:
    return body_bytes([row for row, _ in found])
