"""Dead letters in the spool's directory: one SQLite file that all its processes share.

It has a rollback journal, not a log: with that any number of processes may write, and letters are
too rare for it to matter. Each call opens the file anew, so forks and threads need no care.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arthur_relay.dead_letters import DeadLetter, Key, letter_bytes, read_letter
from arthur_relay.files import check_file, make_private, set_aside
from arthur_relay.forks import unforked
from arthur_relay.sqlite_pages import Pages

FILE_NAME = "dead-letters.sqlite"

VERSION = 1
"""Of the tables below; see `PRAGMA user_version`."""

WAIT_SECONDS = 1.0
"""How long a write of another process is waited for; then it is tried again with the next one."""

READ_ROWS = 100
READ_BYTES = 4 * 1024 * 1024
"""Letters read at a time: a reader must not keep writers out for long."""

PAGE_BYTES = 4096
"""What SQLite takes when nothing is said."""

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
)

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
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS held (size INTEGER NOT NULL);
INSERT INTO held SELECT 0 WHERE NOT EXISTS (SELECT * FROM held);
PRAGMA user_version = {VERSION};
COMMIT;
"""  # noqa: S608 - nothing in it comes from outside


class Database:
    """Letters in a file of a directory. See `Keeper` for what each method does.

    Args:
        directory: The spool's.
        max_bytes: Bytes that they may take, about.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._path = directory / FILE_NAME
        self._max_bytes = max_bytes

    def add(self, letters: Sequence[DeadLetter]) -> int:
        """Keep letters; a damaged file is set aside first, what can be read of it goes on."""
        try:
            return self._add(letters)
        except sqlite3.OperationalError:
            raise  # locked, or no room: nothing is wrong with the file
        except sqlite3.DatabaseError:
            aside = set_aside(self._path, datetime.now(UTC), _BESIDE)
            return self._add([*salvaged(aside), *letters])

    def letters(self) -> Iterator[tuple[Key, DeadLetter]]:
        """Yield what is kept, oldest first; of a damaged file what can be read."""
        after = 0
        try:
            while rows := self._read(after):
                yield from rows
                after = rows[-1][0]
        except sqlite3.OperationalError as error:
            if hasattr(error, "sqlite_errorcode"):
                raise  # locked, for instance
            yield from self._salvaged(after)  # a text that is none, which Python can't read
        except sqlite3.DatabaseError:
            yield from self._salvaged(after)

    def set_aside_files(self) -> list[Path]:
        """Return the files that were damaged, oldest first."""
        return sorted(self._path.parent.glob(f"{self._path.stem}-damaged-*.sqlite"))

    def take_back(self) -> None:
        """Take over what can be read of files that were set aside. Raises what `add` does.

        Nothing gives way to it: whoever takes them back is about to send or to remove them.
        """
        known = {identity(letter) for _, letter in self.letters()}
        for path in self.set_aside_files():
            found = [each for each in salvaged(path) if identity(each) not in known]
            if found:
                self._add(found, gives_way=False)
                known |= {identity(each) for each in found}
            path.replace(path.with_name(path.name.replace("-damaged-", "-read-")))

    def _salvaged(self, after: Key) -> Iterator[tuple[Key, DeadLetter]]:
        yield from [pair for pair in _salvage(self._path) if pair[0] > after]

    @unforked()
    def count(self) -> dict[str, int]:
        """Return how many are kept, by reason."""
        if not self._path.exists():
            return {}
        with closing(self._open(to_read=True)) as connection:
            found = connection.execute("SELECT reason, count(*) FROM letters GROUP BY reason")
            return dict(found.fetchall())

    @unforked()
    def remove(self, keys: Collection[Key]) -> int:
        """Keep these no longer."""
        if not self._path.exists():
            return 0
        with closing(self._open()) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            return sum([_delete(connection, key) for key in keys])

    @unforked()
    def _add(self, letters: Sequence[DeadLetter], *, gives_way: bool = True) -> int:
        with closing(self._open()) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            letters = [letter.within(self._max_bytes) for letter in letters]
            connection.executemany(
                "INSERT INTO letters (inference_id, model_id, kind, reason, status, attempts,"
                " rejected_at, destination, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                    )
                    for letter in letters
                ],
            )
            added = sum([letter.size for letter in letters])
            connection.execute("UPDATE held SET size = size + ?", (added,))
            return self._give_way(connection) if gives_way else 0

    def _give_way(self, connection: sqlite3.Connection) -> int:
        gone = 0
        while True:
            ((size,),) = connection.execute("SELECT size FROM held")
            oldest = connection.execute("SELECT min(key) FROM letters").fetchone()[0]
            if size <= self._max_bytes or oldest is None:
                return gone
            gone += _delete(connection, oldest)

    @unforked()
    def _read(self, after: Key) -> list[tuple[Key, DeadLetter]]:
        if not self._path.exists():
            return []
        letters: list[tuple[Key, DeadLetter]] = []
        size = 0
        with closing(self._open(to_read=True)) as connection:
            asked = f"SELECT key, {', '.join(_COLUMNS)} FROM letters WHERE key > ? ORDER BY key"  # noqa: S608 - all ours
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
            ((version,),) = connection.execute("PRAGMA user_version")
            if version > VERSION and not to_read:
                what = f"{self._path} was written by a later version of arthur-relay"
                raise sqlite3.OperationalError(what)  # noqa: TRY301 - the connection is closed
            if version < VERSION:
                connection.executescript(_TABLES)
        except BaseException:
            connection.close()
            raise
        return connection


def _delete(connection: sqlite3.Connection, key: Key) -> int:
    asked = (
        "SELECT length(body), length(inference_id) + length(model_id) FROM letters WHERE key = ?"
    )
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


def identity(letter: DeadLetter) -> tuple[object, ...]:
    """Return what two copies of a letter have in common."""
    return letter.inference_id, letter.model_id, letter.kind, letter.reason, letter.rejected_at


def salvaged(path: Path) -> list[DeadLetter]:
    """Return the letters that can be read of a damaged file, oldest first.

    Raises:
        OSError: It can't be read.
    """
    return [letter for _, letter in _salvage(path)]


def _salvage(path: Path) -> list[tuple[Key, DeadLetter]]:
    check_file(path, path.lstat())
    pages = Pages(path, page_bytes=PAGE_BYTES)
    try:
        found = {
            key: _letter(values[1:])
            for key, values in pages.records()
            if len(values) == len(_COLUMNS) + 1 and values[0] is None and key > 0
        }
    finally:
        pages.close()
    return sorted(found.items())
