"""Reads and writes the files of a spool, and rebuilds those that turn out to be damaged.

No method raises because of a disk: a failure is noted in the `DiskState`, and the caller tries
again later.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from arthur_relay.buffers.spool.disk_state import RETRY_SECONDS, DiskState
from arthur_relay.buffers.spool.file_format import ForeignSpoolError, NotASpoolError, is_damage
from arthur_relay.buffers.spool.row_counts import RowCounts
from arthur_relay.buffers.spool.rows_in_memory import RowsInMemory, with_places
from arthur_relay.buffers.spool.segment import Place, Segment, log_missing
from arthur_relay.buffers.spool.segments import Segments
from arthur_relay.errors import ConfigurationError
from arthur_relay.row import RECOVERED, Row
from arthur_relay.sentences import named
from arthur_relay.system.log_once import LogOnce
from arthur_relay.system.sqlite_pages import DamagedFileError
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.spool")

_FAILURES = (ConfigurationError, ForeignSpoolError, NotASpoolError, OSError, sqlite3.Error)


@dataclass(slots=True, eq=False)
class Cursor:
    """How far a segment has been read.

    Attributes:
        segment: The segment.
        after: The sequence number that was read last.
        until: The last one to read. None for all, new ones included.
        epoch: The epoch that the rows get. None leaves theirs.
    """

    segment: Segment
    after: int
    until: int | None = None
    epoch: int | None = None

    def read(self, limit: int, most_bytes: int) -> list[tuple[int, Row]]:
        """Return up to `limit` of the next rows. Raises sqlite3.Error, and then stays where it is.

        No further row is read after the bodies have `most_bytes`.
        """
        if self.segment.is_damaged:
            raise DamagedFileError("it is not rebuilt yet")
        until = self.segment.file.last_seq if self.until is None else self.until
        if limit <= 0 or most_bytes <= 0 or self.after >= until:
            return []
        found = self.segment.file.read(
            self.after, until, limit, epoch=self.epoch, most_bytes=most_bytes
        )
        self.after = found[-1][0] if found else until
        return found


class Storage:
    """The files as the rest of a spool uses them.

    Args:
        segments: The files.
        memory: The rows that are not lost with their page, because they are in memory.
        counts: Counts the rows that a damaged file has lost.
        disk: Notes failures.
    """

    def __init__(
        self, segments: Segments, memory: RowsInMemory, *, counts: RowCounts, disk: DiskState
    ) -> None:
        self._segments = segments
        self._memory = memory
        self._counts = counts
        self._disk = disk
        self._checked_at = float("-inf")
        self._once = LogOnce()

    def has_foreign_owner(self) -> bool:
        """Return whether our owner has changed, so that these rows are not ours to send."""
        reason = self._segments.foreign_reason()
        if reason is None:
            return False
        self._disk.fail(reason)
        return True

    def allow_attempt(self) -> None:
        """Let the next `check` look at the files, and the next write try, however soon."""
        self._disk.allow_attempt()
        self._checked_at = float("-inf")

    def check(self) -> bool:
        """Now and then, check that the files are still in place. Returns whether they are."""
        now = self._segments.opening.clock.monotonic()
        if now < self._checked_at + RETRY_SECONDS:
            return True
        self._checked_at = now
        self._segments.learn_owner()
        for segment in self._segments:
            segment.claim.renew_lock()
            segment.trouble = segment.claim.trouble()
            if segment.trouble is not None:
                self._disk.fail(segment.trouble)
                return False
            if segment.is_damaged and not self._rebuild(segment, NotASpoolError("as before")):
                return False
        self.rebuild_damaged()
        return True

    def write(
        self, segment: Segment, fresh: Sequence[tuple[int, Row]], *, is_rebuilt: bool = False
    ) -> bool:
        """Write new rows and all changes to a file. Returns whether that succeeded."""
        if segment.is_damaged or self.has_foreign_owner():
            return False
        try:
            segment.write(fresh)
        except sqlite3.Error as error:
            if is_damage(error) and not is_rebuilt:
                return self._rebuild(segment, error) and self.write(segment, fresh, is_rebuilt=True)
            segment.trouble = segment.claim.trouble()
            self._disk.fail(error)
            if segment.is_done_with and segment.trouble is None:
                with suppress(*_FAILURES):
                    segment.start_over()
            return False
        self._disk.on_written()
        self._log_reader(segment)
        self.rebuild_damaged()
        return True

    def has_changes(self, segment: Segment) -> bool:
        """Return whether anything is to be written to a file."""
        return bool(self._memory.unwritten_in(segment)) or segment.is_to_be_written

    def write_changes(self, segment: Segment) -> bool:
        """Write a file's changes and new rows. Returns whether that succeeded."""
        fresh = list(self._memory.unwritten_in(segment).items())
        if not self.write(segment, fresh):
            return False
        if fresh:
            self._memory.on_written()
        return True

    def write_histories(self, *, with_unwritten: bool) -> None:
        """Write histories only: a settled row may have to wait for its dead letter.

        Args:
            with_unwritten: Whether to write new rows as well, with their histories.
        """
        for segment in self._segments:
            fresh = self._memory.unwritten_in(segment) if with_unwritten else {}
            if not (segment.noted or fresh) or segment.is_damaged or self._disk.failed_lately():
                continue
            try:
                segment.write_notes(fresh.items())
            except sqlite3.Error as error:
                if is_damage(error):
                    self._rebuild(segment, error)
                else:
                    self._disk.fail(error)
            else:
                if fresh:
                    self._memory.on_written()

    def read_next(
        self, cursor: Cursor, limit: int, most_bytes: int, *, is_rebuilt: bool = False
    ) -> list[tuple[Row, Place]]:
        """Read the next rows of a file. Returns none when it cannot be read now."""
        segment = cursor.segment
        try:
            return with_places(segment, cursor.read(limit, most_bytes))
        except sqlite3.Error as error:
            if not is_damage(error) or is_rebuilt:
                self._disk.fail(error)
            elif not segment.is_damaged and self._rebuild(segment, error):
                return self.read_next(cursor, limit, most_bytes, is_rebuilt=True)
            return []  # else it was logged why it cannot be rebuilt

    def read_again(self, segment: Segment, numbers: Sequence[int]) -> dict[Place, Row]:
        """Read rows by number, each in its newest form, whether or not that is written."""
        unwritten = self._memory.unwritten_in(segment)
        newer = {
            seq: row for seq in numbers if (row := unwritten.get(seq) or segment.updated.get(seq))
        }
        others = [seq for seq in numbers if seq not in newer]
        found = newer | dict(self._read_numbered(segment, others))
        for seq, row in found.items():
            if segment is not self._segments.own or seq < self._memory.first_seq:
                row.epoch = RECOVERED
            row.history = segment.noted.get(seq, row.history)
        return {(segment, seq): row for seq, row in found.items()}

    def rebuild_damaged(self) -> bool:
        """Rebuild files whose damage a call noticed and ignored; returns whether any was."""
        found = False
        for segment in self._segments:
            damage = segment.file.damage
            if damage is not None and not segment.is_damaged and not self._disk.failed_lately():
                found = self._rebuild(segment, damage) or found
        return found

    def count_removed(self, segment: Segment, *, apart: int) -> None:
        """Count the rows that someone has removed from a file by hand.

        Args:
            segment: The file, of which all rows were read.
            apart: How many of its rows wait apart, though they were read.
        """
        known = sum([1 for _ in self._memory.read_from(segment)]) + apart
        lost = segment.kept - known
        if lost > 0:
            log_missing(segment.claim.path, lost, self._segments.opening.words)
            segment.file.rows -= lost
            segment.is_miscounted = True
            self._count_lost(segment, lost)

    def _read_numbered(
        self, segment: Segment, numbers: list[int], *, is_rebuilt: bool = False
    ) -> list[tuple[int, Row]]:
        """Read rows by number. The caller tries those again that cannot be read now."""
        try:
            return segment.file.read_these(numbers)
        except sqlite3.Error as error:
            is_to_be_rebuilt = is_damage(error) and not segment.is_damaged and not is_rebuilt
            if is_to_be_rebuilt and self._rebuild(segment, error):
                return self._read_numbered(segment, numbers, is_rebuilt=True)  # the whole ones
            self._disk.fail(error)
            return []

    def _rebuild(self, segment: Segment, error: Exception) -> bool:
        """Rebuild a damaged file and count the missing rows. Returns whether that succeeded."""
        before = segment.kept
        in_memory = dict(self._memory.read_from(segment))
        try:
            segment.rebuild(error, in_memory)
        except _FAILURES as failure:
            self._disk.fail(failure)
            return False
        segment.trouble = segment.claim.trouble()
        self._count_lost(segment, before - segment.file.rows + len(segment.retained))
        return True

    def _count_lost(self, segment: Segment, rows: int) -> None:
        """Count rows as lost. A negative number means rows that were thought to be settled."""
        if rows < 0:
            self._counts.add_found(-rows)
        elif segment is not self._segments.own:
            self._counts.lose(rows, None)
        else:
            left = self._memory.unwritten_by_epoch()
            with suppress(sqlite3.Error):
                left.update(segment.file.epochs(self._memory.first_seq - 1))
            self._counts.lose(rows, left)

    def _log_reader(self, segment: Segment) -> None:
        if not segment.file.is_read_elsewhere:
            self._once.reset("reader")
        elif self._once.is_first("reader"):
            logger.warning(
                "arthur-relay: another process reads the spool file %s and keeps its log from"
                " shrinking; the log counts in %s",
                segment.claim.path,
                named("spool_bytes"),
            )
