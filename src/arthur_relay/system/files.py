"""Files that hold prompts: private to their owner, and renamed with a date once they are damaged.

Whoever can write to such a file, or replace it, could read what we write there or make us read
something else. So a file that another user owns or may write to is refused, and so is any link. A
file of our own that others may only read is accepted: its owner has decided so.

A directory may also belong to root. Write permission for a group is accepted when the directory has
the set-group-id bit and the group is one of ours, which is how Kubernetes mounts volumes. Then the
group may write to the files in it too. The top of a volume of root's that everybody may write to,
without the sticky bit, is accepted as well: an `emptyDir` is one, and only its pod can access it.
The parents of the directory are up to its administrator: whoever can replace the directory can't
read our files, and the replacement is noticed.

Windows has no mode bits: there only links are refused, and who may write to a directory is up to
who has made it.
"""

import os
import re
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from errno import ELOOP, ENOTDIR, EPERM
from itertools import count
from pathlib import Path

from arthur_relay.system import native
from arthur_relay.system.operating_system import (
    AS_BYTES,
    AS_IT_IS,
    CAN_REFUSE_LINKS,
    HAS_OWNERS,
    our_groups,
    our_user,
)

KEPT_ASIDE = 5
"""The most quarantined files that are kept: enough to find out what damages them."""

_MARK = "-damaged-"


class UntrustedError(OSError):
    """Another user could write to a file or directory; `strerror` says how, and what to do."""


def open_private(path: Path, flags: int = os.O_CREAT | os.O_RDWR, *, shared: bool = False) -> int:
    """Open a file that only its owner can write to; a new file is readable for its owner only.

    Args:
        path: The file. It must not be a link itself.
        flags: As for `os.open`.
        shared: Whether its group may write to it as well.

    Returns:
        A descriptor.

    Raises:
        UntrustedError: It is a link or not a regular file, or others may write to it.
        OSError: It can't be opened.
    """
    if not CAN_REFUSE_LINKS and path.is_symlink():
        raise _link(path)
    try:
        descriptor = native.open_file(path, flags | AS_IT_IS | AS_BYTES, 0o600)
    except OSError as error:
        if error.errno == ELOOP:
            raise _link(path) from None
        raise
    try:
        check_file(path, os.fstat(descriptor), shared=shared)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_file(path: Path, status: os.stat_result, *, shared: bool = False) -> None:
    """Check who owns a file and who may write to it.

    Args:
        path: The file, for the error.
        status: The result of `lstat` or `fstat`.
        shared: Whether its group may write to it.

    Raises:
        UntrustedError: It is a link or not a regular file, or others may write to it.
    """
    if stat.S_ISLNK(status.st_mode):
        raise _link(path)
    if not stat.S_ISREG(status.st_mode):
        raise UntrustedError(EPERM, f"{path} is no regular file")
    if not HAS_OWNERS:
        return
    if status.st_uid != our_user():
        raise UntrustedError(
            EPERM, f"{path} belongs to another user ({status.st_uid}): remove it, or run as that"
        )
    if status.st_mode & (stat.S_IWOTH if shared else stat.S_IWOTH | stat.S_IWGRP):
        raise UntrustedError(EPERM, f"other users may write to {path}: chmod go-w {path}")


def _link(path: Path) -> UntrustedError:
    return UntrustedError(EPERM, f"{path} is a link, and links are not followed")


def check_directory(path: Path) -> bool:
    """Check who may write to a directory.

    Returns:
        Whether its group may write to it, which is allowed if its owner has intended it.

    Raises:
        UntrustedError: Others may write to it.
        OSError: It is not a directory, or can't be read.
    """
    link, status = path.lstat(), path.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR))
    if not HAS_OWNERS:
        return False
    for owner in (link.st_uid, status.st_uid):
        if owner not in (0, our_user()):
            raise UntrustedError(
                EPERM, f"it belongs to another user ({owner}): make one of your own, or run as that"
            )
    if status.st_uid == 0 and not status.st_mode & stat.S_ISVTX and path.is_mount():
        return True
    shared = bool(status.st_mode & stat.S_IWGRP)
    is_meant = status.st_mode & stat.S_ISGID and status.st_gid in our_groups()
    if status.st_mode & stat.S_IWOTH or (shared and not is_meant):
        raise UntrustedError(EPERM, f"other users may write to it: chmod go-w {path}")
    return shared


def make_private(path: Path, *, shared: bool = False) -> None:
    """Create a file that only its owner can read, if it does not exist.

    Raises:
        OSError: As `open_private`.
    """
    os.close(open_private(path, shared=shared))


def quarantine(path: Path, moment: datetime, beside: Sequence[str] = ("",)) -> Path:
    """Rename a damaged file, so that no relay opens it again.

    Args:
        path: The file; nobody has it open.
        moment: The time that its new name contains.
        beside: The suffixes of its files; the empty one is for itself.

    Returns:
        The new name.

    Raises:
        OSError: It can't be renamed.
    """
    for number in count():
        dated = f"{moment:%Y%m%dT%H%M%SZ}" + (f"-{number}" if number else "")
        aside = path.with_name(f"{path.stem}{_MARK}{dated}.sqlite")
        if not aside.exists():
            break
    for ending in beside:
        with suppress(FileNotFoundError):
            Path(f"{path}{ending}").replace(f"{aside}{ending}")
    return aside


def too_many_aside(paths: Iterable[Path], *, most_bytes: int) -> list[Path]:
    """Return which quarantined files to remove, oldest first.

    Args:
        paths: The quarantined files, without their journals. The newest one is always kept.
        most_bytes: The most bytes that all kept files may take together.
    """
    newest_first = sorted(paths, key=_set_aside_at, reverse=True)
    size = 0
    for kept, path in enumerate(newest_first):
        with suppress(FileNotFoundError):  # another process has removed it
            size += sum([each.stat().st_size for each in _with_beside(path)])
        if kept and (kept == KEPT_ASIDE or size > most_bytes):
            return newest_first[kept:][::-1]
    return []


def remove_aside(path: Path) -> None:
    """Remove a quarantined file with its journal."""
    for each in _with_beside(path):
        each.unlink(missing_ok=True)


def _with_beside(path: Path) -> list[Path]:
    return [path, *path.parent.glob(f"{path.name}-*")]


def _set_aside_at(path: Path) -> tuple[str, int]:
    date, _, number = re.split("-(?:damaged|read)-", path.stem)[-1].partition("-")
    return date, int(number) if number.isdecimal() else 0
