"""Dead letters in the spool's directory: one SQLite file that all its processes share.

It has a rollback journal instead of a write-ahead log: any number of processes may write to it, and
letters are so rare that slower writes don't matter. Each call opens the file again, so forks and
threads need no care.
"""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arthur_relay.dead_letters import DeadLetter, LetterKey, identity, letter_bytes, read_letter
from arthur_relay.system.files import (
    check_file,
    make_private,
    quarantine,
    remove_aside,
    too_many_aside,
)
from arthur_relay.system.fork_safety import no_fork
from arthur_relay.system.sqlite_pages import DamagedFileError, Pages, is_damaged, is_undecodable
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.dead_letters")

FILE_NAME = "dead-letters.sqlite"

VERSION = 1
"""The version of the tables below; stored by `PRAGMA user_version`."""

LATER_VERSIONS = 100
"""A version at most this far above ours may be a later release's. Any other one is damage."""

WAIT_SECONDS = 1.0
"""How long to wait for another process's write; after that, the next commit tries again."""

READ_ROWS = 100
READ_BYTES = 4 * 1024 * 1024
"""How many letters are read at a time: a reader must not block writers for long."""

PAGE_BYTES = 4096
"""SQLite's default."""

_MOST_SLACK_BYTES = 1024 * 1024
"""How much larger than twice the size of its letters the file may be."""

_BESIDE = ("", "-journal")
_COLUMNS = (
    "inference_id",
    "model_id",
    "kind",
    "reason",
    "status",
    "attempts",
    "rejected_at",
    "destination",
    "body",
    "said",
)
_SAID = "said"
"""The column that tables of earlier versions lack, and that those don't ask for."""

_SIZE = "length(body), length(inference_id) + length(model_id) + length(said)"
"""What a letter counts for is reckoned from."""


_TABLES = f"""
PRAGMA auto_vacuum = FULL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS letters (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    inference_id TEXT NOT NULL,
    model_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    status INTEGER,
    attempts INTEGER NOT NULL,
    rejected_at TEXT NOT NULL,
    destination TEXT NOT NULL,
    body BLOB NOT NULL,
    said TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS held (size INTEGER NOT NULL);
INSERT INTO held SELECT 0 WHERE NOT EXISTS (SELECT * FROM held);
PRAGMA user_version = {VERSION};
COMMIT;
"""  # noqa: S608 - nothing in it comes from outside


class SqliteStore:
    """Letters in a file of a directory. See `DeadLetterStore` for what each method does.

    Args:
        directory: The spool's directory.
        max_bytes: About the most bytes that they may take.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._path = directory / FILE_NAME
        self._max_bytes = max_bytes

    def add(self, letters: Sequence[DeadLetter]) -> int:
        """Keep letters; returns how many older ones were lost.

        A damaged file is quarantined first; its readable letters are kept.
        """
        try:
            return self._add(letters)
        except sqlite3.Error as error:
            if not is_damaged(error):
                raise  # it is locked, or the disk is full, for instance
            aside = quarantine(self._path, datetime.now(UTC), _BESIDE)
            evicted = self._add([*_salvaged(aside), *letters])
            return evicted + self._remove_oldest_aside()

    def letters(self) -> Iterator[tuple[LetterKey, DeadLetter]]:
        """Yield the letters, oldest first; of a damaged file, the readable ones."""
        after = 0
        try:
            while rows := self._read(after):
                yield from rows
                after = rows[-1][0]
        except sqlite3.Error as error:
            if not (is_damaged(error) or is_undecodable(error)):
                raise  # locked, for instance
            yield from [pair for pair in _salvage(self._path) if pair[0] > after]

    def quarantined_letters(self) -> Iterator[DeadLetter]:
        """Yield the readable letters of damaged files, oldest file first."""
        for path in self.quarantined_files():
            yield from _salvaged(path)

    def quarantined_files(self) -> list[Path]:
        """Return the damaged files, oldest first."""
        return sorted(self._path.parent.glob(f"{self._path.stem}-damaged-*.sqlite"))

    def take_back(self) -> None:
        """Move the letters of quarantined files back into the file. Raises what `add` does.

        No letter is evicted for them, because the caller is about to send or remove them. If the
        file itself is damaged, it is quarantined first, because no letter can be removed from it.
        """
        if self._path.exists() and not self._is_whole():
            quarantine(self._path, datetime.now(UTC), _BESIDE)
        known = {identity(letter) for _, letter in self.letters()}
        for path in self.quarantined_files():
            found = [each for each in _salvaged(path) if identity(each) not in known]
            if found:
                self._add(found, evicts=False)
                known |= {identity(each) for each in found}
            path.replace(path.with_name(path.name.replace("-damaged-", "-read-")))
        read = self._path.parent.glob(f"{self._path.stem}-read-*.sqlite")
        for path in too_many_aside(read, most_bytes=self._max_bytes):
            remove_aside(path)

    @no_fork()
    def _is_whole(self) -> bool:
        try:
            with closing(self._open(to_read=True)) as connection:
                ((found,),) = connection.execute("PRAGMA quick_check(1)")
        except sqlite3.Error as error:
            if not is_damaged(error):
                raise
            return False
        return bool(found == "ok")

    def _remove_oldest_aside(self) -> int:
        """Remove the oldest quarantined files; returns how many letters are lost.

        Most of their letters were saved when the file was quarantined.
        """
        removed = too_many_aside(self.quarantined_files(), most_bytes=self._max_bytes)
        if not removed:
            return 0
        known = {identity(letter) for _, letter in self.letters()}
        lost = 0
        for path in removed:
            with suppress(OSError):  # removed with the next damaged file
                lost += len([each for each in _salvaged(path) if identity(each) not in known])
                remove_aside(path)
        logger.warning(
            "arthur-relay: %d damaged files of dead letters, the oldest ones, were removed, with %d"
            " letters that are nowhere else. Files are damaged again and again: check the disk",
            len(removed),
            lost,
        )
        return lost

    @no_fork()
    def count(self) -> dict[str, int]:
        """Return how many letters are kept, by reason."""
        if not self._path.exists():
            return {}
        try:
            return self._count()
        except sqlite3.Error as error:
            if not (is_damaged(error) or is_undecodable(error)):
                raise
            return dict(Counter([letter.reason for _, letter in self.letters()]))

    def _count(self) -> dict[str, int]:
        with closing(self._open(to_read=True)) as connection:
            found = connection.execute("SELECT reason, count(*) FROM letters GROUP BY reason")
            return dict(found.fetchall())

    @no_fork()
    def remove(self, keys: Collection[LetterKey]) -> int:
        """Remove letters; returns how many were still there."""
        if not self._path.exists():
            return 0
        with closing(self._open()) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            return sum([_delete(connection, key) for key in keys])

    @no_fork()
    def _add(self, letters: Sequence[DeadLetter], *, evicts: bool = True) -> int:
        with closing(self._open()) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            letters = [letter.within(self._max_bytes) for letter in letters]
            connection.executemany(
                "INSERT INTO letters (inference_id, model_id, kind, reason, status, attempts,"
                " rejected_at, destination, body, said) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        letter.inference_id,
                        letter.model_id,
                        letter.kind.value,
                        letter.reason,
                        letter.status,
                        letter.attempts,
                        letter.rejected_at.isoformat(),
                        letter.destination,
                        letter.body,
                        letter.said,
                    )
                    for letter in letters
                ],
            )
            added = sum([letter.size for letter in letters])
            connection.execute("UPDATE held SET size = size + ?", (added,))
            self._check_size(connection)
            return self._evict(connection) if evicts else 0

    def _check_size(self, connection: sqlite3.Connection) -> None:
        """Correct the stored size of all letters if damage has made it impossible.

        Too large a size would evict all letters, too small a size would evict none.
        """
        found = connection.execute("SELECT size FROM held").fetchall()
        ((pages,),) = connection.execute("PRAGMA page_count")
        match found:
            case [(int(size),)] if pages * PAGE_BYTES // 2 <= size + _MOST_SLACK_BYTES and (
                0 <= size <= self._max_bytes
            ):
                return
        lengths = connection.execute(f"SELECT {_SIZE} FROM letters")  # noqa: S608 - all ours
        size = sum([letter_bytes(body, texts) for body, texts in lengths])
        connection.execute("DELETE FROM held")
        connection.execute("INSERT INTO held VALUES (?)", (size,))

    def _evict(self, connection: sqlite3.Connection) -> int:
        evicted = 0
        while True:
            ((size,),) = connection.execute("SELECT size FROM held")
            oldest = connection.execute("SELECT min(key) FROM letters").fetchone()[0]
            if size <= self._max_bytes or oldest is None:
                return evicted
            evicted += _delete(connection, oldest)

    @no_fork()
    def _read(self, after: LetterKey) -> list[tuple[LetterKey, DeadLetter]]:
        if not self._path.exists():
            return []
        letters: list[tuple[LetterKey, DeadLetter]] = []
        size = 0
        with closing(self._open(to_read=True)) as connection:
            names = [*_COLUMNS[:-1], _SAID if _has_said(connection) else "''"]
            asked = f"SELECT key, {', '.join(names)} FROM letters WHERE key > ? ORDER BY key"  # noqa: S608 - all ours
            for key, *values in connection.execute(asked, (after,)):
                letters.append((key, _letter(values)))
                size += letters[-1][1].size
                if len(letters) == READ_ROWS or size > READ_BYTES:
                    break
        return letters

    def _open(self, *, to_read: bool = False) -> sqlite3.Connection:
        make_private(self._path)
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=WAIT_SECONDS)
        try:
            connection.execute("PRAGMA fullfsync = 1")  # macOS needs it: `fsync` is not enough
            ((version,),) = connection.execute("PRAGMA user_version")
            if version > VERSION + LATER_VERSIONS:
                what = f"its format is {version}, which no version has"
                raise DamagedFileError(what)  # noqa: TRY301 - the connection is closed
            if version > VERSION and not to_read:
                what = f"{self._path} was written by a later version of arthur-relay"
                raise sqlite3.OperationalError(what)  # noqa: TRY301 - the connection is closed
            if version < VERSION:
                connection.executescript(_TABLES)
            elif not to_read:
                _add_said(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _has_said(connection: sqlite3.Connection) -> bool:
    return any(column[1] == _SAID for column in connection.execute("PRAGMA table_info(letters)"))


def _add_said(connection: sqlite3.Connection) -> None:
    """Add the column to a table of an earlier version, which can go on to use it."""
    if _has_said(connection):
        return
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if not _has_said(connection):  # another process may have added it meanwhile
            connection.execute("ALTER TABLE letters ADD COLUMN said TEXT NOT NULL DEFAULT ''")


def _delete(connection: sqlite3.Connection, key: LetterKey) -> int:
    asked = f"SELECT {_SIZE} FROM letters WHERE key = ?"  # noqa: S608 - all ours
    found = connection.execute(asked, (key,)).fetchone()
    if found is None:
        return 0
    size = letter_bytes(*found)
    connection.execute("DELETE FROM letters WHERE key = ?", (key,))
    connection.execute("UPDATE held SET size = size - ?", (size,))
    return 1


def _letter(values: Sequence[Any]) -> DeadLetter:
    found = dict(zip(_COLUMNS, values, strict=True))
    body = found["body"]
    if isinstance(body, str):
        body = body.encode()
    return read_letter(found, body if isinstance(body, bytes) else b"")


def _salvaged(path: Path) -> list[DeadLetter]:
    """Return the readable letters of a damaged file, oldest first. Raises `OSError`."""
    return [letter for _, letter in _salvage(path)]


def _salvage(path: Path) -> list[tuple[LetterKey, DeadLetter]]:
    check_file(path, path.lstat())
    pages = Pages(path, page_bytes=PAGE_BYTES)
    try:
        found = {
            key: _letter([*values[1:], ""][: len(_COLUMNS)])
            for key, values in pages.records()
            # An earlier version's record ends before Arthur's words.
            if len(values) in (len(_COLUMNS), len(_COLUMNS) + 1) and values[0] is None and key > 0
        }
    finally:
        pages.close()
    return sorted(found.items())
