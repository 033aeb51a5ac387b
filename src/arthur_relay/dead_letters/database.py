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

from arthur_relay.dead_letters import LETTER_OVERHEAD_BYTES, DeadLetter, Key
from arthur_relay.files import make_private, set_aside
from arthur_relay.forks import unforked
from arthur_relay.row import RowKind

FILE_NAME = "dead-letters.sqlite"

VERSION = 1
"""Of the tables below; see `PRAGMA user_version`."""

WAIT_SECONDS = 1.0
"""How long a write of another process is waited for; then it is tried again with the next one."""

READ_ROWS = 100
"""Letters read at a time: a reader must not keep writers out for long."""

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
        """Keep letters; a damaged file is set aside first."""
        try:
            return self._add(letters)
        except sqlite3.OperationalError:
            raise  # locked, or no room: nothing is wrong with the file
        except sqlite3.DatabaseError:
            set_aside(self._path, datetime.now(UTC), ("", "-journal"))
            return self._add(letters)

    def letters(self) -> Iterator[tuple[Key, DeadLetter]]:
        """Yield what is kept, oldest first."""
        after = 0
        while rows := self._read(after):
            yield from rows
            after = rows[-1][0]

    @unforked()
    def count(self) -> dict[str, int]:
        """Return how many are kept, by reason."""
        if not self._path.exists():
            return {}
        with closing(self._open()) as connection:
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
    def _add(self, letters: Sequence[DeadLetter]) -> int:
        with closing(self._open()) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
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
            return self._give_way(connection)

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
        with closing(self._open()) as connection:
            found = connection.execute(
                "SELECT key, kind, rejected_at, body, inference_id, model_id, reason, status,"
                " attempts, destination FROM letters WHERE key > ? ORDER BY key LIMIT ?",
                (after, READ_ROWS),
            ).fetchall()
        return [(key, _letter(kind, at, body, rest)) for key, kind, at, body, *rest in found]

    def _open(self) -> sqlite3.Connection:
        make_private(self._path)
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=WAIT_SECONDS)
        try:
            ((version,),) = connection.execute("PRAGMA user_version")
            if version > VERSION:
                what = f"{self._path} was written by a later version of arthur-relay"
                raise sqlite3.OperationalError(what)  # noqa: TRY301 - the connection is closed
            if version < VERSION:
                connection.executescript(_TABLES)
        except BaseException:
            connection.close()
            raise
        return connection


def _delete(connection: sqlite3.Connection, key: Key) -> int:
    found = connection.execute("SELECT length(body) FROM letters WHERE key = ?", (key,)).fetchone()
    if found is None:
        return 0
    size = found[0] + LETTER_OVERHEAD_BYTES
    connection.execute("DELETE FROM letters WHERE key = ?", (key,))
    connection.execute("UPDATE held SET size = size - ?", (size,))
    return 1


def _letter(kind: str, rejected_at: str, body: bytes, rest: Sequence[Any]) -> DeadLetter:
    inference_id, model_id, reason, status, attempts, destination = rest
    return DeadLetter(
        inference_id=inference_id,
        model_id=model_id,
        kind=RowKind(kind),
        reason=reason,
        status=status,
        attempts=attempts,
        rejected_at=datetime.fromisoformat(rejected_at),
        destination=destination,
        body=body,
    )
