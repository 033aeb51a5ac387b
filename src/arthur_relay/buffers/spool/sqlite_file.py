"""One SQLite file of the spool, used through one connection."""

import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import repeat
from pathlib import Path
from zlib import crc32

from arthur_relay.buffers import ANY_BYTES
from arthur_relay.buffers.spool.file_format import (
    MOST_SEQ,
    PAGE_BYTES,
    Execute,
    ForeignSpoolError,
    NotASpoolError,
    history_of,
    is_damage,
    names_owner,
    read_owner,
    set_up_tables,
    times_cut,
    write_owner,
)
from arthur_relay.buffers.spool.statements import (
    DELETE,
    check_row,
    in_parts,
    insert_rows,
    write_histories,
)
from arthur_relay.row import NO_HISTORY, History, Row, RowKind, RowOwner
from arthur_relay.system.fork_safety import no_fork
from arthur_relay.system.sqlite_pages import DamagedFileError, has_unread_commits, is_undecodable

CHECKPOINT_PAGES = 256
"""The log is checkpointed when it has this many pages: 4 MB."""

LOG_BYTES = CHECKPOINT_PAGES * PAGE_BYTES
"""The same in bytes."""

VACUUM_PAGES = 512
"""The number of free pages that are given back to the file system at a time: 8 MB."""

_WRITE_VERSION_AT, _WAL_VERSION = 18, 2
"""The offset of the write version in a file's header, and its value for a file with a log."""


class SpoolFile:
    """Rows by sequence number. One thread at a time; the opener holds the file's lock.

    Every method except `close` raises sqlite3.Error when the file cannot be read or written, and
    then changes nothing.

    Args:
        path: The file, which is created if it does not exist.
        power_safe: Whether each commit is forced to the disk, to survive a power cut.
        owner: Who sends its rows, and who owns a new file.
        log_bytes: The log is checkpointed when it has this many bytes.
        is_adopted: Whether the owner takes the rows over, whoever owned them.

    Attributes:
        path: The file.
        rows: The number of its rows.
        last_seq: The last sequence number that was ever used.
        size: The bytes of the used pages and of the log.
        oldest_at: When the oldest row was stored, in seconds since 1970, or None without rows.
        owner: Who owns the rows.
        log_may_grow: How many bytes the log may still grow before it is checkpointed.
        missing: The number of rows that someone removed from the file before it was opened.
        damage: Damage that a call has found although the caller may ignore its failure.
        is_read_elsewhere: Whether another process reads the file and keeps the log from shrinking.

    Raises:
        ForeignSpoolError: The rows are for another owner.
        NewerSpoolError: A later version wrote it.
        NotASpoolError: It is damaged, or not a spool.
        OSError: It cannot be opened.
        sqlite3.OperationalError: It cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        *,
        power_safe: bool,
        owner: RowOwner,
        log_bytes: int = LOG_BYTES,
        is_adopted: bool = False,
    ) -> None:
        self.path = path
        self.rows = self.last_seq = self.size = self.missing = 0
        self.oldest_at: float | None = None
        self.owner = owner
        self.damage: Exception | None = None
        self.is_read_elsewhere = False
        self._log_bytes = min(log_bytes, LOG_BYTES)
        self.log_may_grow = 2 * self._log_bytes
        self._log_tried = 0
        self._open(power_safe=power_safe, is_adopted=is_adopted)

    @no_fork()
    def write(
        self,
        fresh: Sequence[tuple[int, Row]],
        acked: Sequence[int],
        updated: Iterable[tuple[int, Row]],
        *,
        noted: Iterable[tuple[int, History]] = (),
        now: float,
        trouble: Callable[[], str | None] | None = None,
    ) -> None:
        """Commit new rows and changes, all or nothing.

        Args:
            fresh: New rows with their sequence numbers, which grow.
            acked: Sequence numbers of rows to delete.
            updated: New forms of rows that are in the file.
            noted: Histories of rows that are in the file.
            now: Seconds since 1970.
            trouble: Called just before the commit; returns why it must not happen, or None.
        """
        rows = self.rows + len(fresh) - len(acked)
        last_seq = fresh[-1][0] if fresh else self.last_seq
        histories = [(seq, row.history) for seq, row in fresh if row.history is not NO_HISTORY]
        histories += noted
        with self._transaction() as execute:
            insert_rows(execute, fresh, repeat(now))
            for seq, row in updated:
                execute(
                    "UPDATE rows SET body = ?, crc = ?, shrunk = ? WHERE seq = ?",
                    (row.body, crc32(row.body), row.shrunk, seq),
                )
            write_histories(execute, histories)
            for some in in_parts(acked):
                execute(DELETE[len(some)], some)
            execute("UPDATE held SET rows = ?, last_seq = ?", (rows, last_seq))
            if trouble is not None and (found := trouble()):
                raise sqlite3.OperationalError(found)
        self.rows, self.last_seq = rows, last_seq
        try:  # the rows are written; a failure to tidy up does no harm
            self._give_back()
            self._look_for_oldest()
        except sqlite3.Error as error:
            self._notice(error)

    @no_fork()
    def restore(self, rows: Sequence[tuple[int, Row, float]], last_seq: int = 0) -> None:
        """Add rows of another file, each with its number and the time when it was stored.

        Args:
            rows: The rows, in any order.
            last_seq: The last number that was used in the other file.
        """
        count = self.rows + len(rows)
        last_seq = max([self.last_seq, last_seq, *[seq for seq, _, _ in rows]])
        numbered = [(seq, row) for seq, row, _ in rows]
        with self._transaction() as execute:
            insert_rows(execute, numbered, [moment for _, _, moment in rows])
            write_histories(
                execute,
                [(seq, row.history) for seq, row in numbered if row.history is not NO_HISTORY],
            )
            execute("UPDATE held SET rows = ?, last_seq = ?", (count, last_seq))
        self.rows, self.last_seq = count, last_seq

    @no_fork()
    def belong_to(self, owner: RowOwner | None) -> None:
        """Set who owns the rows. None when that is unknown, so that nobody may send them."""
        with self._noticing(), self._transaction() as execute:
            write_owner(execute, owner)
        self.owner = owner or self.owner

    @no_fork()
    def read(
        self,
        after: int,
        until: int,
        limit: int,
        *,
        epoch: int | None = None,
        most_bytes: int = ANY_BYTES,
    ) -> list[tuple[int, Row]]:
        """Return rows with their sequence numbers, oldest first.

        Args:
            after: Only rows with greater sequence numbers are read.
            until: The greatest sequence number to read.
            limit: The maximum number of rows.
            epoch: The epoch that the rows get. None leaves theirs.
            most_bytes: No further row is read after the bodies have this many bytes.
        """
        which = "seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        return self._read(which, (epoch, after, until, limit), most_bytes)

    @no_fork()
    def read_these(self, numbers: Sequence[int]) -> list[tuple[int, Row]]:
        """Return the existing rows with some sequence numbers, oldest first."""
        found: list[tuple[int, Row]] = []
        for some in in_parts(numbers):
            which = f"seq IN ({', '.join('?' * len(some))}) ORDER BY seq"
            found += self._read(which, (None, *some))
        return found

    def _read(
        self, which: str, values: Sequence[object], most_bytes: int = ANY_BYTES
    ) -> list[tuple[int, Row]]:
        try:
            found = self._connection.execute(
                "SELECT seq, id, model_id, body, coalesce(?, epoch), shrunk, kind,"  # noqa: S608 - all ours
                f" crc, attempts, since, deaths, unknown_since FROM rows WHERE {which}",
                values,
            )
            rows = []
            with closing(found):  # while it is open, so is the file, whatever becomes of it
                for seq, row_id, model_id, body, of, cut, kind, crc, *past in found:
                    check_row(row_id, model_id, body, crc)
                    history = history_of(past)
                    row = Row(row_id, model_id, body, of, times_cut(cut), RowKind(kind), history)
                    rows.append((seq, row))
                    most_bytes -= len(body)
                    if most_bytes <= 0:
                        break
        except (ValueError, TypeError):
            raise DamagedFileError("a row is not as it was written") from None
        except sqlite3.OperationalError as error:
            if not is_undecodable(error):
                raise
            raise DamagedFileError("a text is not as it was written") from None
        return rows

    @no_fork()
    def epochs(self, after: int) -> dict[int, int]:
        """Return the number of rows with numbers above `after`, by epoch."""
        found = self._connection.execute(
            "SELECT epoch, count(*) FROM rows WHERE seq > ? GROUP BY epoch", (after,)
        )
        return dict(found.fetchall())

    @no_fork()
    def which_of(self, numbers: Iterable[int]) -> set[int]:
        """Return those of some sequence numbers that have a row."""
        asked = "SELECT seq FROM rows WHERE seq = ?"
        execute = self._connection.execute
        return {number for number in numbers if execute(asked, (number,)).fetchone()}

    @no_fork()
    def rows_by_model(self) -> dict[str, int]:
        """Return the number of rows, by model. Reads the whole file."""
        return dict(
            self._connection.execute("SELECT model_id, count(*) FROM rows GROUP BY model_id")
        )

    @no_fork()
    def models(self) -> dict[str, str]:
        """Return the models' descriptions, by id."""
        with self._noticing():
            try:
                return dict(self._connection.execute("SELECT model_id, description FROM models"))
            except sqlite3.OperationalError as error:
                if not is_undecodable(error):
                    raise
                raise DamagedFileError("a text is not as it was written") from None

    @no_fork()
    def remember(self, model_id: str, description: str) -> None:
        """Keep a model's description."""
        with self._noticing():
            self._connection.execute(
                "INSERT OR REPLACE INTO models VALUES (?, ?)", (model_id, description)
            )

    @no_fork()
    def forget(self, model_id: str) -> None:
        """Delete a model's description."""
        with self._noticing():
            self._connection.execute("DELETE FROM models WHERE model_id = ?", (model_id,))

    @no_fork()
    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _is_read_only(self) -> bool:
        """Return whether the header allows only later versions of SQLite to write to the file."""
        try:
            with self.path.open("rb") as file:
                header = file.read(_WRITE_VERSION_AT + 1)
        except FileNotFoundError:
            return False
        is_header = header.startswith(b"SQLite format 3\x00") and len(header) > _WRITE_VERSION_AT
        return is_header and header[_WRITE_VERSION_AT] > _WAL_VERSION

    def _has_damaged_log(self) -> bool:
        """Return whether SQLite would drop a part of the log when it opens the file.

        After a clean end there is no log. A read-only connection does not change the log.
        """
        if not self._log_size():
            return False
        index = self.path.with_name(f"{self.path.name}-shm")
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        frames: int | None = None
        try:
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
                # It knows this many of the log's frames: "mxFrame" in walformat.html.
                # No more is read, because on Windows nobody can read the bytes that SQLite locks.
                with index.open("rb", buffering=0) as file:
                    frames = int.from_bytes(file.read(20)[16:], sys.byteorder)
        except (sqlite3.Error, OSError):
            pass  # the error shows when the file is opened, which would drop the log
        return has_unread_commits(self.path, page_bytes=PAGE_BYTES, read_frames=frames)

    @no_fork()
    def _open(self, *, power_safe: bool, is_adopted: bool) -> None:
        if self._is_read_only():
            raise NotASpoolError("its header is not as it was written")
        if self._has_damaged_log():
            raise NotASpoolError("its log is not whole")
        self._connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=1.0
        )
        try:
            is_ours = not is_adopted and self._is_ours()
            self._set_up(power_safe=power_safe)
            if not is_ours and read_owner(self._connection) != self.owner:
                self.belong_to(self.owner)
            self._count_rows()
            self._count_bytes(self._measure()[1])
            self._look_for_oldest()
        except BaseException as error:
            self._connection.close()
            if isinstance(error, sqlite3.Error) and is_damage(error):
                raise NotASpoolError(str(error)) from error
            if isinstance(error, sqlite3.Error) and is_undecodable(error):
                raise NotASpoolError("a text is not as it was written") from None
            raise

    def _is_ours(self) -> bool:
        """Return whether the file names us as the owner; a new one names nobody.

        Raises:
            ForeignSpoolError: It names another owner, or should name one but no longer does.
        """
        if not names_owner(self._connection):
            return False
        owner = read_owner(self._connection)
        allowed = False if owner is None else self.owner.may_send(owner)
        if not allowed:
            # Without an owner, only the number of rows itself can be trusted.
            ((rows,),) = self._connection.execute("SELECT count(*) FROM rows")
            if owner is None and not rows:
                return False
            raise ForeignSpoolError(owner, rows=rows, is_sure=allowed is False)
        assert owner is not None, "nobody is not allowed anything"
        if self.owner.organization is None:
            self.owner = owner  # the file knows more than we do
        return self.owner == owner

    def _set_up(self, *, power_safe: bool) -> None:
        set_up_tables(self._connection, self.path, self.owner)
        execute = self._connection.execute
        execute(f"PRAGMA synchronous = {'FULL' if power_safe else 'NORMAL'}")
        # macOS needs it: `fsync` there leaves data in the disk's cache. Elsewhere it does nothing.
        execute(f"PRAGMA fullfsync = {int(power_safe)}")
        execute(f"PRAGMA checkpoint_fullfsync = {int(power_safe)}")
        execute(f"PRAGMA wal_autocheckpoint = {self._log_bytes // PAGE_BYTES}")
        execute(f"PRAGMA journal_size_limit = {self._log_bytes}")

    def _count_rows(self) -> None:
        """Count the rows, and correct the count that the file records."""
        ((rows, first, last),) = self._connection.execute(
            "SELECT (SELECT count(*) FROM rows),"
            " (SELECT min(seq) FROM rows), (SELECT max(seq) FROM rows)"
        )
        if rows and not 0 < first <= last <= MOST_SEQ:
            raise DamagedFileError("the number of a row is none")
        found = self._connection.execute("SELECT rows, last_seq FROM held").fetchall()
        match found:
            # A count below that of the rows themselves does not help to count missing ones.
            case [(int(said), int(last_seq))] if 0 <= said <= last_seq <= MOST_SEQ and last_seq >= (
                last or 0
            ):
                self.missing = max(0, said - rows)
            case _:
                last_seq = last or 0
        self.rows, self.last_seq = rows, last_seq
        if found != [(rows, last_seq)]:
            with self._transaction() as execute:
                execute("DELETE FROM held", ())
                execute("INSERT INTO held VALUES (?, ?)", (rows, last_seq))

    def _notice(self, error: Exception) -> None:
        if is_damage(error):
            self.damage = error

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Note damage in an error that the caller may ignore."""
        try:
            yield
        except sqlite3.Error as error:
            self._notice(error)
            raise

    @contextmanager
    def _transaction(self) -> Iterator[Execute]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection.execute
            self._connection.execute("COMMIT")
        except OverflowError:
            self._connection.execute("ROLLBACK")
            raise DamagedFileError("a number of it is larger than any can be") from None
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _give_back(self) -> None:
        """Shrink the file: step by step while it has rows, at once when it has none."""
        self._shorten_log()
        free, used = self._measure()
        pages = free + used
        self._count_bytes(used)
        # Only executescript steps through the whole vacuum: execute() would free one page.
        if not self.rows and pages > CHECKPOINT_PAGES:
            self._connection.executescript(
                "PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)"
            )
        elif free > max(VACUUM_PAGES // 8, pages // 2):
            # The file itself shrinks only when the log is checkpointed.
            self._connection.executescript(
                f"PRAGMA incremental_vacuum({VACUUM_PAGES}); PRAGMA wal_checkpoint(PASSIVE)"
            )

    def _shorten_log(self) -> None:
        """Checkpoint a long log and truncate it, unless another process reads it."""
        size = self._log_size()
        if size <= max(2 * self._log_bytes, self._log_tried + self._log_bytes):
            return
        execute = self._connection.execute
        execute("PRAGMA busy_timeout = 0")  # readers are not waited for
        try:
            ((busy, _, _),) = execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            execute("PRAGMA busy_timeout = 1000")
        self.is_read_elsewhere = bool(busy)
        self._log_tried = size if busy else 0

    def _count_bytes(self, pages: int) -> None:
        log = self._log_size()
        self.log_may_grow = max(0, 2 * self._log_bytes - log)
        self.size = pages * PAGE_BYTES + log

    def _log_size(self) -> int:
        try:
            return self.path.with_name(f"{self.path.name}-wal").stat().st_size
        except OSError:
            return 0

    def _look_for_oldest(self) -> None:
        found = self._connection.execute(
            "SELECT CASE typeof(stored_at) WHEN 'real' THEN stored_at END"
            " FROM rows ORDER BY seq LIMIT 1"
        )
        self.oldest_at = next((stored_at for (stored_at,) in found), None)

    def _measure(self) -> tuple[int, int]:
        """Return how many pages are free, and how many are in use."""
        ((free, pages),) = self._connection.execute(
            "SELECT freelist_count, page_count FROM pragma_freelist_count, pragma_page_count"
        )
        return int(free), int(pages) - int(free)
