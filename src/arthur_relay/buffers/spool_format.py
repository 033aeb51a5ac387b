"""The tables of a spool's file: how they are made, and how an older version's become today's."""

import sqlite3
from collections.abc import Sequence

from arthur_relay.errors import SpoolError
from arthur_relay.row import NO_HISTORY, History
from arthur_relay.row_owner import RowOwner

APPLICATION_ID = 0x41525359
"""Tells a spool from any other SQLite file; see `PRAGMA application_id`."""

VERSION = 2
"""Of the tables below; see `PRAGMA user_version`. The first one had no histories, no checksums
and no owners."""

PAGE_BYTES = 16384
"""A row of 2 KB fits into a page with others; the default of 4 KB would hold one and a half."""

_BEFORE_FIRST_TABLE = f"""
PRAGMA page_size = {PAGE_BYTES};
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
"""

_TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE rows (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    model_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    shrunk INTEGER NOT NULL,
    stored_at REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE models (model_id TEXT PRIMARY KEY, description TEXT NOT NULL);
CREATE TABLE held (rows INTEGER NOT NULL, last_seq INTEGER NOT NULL);
INSERT INTO held VALUES (0, 0);
"""

# A file of today is one of the first version with these, so that both have the same columns in the
# same order. Columns with a default are added without writing any row.
_SINCE_2 = """
ALTER TABLE rows ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rows ADD COLUMN since REAL;
ALTER TABLE rows ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rows ADD COLUMN crc INTEGER;
CREATE TABLE owner (address TEXT NOT NULL, organization TEXT, principal TEXT);
"""

_DAMAGE = (10 | 2 << 8, 10 | 33 << 8)  # SQLITE_IOERR_SHORT_READ, SQLITE_IOERR_CORRUPTFS

_MARKS = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""


class NewerSpoolError(SpoolError):
    """A later version of this package wrote the file; it is left as it is."""


class NotASpoolError(Exception):
    """The file is damaged, or something else; the text says which."""


class DamagedSpoolError(sqlite3.DatabaseError):
    """What is in the file is not what was written there, though SQLite can read it."""


class ForeignSpoolError(Exception):
    """The file's rows belong to another address or organisation; it is left as it is.

    Attributes:
        owner: Whose they are.
        rows: How many.
        is_sure: Whether it is known that they do, and will not turn out later.
    """

    def __init__(self, owner: RowOwner, *, rows: int, is_sure: bool) -> None:
        super().__init__(f"{rows} rows for {owner}")
        self.owner = owner
        self.rows = rows
        self.is_sure = is_sure


def is_damage(error: Exception) -> bool:
    """Say whether an error means that a file is damaged, so that trying again can't help."""
    if isinstance(error, DamagedSpoolError | NotASpoolError):
        return True
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code in _DAMAGE or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def read_owner(connection: sqlite3.Connection) -> tuple[RowOwner, int] | None:
    """Return whose rows are in a file, and how many.

    Returns:
        None when it does not say: it is new, or of the first version.

    Raises:
        sqlite3.Error: It can't be read.
    """
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    if application != APPLICATION_ID or not 2 <= version <= VERSION:
        return None
    for address, organization, principal in connection.execute("SELECT * FROM owner"):
        ((rows,),) = connection.execute("SELECT rows FROM held")
        return RowOwner(address, organization, principal), int(rows)
    return None


def set_up_tables(connection: sqlite3.Connection, path: object) -> None:
    """Make the tables of a new file, or bring those of an older version up to date.

    Each in one transaction: a crash leaves the file as it was before, or as it is afterwards.

    Args:
        connection: To the file, in autocommit mode.
        path: The file's name, for the error.

    Raises:
        NewerSpoolError: See there.
        NotASpoolError: See there.
        sqlite3.Error: It can't be read or written.
    """
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    if application == version == tables == 0:
        connection.executescript(_BEFORE_FIRST_TABLE)
        _make(connection, _TABLES + _SINCE_2)
    elif application != APPLICATION_ID:
        raise NotASpoolError("it is another application's")
    elif version > VERSION:
        raise NewerSpoolError(
            f"The spool file {path} was written by a later version of arthur-relay (its"
            f" format is {version}, this version knows {VERSION}): install that version, or"
            " give another spool_dir."
        )
    elif version < VERSION:
        _make(connection, "BEGIN IMMEDIATE;" + _SINCE_2)


def _make(connection: sqlite3.Connection, script: str) -> None:
    try:
        connection.executescript(script + _MARKS)
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def history_of(values: Sequence[object]) -> History:
    """Return a row's history of its three columns; none of what was never written there.

    A row's checksum is of its body alone, so a damaged file may hold anything here.
    """
    match values:
        case (int(attempts), None | float() | int() as since, int(deaths)):
            if attempts or deaths or since is not None:
                return History(attempts, since, deaths)
    return NO_HISTORY  # as nearly all have: one object for all of them
