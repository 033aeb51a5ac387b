"""Inspects a spool's directory without changing it, for a check before a start."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from arthur_relay.buffers.spool.buffer import Spool, nobody
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
from arthur_relay.encoding.product import Product, product_of_row
from arthur_relay.row import RowOwner
from arthur_relay.system.file_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from arthur_relay.settings import RelaySettings


class Condition(Enum):
    """The condition of a spool file."""

    GOOD = "good"
    HELD = "held"
    """A running process holds it, so it was not read."""
    NEWER = "newer"
    """A later version wrote it, so this version refuses to start with it."""
    DAMAGED = "damaged"
    """At the next start, it is rebuilt from its readable rows."""
    UNREADABLE = "unreadable"
    """It cannot be opened."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding for one file.

    Attributes:
        path: The file.
        condition: Its condition.
        rows: The number of its rows, if it could be read.
        detail: What is wrong with it, or "".
        owner: Who owns the rows, if the file names an owner.
        is_of_nobody: Whether it should name an owner but no longer does.
        product: The product that its rows are for, as the first one says, or None without rows.
    """

    path: Path
    condition: Condition
    rows: int = 0
    detail: str = ""
    owner: RowOwner | None = None
    is_of_nobody: bool = False
    product: Product | None = None


def try_directory(directory: Path, settings: RelaySettings) -> None:
    """Try a start in a temporary directory inside the spool's, and leave nothing behind.

    Permissions are not enough: in `/proc`, root may write but cannot create files.

    Args:
        directory: The spool's directory. If it does not exist, its nearest existing parent is used.
        settings: The spool's settings.

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
            trial = Spool.of(where, settings, nobody, Product.SCOPE.words)
            trial.open()
            trial.close()
    except OSError as error:
        raise spool.unusable(error) from error


def inspect_spools(
    directory: Path, *, through: Callable[[Sequence[Path]], Iterable[Path]] = iter
) -> list[Finding]:
    """Inspect every spool file: reads it whole and writes nothing.

    Args:
        directory: The spool's directory.
        through: Passes the files on one by one, and can show how far it is.
    """
    return [_inspect(path) for path in through(sorted(directory.glob(f"*{SUFFIX}")))]


def inspect_file(path: Path) -> Finding:
    """Inspect one spool file, whose lock the caller holds."""
    return _read(path)


def is_held(lock: Path) -> bool:
    """Return whether a running process holds a lock file, which may not exist.

    It is not created, because the daemon might be unable to open a file of the user of the check.
    """
    try:
        shared = FileLock.share(lock)
    except OSError:
        return False
    if shared is None:
        return True
    shared.release()
    return False


def _inspect(path: Path) -> Finding:
    # Shared while it is read, so that a daemon that starts meanwhile takes another file.
    with ExitStack() as stack:
        with suppress(OSError):  # without a lock file, no process has it
            shared = FileLock.share(path.with_suffix(".lock"))
            if shared is None:
                return Finding(path, Condition.HELD)
            stack.callback(shared.release)
        return _read(path)


def _read(path: Path) -> Finding:
    try:
        # After a clean end there is no log; then SQLite need not create any file.
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
        return Finding(path, Condition.GOOD)  # created, and not yet written to
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
    product = _product(connection)
    if not names_owner(connection):
        return Finding(path, Condition.GOOD, rows, product=product)
    owner = read_owner(connection)
    is_of_nobody = owner is None and rows > 0
    return Finding(
        path, Condition.GOOD, rows, owner=owner, is_of_nobody=is_of_nobody, product=product
    )


def _product(connection: sqlite3.Connection) -> Product | None:
    for (body,) in connection.execute("SELECT body FROM rows ORDER BY seq LIMIT 1"):
        return product_of_row(body) if isinstance(body, bytes) else None
    return None
