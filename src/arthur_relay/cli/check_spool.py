"""What a check finds on disk: the spool's directory and files, and the dead letters' file."""

from __future__ import annotations

import os
import shutil
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from arthur_relay.buffers.spool.inspection import Condition, inspect_spools, is_held, try_directory
from arthur_relay.cli.progress import files_looked_at
from arthur_relay.daemon.directory_lock import NAME
from arthur_relay.daemon.spool_files import is_for_engine
from arthur_relay.encoding.product import product_of_address
from arthur_relay.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.buffers.spool.inspection import Finding
    from arthur_relay.cli.report import Report
    from arthur_relay.encoding.product import Product
    from arthur_relay.row import RowOwner
    from arthur_relay.settings import RelaySettings


def check_spool(
    report: Report,
    settings: RelaySettings,
    me: RowOwner | None,
    *,
    engine_directory: Path | None = None,
) -> bool:
    """Look at the spool's directory and files, and change nothing.

    Args:
        report: Collects what was found.
        settings: Where the spool is, and how large it may be.
        me: The account that would send the rows, as far as it is known.
        engine_directory: Where a start puts files of Arthur Engine that are in the spool's
            directory, if it is another one.

    Returns:
        Whether a daemon has it now.
    """
    directory = settings.spool_dir
    if directory is None:
        return False
    is_there = os.path.lexists(directory)
    if is_there and not (directory.is_dir() and os.access(directory, os.R_OK | os.W_OK | os.X_OK)):
        report.wrong(
            "Spool",
            f"{directory} is no directory that this user can write to; run this check as the"
            " user that it is for.",
        )
        return False
    try:
        try_directory(directory, settings)
    except ConfigurationError as error:
        report.wrong("Spool", str(error))
        return False
    if not is_there:
        report.fine("Spool", f"{directory} is not there yet, and can be made.")
        return False
    running = is_held(directory / NAME)
    if running:
        report.note("Spool", f"A daemon runs with {directory}: its files are not read.")
    _check_files(report, directory, me, engine_directory)
    _check_room(report, directory, settings)
    return running


def check_files_to_move(report: Report, source: Path, target: Path) -> None:
    """Report the files of Arthur Engine that a start moves from another directory."""
    if source == target or not source.is_dir():
        return
    for found in inspect_spools(source, through=files_looked_at):
        if found.condition is Condition.GOOD and is_for_engine(found):
            _note_move(report, found, target)


def _note_move(report: Report, found: Finding, target: Path) -> None:
    report.note(
        "Spool",
        f"{found.path} has {found.rows} rows for Arthur Engine: a start moves it to {target}.",
    )


def _check_files(
    report: Report, directory: Path, me: RowOwner | None, engine_directory: Path | None
) -> None:
    rows = files = 0
    for found in inspect_spools(directory, through=files_looked_at):
        name = found.path.name
        match found.condition:
            case Condition.GOOD if engine_directory and is_for_engine(found):
                _note_move(report, found, engine_directory)
            case Condition.GOOD if me and found.rows and _is_for_other(found.product, me):
                report.warn(
                    "Spool",
                    f"{name} has {found.rows} rows for {found.product}: it is left alone; only a"
                    " process that sends there delivers them.",
                )
            case Condition.GOOD if (
                me and found.rows and found.owner and me.may_send(found.owner) is False
            ):
                report.warn(
                    "Spool",
                    f"{name} has {found.rows} rows for {found.owner}: it is left alone, unless"
                    f" arthur-relay spool adopt {name} says otherwise.",
                )
            case Condition.GOOD:
                rows += found.rows
                files += 1
            case Condition.HELD:
                report.note("Spool", f"{name} is in use by a process, and not read.")
            case Condition.NEWER:
                report.wrong(
                    "Spool", f"{name} was written by a later version ({found.detail}): install it."
                )
            case Condition.UNREADABLE:
                report.wrong("Spool", f"{name} can't be read ({found.detail}).")
            case Condition.DAMAGED:
                # The daemon starts all the same.
                report.warn(
                    "Spool",
                    f"{name} is damaged ({found.detail}): a start delivers what can be read of it,"
                    " counts the rest as dropped, and keeps the file under another name.",
                )
    report.fine("Spool", f"{directory}: {rows} rows wait in {files} files, which are intact.")


def _is_for_other(product: Product | None, me: RowOwner) -> bool:
    return product not in (None, product_of_address(me.address))


def _check_room(report: Report, directory: Path, settings: RelaySettings) -> None:
    taken = sum(each.stat().st_size for each in directory.iterdir() if each.is_file())
    free = shutil.disk_usage(directory).free
    wanted = settings.spool_bytes + settings.dead_letter_bytes
    if taken + free < wanted:
        report.warn(
            "Disk",
            f"It has {free >> 20} MiB free; a full spool with its dead letters takes"
            f" {wanted >> 20} MiB (ARTHUR_RELAY_SPOOL_BYTES, ARTHUR_RELAY_DEAD_LETTER_BYTES).",
        )
    else:
        report.fine("Disk", f"There is room: {free >> 20} MiB free.")


def check_dead_letter_file(report: Report, path: Path | None) -> None:
    """Warn if the file of dead letters can't be written: the daemon starts all the same."""
    if path is None:
        return
    try:
        if os.path.lexists(path):
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
        else:
            with TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        report.warn(
            "Letters",
            f"{path} can't be written ({error.strerror}): rejected rows would not be in it"
            " (ARTHUR_RELAY_DEAD_LETTER_FILE).",
        )
