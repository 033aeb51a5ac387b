"""`arthur-relay spool`: what waits on disk, whose it is, and how to send it somewhere else."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from pathlib import Path

from arthur_relay.buffers.spool.directory import SUFFIX, SpoolDirectory
from arthur_relay.buffers.spool.file_format import NotASpoolError
from arthur_relay.buffers.spool.inspection import Condition, Finding, inspect_spools
from arthur_relay.buffers.spool.sqlite_file import SpoolFile
from arthur_relay.cli import fail
from arthur_relay.cli.progress import files_looked_at
from arthur_relay.cli.target import Target, other_product, settings_of_environment
from arthur_relay.cli.wide_table import print_wide_table
from arthur_relay.encoding.product import Product
from arthur_relay.errors import ConfigurationError
from arthur_relay.row import RowOwner
from arthur_relay.system.terminal import printable


def run_list() -> None:
    """Print the spool's files: how many inferences wait in each, for whom, and who has it."""
    directory = _directory()
    target = Target.of_environment(settings_of_environment())
    me = target.owner
    found = inspect_spools(directory, through=files_looked_at) if directory.is_dir() else []
    rows_are = _rows_are({each.product for each in found} - {None} or {target.product})
    if found:
        print_wide_table(
            ("file", rows_are, "for", "state"),
            [
                (
                    each.path.name,
                    str(each.rows) if each.condition is Condition.GOOD else "?",
                    "?" if each.owner is None else str(each.owner),
                    _state(each, me, target.product),
                )
                for each in found
            ],
        )
    aside = sorted(each.name for each in directory.glob("*-damaged-*.sqlite"))
    print(f"{sum(each.rows for each in found)} {rows_are} wait in {len(found)} files")
    if aside:
        names = printable(", ".join(aside))
        print(f"{len(aside)} files were damaged and set aside: {names}")


def run_adopt(name: str) -> None:
    """Make the Arthur of the environment the destination of a file's inferences.

    Args:
        name: The file, by its path or as `list` shows it.

    Raises:
        typer.Exit: With 1 when it can't be, with 2 when there is no such file.
    """
    directory, target = _directory(), Target.of_environment(settings_of_environment())
    me = target.owner
    path = Path(name) if Path(name).exists() else directory / name
    if path.suffix != SUFFIX:
        fail(f"{path} is no spool file: give one that `arthur-relay spool list` shows.", code=2)
    there = inspect_spools(path.parent)
    # As it is, or as `list` shows it.
    found = next((each for each in there if each.path == path), None) or next(
        (each for each in there if printable(each.path.name) == path.name), None
    )
    if found is None:
        fail(f"There is no file {path}.", code=2)
    path = found.path
    if found.condition in (Condition.NEWER, Condition.UNREADABLE):
        fail(f"{path} can't be adopted: {found.detail}.")
    if found.product not in (None, target.product):
        fail(f"{path} can't be adopted: its rows are {other_product(found.product, target)}.")
    try:
        claim = SpoolDirectory(path.parent).claim_file(path)
        if claim is None:
            fail(f"{path} is in use by a process: end that first.")
        try:
            file = SpoolFile(path, power_safe=True, owner=me, is_adopted=True)
            try:
                rows = file.rows
            finally:
                file.close()
        finally:
            claim.release()
    except (ConfigurationError, NotASpoolError, OSError, sqlite3.Error) as error:
        fail(f"{path} can't be adopted: {error}")
    sentence = (
        f"{rows} {_rows_are({target.product})} in {path} go to {me} now, where they were for"
        f" {found.owner or 'nobody in particular'}: by the next process that starts with"
        f" {path.parent}, or by one that runs, within a minute"
    )
    print(printable(sentence))


def _state(found: Finding, me: RowOwner, product: Product) -> str:
    match found.condition:
        case Condition.HELD:
            return "in use by a process"
        case Condition.GOOD if found.product not in (None, product):
            return f"left alone: it is for {found.product}, and we send to {product}"
        case Condition.GOOD if found.is_of_nobody:
            return "left alone: it does not say any more for whom it is"
        case Condition.GOOD if found.owner is None:
            return "for whoever starts next"
        case Condition.GOOD:
            return _whose(found.owner or me, me)
        case _:
            return f"{found.condition.value}: {found.detail}"


def _whose(owner: RowOwner, me: RowOwner) -> str:
    match me.may_send(owner):
        case None:
            return "ours, if the organisation is"
        case True:
            return "ours"
        case False if str(owner) == str(me):
            return "left alone: it was captured with another key"
        case False:
            return f"left alone: we send to {me}"


def _rows_are(products: Collection[Product | None]) -> str:
    """Return what the rows of products are called."""
    names = {"rows" if each is None else each.words.many for each in products}
    return names.pop() if len(names) == 1 else "rows"


def _directory() -> Path:
    directory = settings_of_environment().spool_dir
    if directory is None:
        fail("There is no spool: set ARTHUR_RELAY_SPOOL_DIR to what the applications have.", code=2)
    return directory
