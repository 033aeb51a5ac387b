"""One file of the spool: rows in SQLite that outlive the process; one connection does it all."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from arthur_relay.buffers.spool_format import (
    PAGE_BYTES,
    NewerSpoolError,
    NotASpoolError,
    set_up_tables,
)
from arthur_relay.files import make_private
from arthur_relay.forks import unforked
from arthur_relay.row import NO_HISTORY, History, Row, RowKind

T = TypeVar("T")

CHECKPOINT_PAGES = 256
"""The log is written back when it is as long: 4 MB."""

VACUUM_PAGES = 512
"""Free pages that are given back to the file system at a time: 8 MB."""

_PARTS = (1024, 256, 64, 16, 4, 1)
"""Rows of one statement. Python lets go of its lock in each step of one, and where another thread
computes, as the daemon's intake does, getting it back may take longer than the step."""

_COLUMNS = "seq, id, model_id, kind, epoch, shrunk, stored_at, body"
_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT = {
    size: f"INSERT INTO rows ({_COLUMNS}) VALUES {', '.join([_VALUES] * size)}"  # noqa: S608 - all ours
    for size in _PARTS
}
_DELETE = {
    size: f"DELETE FROM rows WHERE seq IN ({', '.join('?' * size)})"  # noqa: S608 - no values in it
    for size in _PARTS
}

_INFERENCE = RowKind.INFERENCE.value


class SpoolFile:
    """Rows by sequence number. One thread at a time; whoever opens it holds the file's lock.

    Every method but `close` raises sqlite3.Error when the file can't be read or written, and
    changes nothing then.

    Args:
        path: The file; made when it is not there.
        power_safe: Whether each commit is forced to the disk, to survive a power cut.

    Attributes:
        path: The file.
        rows: Rows in it.
        last_seq: The last sequence number that was ever used.
        size: Bytes of the pages in use, the log not included.
        oldest_at: When the oldest row was stored, in seconds since 1970, or None without rows.

    Raises:
        NewerSpoolError: See there.
        NotASpoolError: See there.
        OSError: It can't be opened.
        sqlite3.OperationalError: It can't be read or written.
    """

    def __init__(self, path: Path, *, power_safe: bool) -> None:
        self.path = path
        self.rows = self.last_seq = self.size = 0
        self.oldest_at: float | None = None
        # For the owner only, as SQLite then makes the log: there are prompts in it.
        make_private(path)
        self._open(power_safe=power_safe)

    @unforked()
    def write(
        self,
        fresh: Sequence[tuple[int, Row]],
        gone: Sequence[int],
        changed: Iterable[tuple[int, Row]],
        *,
        noted: Iterable[tuple[int, History]] = (),
        now: float,
    ) -> None:
        """Commit what has happened since the last time, as a whole or not at all.

        Args:
            fresh: New rows with their sequence numbers, which grow.
            gone: Sequence numbers of rows to forget.
            changed: New forms of rows that are in the file.
            noted: What happened to rows that are in the file.
            now: Seconds since 1970.
        """
        rows = self.rows + len(fresh) - len(gone)
        last_seq = fresh[-1][0] if fresh else self.last_seq
        histories = [(seq, row.history) for seq, row in fresh if row.history is not NO_HISTORY]
        histories += noted
        with self._transaction() as execute:
            for part in _in_parts(fresh):
                values: list[object] = []
                for seq, row in part:
                    # Reading an enum's value takes longer than all else that is done here to a row.
                    kind = _INFERENCE if row.kind is RowKind.INFERENCE else row.kind.value
                    epoch, shrunk = row.epoch, row.shrunk
                    values += (seq, row.id, row.model_id, kind, epoch, shrunk, now, row.body)
                execute(_INSERT[len(part)], values)
            for seq, row in changed:
                execute(
                    "UPDATE rows SET body = ?, shrunk = ? WHERE seq = ?",
                    (row.body, row.shrunk, seq),
                )
            for seq, history in histories:
                execute(
                    "UPDATE rows SET attempts = ?, since = ?, deaths = ? WHERE seq = ?",
                    (history.attempts, history.since, history.deaths, seq),
                )
            for some in _in_parts(gone):
                execute(_DELETE[len(some)], some)
            execute("UPDATE held SET rows = ?, last_seq = ?", (rows, last_seq))
        self.rows, self.last_seq = rows, last_seq
        with suppress(sqlite3.OperationalError):  # it is written; no room to tidy up in is no harm
            self._give_back()
            self._look_for_oldest()

    @unforked()
    def read(
        self, after: int, until: int, limit: int, *, epoch: int | None = None
    ) -> list[tuple[int, Row]]:
        """Return rows with their sequence numbers, oldest first.

        Args:
            after: Their sequence numbers are above it.
            until: And not above that.
            limit: So many of them at most.
            epoch: The epoch that they get; None for that which they had.
        """
        found = self._connection.execute(
            "SELECT seq, id, model_id, body, coalesce(?, epoch), shrunk, kind,"
            " attempts, since, deaths FROM rows"
            " WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
            (epoch, after, until, limit),
        )
        return [
            (seq, Row(row_id, model_id, body, row_epoch, shrunk, RowKind(kind), _history(*history)))
            for seq, row_id, model_id, body, row_epoch, shrunk, kind, *history in found
        ]

    @unforked()
    def rows_by_model(self) -> dict[str, int]:
        """Return how many rows there are of each model. Reads the whole file."""
        return dict(
            self._connection.execute("SELECT model_id, count(*) FROM rows GROUP BY model_id")
        )

    @unforked()
    def models(self) -> dict[str, str]:
        """Return the descriptions of the models that are remembered, by id."""
        return dict(self._connection.execute("SELECT model_id, description FROM models"))

    @unforked()
    def remember(self, model_id: str, description: str) -> None:
        """Keep the description of a model."""
        self._connection.execute(
            "INSERT OR REPLACE INTO models VALUES (?, ?)", (model_id, description)
        )

    @unforked()
    def forget(self, model_id: str) -> None:
        """Keep it no longer."""
        self._connection.execute("DELETE FROM models WHERE model_id = ?", (model_id,))

    @unforked()
    def close(self) -> None:
        """Close the file; without rows in it, it is as small as it gets."""
        self._connection.close()

    @unforked()
    def _open(self, *, power_safe: bool) -> None:
        self._connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=1.0
        )
        try:
            self._set_up(power_safe=power_safe)
            ((rows, last_seq),) = self._connection.execute("SELECT rows, last_seq FROM held")
            self.rows, self.last_seq = int(rows), int(last_seq)
            self.size = self._measure()[1]
            self._look_for_oldest()
        except (sqlite3.OperationalError, NewerSpoolError):
            self._connection.close()
            raise
        except (sqlite3.DatabaseError, ValueError) as error:
            self._connection.close()
            raise NotASpoolError(str(error)) from error
        except BaseException:
            self._connection.close()
            raise

    def _set_up(self, *, power_safe: bool) -> None:
        set_up_tables(self._connection, self.path)
        execute = self._connection.execute
        execute(f"PRAGMA synchronous = {'FULL' if power_safe else 'NORMAL'}")
        execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * PAGE_BYTES}")

    @contextmanager
    def _transaction(self) -> Iterator[Callable[[str, Sequence[object]], object]]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection.execute
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _give_back(self) -> None:
        """Let the file shrink: a part at a time while rows are in it, all of it without."""
        free, self.size = self._measure()
        pages = free + self.size // PAGE_BYTES
        # Only executescript steps through the whole vacuum: execute() would free one page.
        if not self.rows and pages > CHECKPOINT_PAGES:
            self._connection.executescript(
                "PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)"
            )
        elif free > max(VACUUM_PAGES // 8, pages // 2):
            # The file itself becomes shorter when the log is written back only.
            self._connection.executescript(
                f"PRAGMA incremental_vacuum({VACUUM_PAGES}); PRAGMA wal_checkpoint(PASSIVE)"
            )

    def _look_for_oldest(self) -> None:
        found = self._connection.execute("SELECT stored_at FROM rows ORDER BY seq LIMIT 1")
        self.oldest_at = next((float(stored_at) for (stored_at,) in found), None)

    def _measure(self) -> tuple[int, int]:
        """Return how many pages are free, and the bytes of those in use."""
        ((free, pages),) = self._connection.execute(
            "SELECT freelist_count, page_count FROM pragma_freelist_count, pragma_page_count"
        )
        return int(free), (int(pages) - int(free)) * PAGE_BYTES


def _history(attempts: int, since: float | None, deaths: int) -> History:
    if attempts or deaths or since is not None:
        return History(attempts, since, deaths)
    return NO_HISTORY  # as nearly all have: one object for all of them


def _in_parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the items in parts for which there is a statement each."""
    at = 0
    for size in _PARTS:
        while len(items) - at >= size:
            yield items[at : at + size]
            at += size
