"""The tables of a spool's file: how they are made, and how an older version's become today's."""

import sqlite3

from arthur_relay.errors import SpoolError

APPLICATION_ID = 0x41525359
"""Tells a spool from any other SQLite file; see `PRAGMA application_id`."""

VERSION = 2
"""Of the tables below; see `PRAGMA user_version`. The first one had neither histories nor owners.
"""

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
CREATE TABLE owner (address TEXT NOT NULL, organization TEXT);
"""

_MARKS = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""


class NewerSpoolError(SpoolError):
    """A later version of this package wrote the file; it is left as it is."""


class NotASpoolError(Exception):
    """The file is damaged, or something else; the text says which."""


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
