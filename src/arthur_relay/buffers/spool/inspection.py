"""Looks at what is in a spool's directory without changing it, for a check before a start."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from arthur_relay.buffers.chosen import chosen_buffer
from arthur_relay.buffers.spool.directory import SUFFIX, SpoolDirectory
from arthur_relay.buffers.spool.file_format import (
    APPLICATION_ID,
    LATER_VERSIONS,
    VERSION,
    check_tables,
    is_damage,
    names_owner,
    read_owner,
)
from arthur_relay.row_owner import RowOwner
from arthur_relay.settings import Overflow
from arthur_relay.system.operating_system import AS_IT_IS, lock_file

if TYPE_CHECKING:
    from arthur_relay.settings import RelaySettings


class Condition(Enum):
    """What a file is like."""

    GOOD = "good"
    HELD = "held"
    """A living process has it, so it was not read."""
    NEWER = "newer"
    """A later version wrote it; this one does not start with it."""
    DAMAGED = "damaged"
    """A start makes it anew from what can be read of it."""
    UNREADABLE = "unreadable"
    """It can't be opened."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found in one file.

    Attributes:
        path: The file.
        condition: What it is like.
        rows: Rows in it, where it could be read.
        detail: What is wrong with it, or "".
        owner: Whose the rows are, where it says so.
        is_of_nobody: Whether it should say so, and does not any more.
    """

    path: Path
    condition: Condition
    rows: int = 0
    detail: str = ""
    owner: RowOwner | None = None
    is_of_nobody: bool = False


def try_directory(directory: Path, settings: RelaySettings) -> None:
    """Do what a start does with a spool's directory, in one of its own, and leave nothing behind.

    Permissions don't say it all: in `/proc` root may write, and can make nothing.

    Args:
        directory: The spool's. When it is not there, the nearest one above it is tried.
        settings: What the spool is like.

    Raises:
        ConfigurationError: A start would fail.
    """
    spool = SpoolDirectory(directory)
    path = directory.absolute()
    there = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if there == path:
        spool.prepare()
    try:
        with TemporaryDirectory(prefix=".arthur-relay-check-", dir=there) as temporary:
            where = Path(temporary, path.relative_to(there))
            changed = {"spool_dir": where, "overflow": Overflow.DROP_NEWEST}
            buffer = chosen_buffer(settings.model_copy(update=changed), lambda: RowOwner(""))
            buffer.durable.open()
            buffer.durable.close()
    except OSError as error:
        raise spool.unusable(error) from error


def inspect_spools(directory: Path) -> list[Finding]:
    """Look at each spool file that is there. Reads them whole, writes to none, makes none."""
    return [_inspect(path) for path in sorted(directory.glob(f"*{SUFFIX}"))]


def is_held(lock: Path) -> bool:
    """Say whether a living process holds a lock; one that is not there nobody does."""
    descriptor = _shared(lock)
    if descriptor is None:
        return False
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor < 0


def _shared(lock: Path) -> int | None:
    """Share a lock: -1 when somebody has it, None where there is none to be had.

    It is not made: a file of whoever runs the check might be one that the daemon can't open.
    """
    try:
        descriptor = os.open(lock, os.O_RDONLY | AS_IT_IS)
    except OSError:
        return None
    try:
        lock_file(descriptor, shared=True)
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def _inspect(path: Path) -> Finding:
    # Shared for as long as it is read, so that a daemon which starts meanwhile takes another file.
    held = _shared(path.with_suffix(".lock"))
    if held is not None and held < 0:
        return Finding(path, Condition.HELD)
    try:
        return _read(path)
    finally:
        if held is not None:
            os.close(held)


def _read(path: Path) -> Finding:
    try:
        # After a clean end there is no log: then nothing needs to be made beside the file.
        has_log = path.with_name(f"{path.name}-wal").exists()
        mode = "mode=ro" if has_log else "mode=ro&immutable=1"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as connection:
            return _check(path, connection)
    except sqlite3.Error as error:
        condition = Condition.DAMAGED if is_damage(error) else Condition.UNREADABLE
        return Finding(path, condition, detail=str(error))


def _check(path: Path, connection: sqlite3.Connection) -> Finding:
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    if application == version == tables == 0:
        return Finding(path, Condition.GOOD)  # made, and not yet written to
    if application != APPLICATION_ID:
        return Finding(path, Condition.DAMAGED, detail="it is another application's")
    if VERSION < version <= VERSION + LATER_VERSIONS:
        return Finding(path, Condition.NEWER, detail=f"format {version}, known is {VERSION}")
    check_tables(connection, version)
    ((found,),) = connection.execute("PRAGMA quick_check(1)")
    if found != "ok":
        return Finding(path, Condition.DAMAGED, detail=str(found).replace("\n", " "))
    return _count(path, connection)


def _count(path: Path, connection: sqlite3.Connection) -> Finding:
    ((rows, held),) = connection.execute(
        "SELECT (SELECT count(*) FROM rows), (SELECT rows FROM held)"
    )
    if rows != held:
        return Finding(path, Condition.DAMAGED, rows, f"it has {rows} rows and says {held}")
    if not names_owner(connection):
        return Finding(path, Condition.GOOD, rows)
    owner = read_owner(connection)
    return Finding(path, Condition.GOOD, rows, owner=owner, is_of_nobody=owner is None and rows > 0)
