"""The tables of a spool's file, and how those of an older version are brought up to date."""

import math
import sqlite3
from collections.abc import Callable, Sequence

from arthur_relay.errors import SpoolError
from arthur_relay.row import NO_HISTORY, History, RowOwner
from arthur_relay.sentences import named
from arthur_relay.system.sqlite_pages import DamagedFileError, is_damaged, is_undecodable

Execute = Callable[[str, Sequence[object]], object]

APPLICATION_ID = 0x41525359
"""Distinguishes a spool from other SQLite files; see `PRAGMA application_id`."""

VERSION = 2
"""The version of the tables; see `PRAGMA user_version`. Version 1 had no histories, checksums and
owners."""

LATER_VERSIONS = 100
"""A version at most this far above ours may be a later release's. Any other one is damage."""

MOST_SEQ = 1 << 62
"""More than any sequence number. SQLite's limit is twice as high."""

PAGE_BYTES = 16384
"""Several rows of 2 KB fit into a page; the default of 4 KB would hold one and a half."""

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

# These are also added to new files, so that old and new ones have the same columns in the same
# order. A column with a default is added without rewriting any row.
_SINCE_2 = """
ALTER TABLE rows ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rows ADD COLUMN since REAL;
ALTER TABLE rows ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rows ADD COLUMN crc INTEGER;
CREATE TABLE owner (address TEXT NOT NULL, organization TEXT, principal TEXT);
ALTER TABLE rows ADD COLUMN unknown_since REAL;
"""

# Earlier releases created files of this version without it, and they ignore it.
_ADDED_LATER = "ALTER TABLE rows ADD COLUMN unknown_since REAL"

# On its own page, so that one damaged page does not lose the owner. Earlier releases of this
# version ignore it.
_OWNER_COPY = "CREATE TABLE IF NOT EXISTS owner_copy AS SELECT * FROM owner"

_REFUSED = "refused:"
"""The prefix of a principal whose key was refused. To earlier releases, it is another owner."""

_INCREMENTAL = 2
"""The `PRAGMA auto_vacuum` of files that can shrink."""

_MOST_COUNTED = 1 << 31
"""More than any count of attempts."""

_MARKS = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


class NewerSpoolError(SpoolError):
    """A later version of this package wrote the file. The file stays as it is."""


class NotASpoolError(Exception):
    """The file is damaged, or not a spool; the text says which."""


class ForeignSpoolError(Exception):
    """The file's rows are for another address or organisation. The file stays as it is.

    Also raised when damage has destroyed the owner.

    Attributes:
        owner: The owner, or None when the file does not name one.
        rows: How many rows the file has.
        is_sure: Whether this is certain. If not, the rows may turn out to be ours.
    """

    def __init__(self, owner: RowOwner | None, *, rows: int, is_sure: bool) -> None:
        super().__init__(f"{rows} rows for {owner or 'nobody that it names'}")
        self.owner = owner
        self.rows = rows
        self.is_sure = is_sure


def times_cut(value: object) -> int:
    """Return how often a row was cut, from its column; 0 for an impossible value."""
    return value if type(value) is int and 0 <= value < _MOST_COUNTED else 0


def is_damage(error: Exception) -> bool:
    """Return whether an error means that a file is damaged, so that a retry cannot help."""
    return isinstance(error, NotASpoolError) or is_damaged(error)


def names_owner(connection: sqlite3.Connection) -> bool:
    """Return whether the format of a file names the owner of the rows.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    return bool(application == APPLICATION_ID and 2 <= version <= VERSION)


def read_owner(connection: sqlite3.Connection) -> RowOwner | None:
    """Return the owner that a file names, or None when it is lost.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    columns = "SELECT address, organization, principal FROM"
    for table in ("owner", "owner_copy"):
        try:
            found = connection.execute(f"{columns} {table}").fetchall()
        except sqlite3.OperationalError as error:
            if table == "owner" and not is_undecodable(error):
                raise
            continue  # there may be no copy
        match found:
            case [(str(address), None | str() as organization, None | str() as principal)]:
                return owner_of(address, organization, principal)
    return None


def owner_of(address: str, organization: str | None, principal: str | None) -> RowOwner:
    """Return the owner from its three columns."""
    digest = (principal or "").removeprefix(_REFUSED)
    is_refused = principal is not None and digest != principal
    return RowOwner(address, organization, digest if is_refused else principal, is_refused)


def set_up_tables(connection: sqlite3.Connection, path: object, owner: RowOwner) -> None:
    """Create the tables of a new file, or bring those of an older version up to date.

    Each takes one transaction, so that a crash leaves the file as before or as afterwards.

    Args:
        connection: To the file, in autocommit mode.
        path: The file's name, for the error.
        owner: Who owns the rows of a file that does not name an owner yet.

    Raises:
        NewerSpoolError: See there.
        NotASpoolError: See there.
        sqlite3.Error: It cannot be read or written.
    """
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    if application == version == tables == 0:
        ((pages,),) = connection.execute("PRAGMA page_count")
        if pages > 1:
            raise NotASpoolError("its tables are gone")
        connection.executescript(_BEFORE_FIRST_TABLE)
        _make(connection, _TABLES + _SINCE_2, owner)
        return
    if application != APPLICATION_ID:
        raise NotASpoolError("it is another application's")
    if VERSION < version <= VERSION + LATER_VERSIONS:
        raise NewerSpoolError(
            f"The spool file {path} was written by a later version of arthur-relay (its"
            f" format is {version}, this version knows {VERSION}): install that version, or"
            f" give another {named('spool_dir')}."
        )
    check_tables(connection, version)
    if version < VERSION:
        _make(connection, "BEGIN IMMEDIATE;" + _SINCE_2, owner)
        return
    ((is_there,),) = connection.execute(
        "SELECT count(*) FROM pragma_table_info('rows') WHERE name = 'unknown_since'"
    )
    if not is_there:
        connection.execute(_ADDED_LATER)
    try:
        connection.execute(_OWNER_COPY)
    except sqlite3.Error as error:
        if is_damage(error):
            raise  # a full disk, for instance, is no reason not to open it


def check_tables(connection: sqlite3.Connection, version: int) -> None:
    """Check that the tables are those of our version or an older one.

    Raises:
        DamagedFileError: They are not.
        sqlite3.Error: The same, or they cannot be read.
    """
    if not 1 <= version <= VERSION:
        raise DamagedFileError(f"its format is {version}, which no version has")
    ((vacuum,),) = connection.execute("PRAGMA auto_vacuum")
    if vacuum != _INCREMENTAL:
        raise DamagedFileError("its header is not as it was written")
    names = "SELECT count(*) FROM sqlite_master WHERE name = 'owner'"
    ((owners,),) = connection.execute(names)
    if bool(owners) != (version > 1):
        raise DamagedFileError(f"its tables are not those of format {version}")
    since_2 = ", attempts, since, deaths, crc" if version > 1 else ""
    columns = f"seq, id, model_id, kind, epoch, shrunk, stored_at, body{since_2}"
    connection.execute(f"SELECT {columns} FROM rows LIMIT 0")  # noqa: S608 - all ours
    connection.execute("SELECT model_id, description FROM models LIMIT 0")


def _make(connection: sqlite3.Connection, script: str, owner: RowOwner) -> None:
    try:
        connection.executescript(script + _MARKS)
        write_owner(connection.execute, owner)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def write_owner(execute: Execute, owner: RowOwner | None) -> None:
    """Write the owner within a transaction. None for an unknown owner."""
    execute(_OWNER_COPY, ())
    execute("DELETE FROM owner", ())
    execute("DELETE FROM owner_copy", ())
    if owner is not None:
        principal = f"{_REFUSED}{owner.principal}" if owner.is_refused else owner.principal
        values = (owner.address, owner.organization, principal)
        execute("INSERT INTO owner VALUES (?, ?, ?)", values)
        execute("INSERT INTO owner_copy VALUES (?, ?, ?)", values)


def history_of(values: Sequence[object]) -> History:
    """Return a row's history from its four columns; none for impossible values.

    A row's checksum is for its body only, so a damaged file may have any values here.
    """
    match values:
        case (
            int(attempts),
            None | float() | int() as since,
            int(deaths),
            None | float() | int() as unknown_since,
        ) if (
            0 <= attempts < _MOST_COUNTED
            and 0 <= deaths < _MOST_COUNTED
            and (since is None or math.isfinite(since))
            and (unknown_since is None or math.isfinite(unknown_since))
        ):
            if attempts or deaths or (since, unknown_since) != (None, None):
                return History(attempts, since, deaths, unknown_since)
    return NO_HISTORY  # nearly always: one object for all rows
