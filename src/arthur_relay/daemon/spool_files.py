"""Puts spool files where the pipeline of their product looks for them, before it starts.

A daemon for one product has its spool in the directory that is set; one for both has the Engine's
in a directory within. So a daemon that gains or loses a product may find files of the Engine in the
other place.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

from arthur_relay.buffers.spool.directory import SUFFIX, SpoolDirectory
from arthur_relay.buffers.spool.inspection import Condition, inspect_file
from arthur_relay.encoding.product import Product, product_of_address

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.buffers.spool.inspection import Finding

logger = logging.getLogger("arthur_relay.daemon")


def move_engine_files(source: Path, target: Path) -> int:
    """Move the Engine's spool files to another directory of the same file system.

    Files that a process holds, and those that are damaged, stay; so does one that can't be moved.

    Args:
        source: Where they are; it need not exist.
        target: Where they should be.

    Returns:
        How many were moved.

    Raises:
        SpoolError: One of the directories can't be used.
    """
    if source == target or not source.is_dir():
        return 0
    moved = 0
    directory = SpoolDirectory(source)
    directory.prepare()
    for claim in directory.orphans():
        try:
            found = inspect_file(claim.path)
            if found.condition is Condition.GOOD and is_for_engine(found):
                SpoolDirectory(target).prepare()
                _move(claim.path, _free_name(target))
                moved += 1
        except (OSError, sqlite3.Error) as error:
            logger.warning("the spool file %s is left where it is: %s", claim.path, error)
        finally:
            claim.release()
    if moved:
        logger.info("%d spool files with rows for Arthur Engine are now in %s", moved, target)
    return moved


def is_for_engine(found: Finding) -> bool:
    """Return whether a spool file has rows, and they are for Arthur Engine."""
    if not found.rows:
        return False
    if found.owner is not None:
        return product_of_address(found.owner.address) is Product.ENGINE
    return found.product is Product.ENGINE


def _move(path: Path, target: Path) -> None:
    """Move a database that nobody has open.

    Its log is written back first: a crash between the moves of two files would lose what is in it.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise OSError("its log can't be written back")
    path.rename(target)


def _free_name(directory: Path) -> Path:
    """Return the path of the first spool file that is not there."""
    return next(
        path
        for number in count()
        if not (path := directory / f"{number}{SUFFIX}").exists()
        and not path.with_suffix(".lock").exists()
    )
