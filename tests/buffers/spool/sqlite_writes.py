"""What SQLite writes to its files, one write after the other, so that a crash can come at any."""

from __future__ import annotations

import _sqlite3
import ctypes
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

_DATABASE, _LOG = 7, 28
"""SQLITE_FCNTL_FILE_POINTER and SQLITE_FCNTL_JOURNAL_POINTER."""

_SLOTS = 19
"""Of a `sqlite3_io_methods` of version 3: the version, and eighteen functions."""

_WRITE, _TRUNCATE, _SYNC = 3, 4, 5
"""The slots of those that change a file, or make its changes safe."""

_Write = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
)
_Truncate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)

Files = dict[str, bytes]
"""The files of a spool by name, as they are at one moment."""


class Writes:
    """Stands between an open connection in WAL mode and its two files, until it is closed.

    SQLite calls its files by a table of functions, to which each open file points: here to a table
    of ours, which takes note of the call and makes it. A crash may come before each write, or in
    the middle of it, when half of it is there.

    Attributes:
        crashes: How often a crash might have come so far.
        wanted: Says, by that number, of which one to keep the files as it would leave them.
        left: The files of those.
        synced: The files as a power cut would leave them at worst: as they were made safe last.
            None until `files()` is put there.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.crashes = 0
        self.wanted: Callable[[int], bool] = lambda _number: False
        self.left: list[Files] = []
        self._path = path
        self._kept: list[object] = []  # called for as long as the files are open
        self.synced: Files | None = None
        library = ctypes.CDLL(_sqlite3.__file__)
        # Behind the object's head, the connection of C is what a Connection holds first.
        handle = ctypes.c_void_p.from_address(id(connection) + object.__basicsize__)
        for which, ending in ((_DATABASE, ""), (_LOG, "-wal")):
            file = ctypes.c_void_p()
            status = library.sqlite3_file_control(handle, b"main", which, ctypes.byref(file))
            assert status == sqlite3.SQLITE_OK
            assert file.value is not None
            self._stand_between(file.value, path.name + ending)

    def files(self) -> Files:
        """Return the files as they are now."""
        name = self._path.name
        return {
            found.name: found.read_bytes()
            for found in self._path.parent.iterdir()
            if found.name in (name, f"{name}-wal", f"{name}-shm")
        }

    def _stand_between(self, file: int, name: str) -> None:
        pointer = ctypes.c_void_p.from_address(file)
        assert pointer.value is not None
        theirs = (ctypes.c_void_p * _SLOTS).from_address(pointer.value)
        ours = (ctypes.c_void_p * _SLOTS)(*theirs)
        write, truncate, sync = theirs[_WRITE], theirs[_TRUNCATE], theirs[_SYNC]
        assert write is not None
        assert truncate is not None
        assert sync is not None

        def on_write(this: int, data: int, amount: int, offset: int) -> int:
            self._tear(name, ctypes.string_at(data, amount), offset)
            return int(_Write(write)(this, data, amount, offset))

        def on_truncate(this: int, size: int) -> int:
            self._tear(name, b"", 0)
            return int(_Truncate(truncate)(this, size))

        def on_sync(this: int, flags: int) -> int:
            status = int(_Sync(sync)(this, flags))
            if self.synced is not None:
                self.synced[name] = (self._path.parent / name).read_bytes()
            return status

        own: tuple[tuple[int, Any], ...] = (
            (_WRITE, _Write(on_write)),
            (_TRUNCATE, _Truncate(on_truncate)),
            (_SYNC, _Sync(on_sync)),
        )
        for slot, function in own:
            ours[slot] = ctypes.cast(function, ctypes.c_void_p).value
        self._kept += [ours, own]
        pointer.value = ctypes.addressof(ours)

    def _tear(self, name: str, data: bytes, offset: int) -> None:
        half = data[: len(data) // 2]
        for written in (b"", half):
            if self.wanted(self.crashes):
                files = self.files()
                content = files[name].ljust(offset, b"\x00")
                files[name] = content[:offset] + written + content[offset + len(written) :]
                self.left.append(files)
            self.crashes += 1


def put_back(files: Files, directory: Path) -> None:
    """Make a directory with these files in it."""
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
