"""Reads the remaining records of a damaged SQLite file, page by page and without SQLite.

SQLite finds a record through the pages above it, and fails at the first damaged one: a single page
can hide all others. Here each page is read on its own, so a damaged page costs only its own
records. A page in the log is newer than the same page in the file. Free pages still have deleted
records; a file with `auto_vacuum` has a map of its free pages.

The format is that of https://www.sqlite.org/fileformat2.html.
"""

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from errno import EIO
from io import FileIO
from pathlib import Path

_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100
_LEAF = 13
"""The type of a page that holds a table's records."""

_FREE = 2
"""The map's entry for a free page."""

_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""The bytes of an integer, by serial type."""

Value = None | int | float | str | bytes
Record = tuple[int, tuple[Value, ...]]
"""The row's number and its columns, where an `INTEGER PRIMARY KEY` is None."""


# SQLITE_IOERR_READ, for an unreadable sector; _SHORT_READ, and _CORRUPTFS.
# SQLITE_CONSTRAINT_PRIMARYKEY, _UNIQUE and _ROWID: the file has a record that we did not write.
_DAMAGE = frozenset(
    (10 | 1 << 8, 10 | 2 << 8, 10 | 33 << 8, 19 | 6 << 8, 19 | 8 << 8, 19 | 10 << 8)
)

# All our statements are valid, so the general error means that the tables are damaged.
_DAMAGE_KINDS = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_MISMATCH,
)


class DamagedFileError(sqlite3.DatabaseError):
    """SQLite can read the file, but its content is not what was written."""


def is_damaged(error: Exception) -> bool:
    """Return whether an error means that the file is damaged, so that a retry can't help."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return isinstance(error, DamagedFileError) or code in _DAMAGE or code & 0xFF in _DAMAGE_KINDS


def is_undecodable(error: Exception) -> bool:
    """Return whether an error is Python's own, for a text in a file that is not UTF-8.

    Only such errors have no code. Their message quotes the text.
    """
    is_operational = isinstance(error, sqlite3.OperationalError)
    return is_operational and not hasattr(error, "sqlite_errorcode")


class _DamagedError(Exception):
    """There is no valid record at this offset."""


class Pages:
    """The pages of a file and of its log, read-only.

    Args:
        path: The file; its log is beside it. Its header may be damaged.
        page_bytes: The size of a page.

    Attributes:
        header: The file's header, or nothing when it can't be read.
        unread: The number of unreadable records that were found so far.

    Raises:
        OSError: It can't be read.
    """

    def __init__(self, path: Path, *, page_bytes: int) -> None:
        self._page_bytes = page_bytes
        self._file = _Contents(path)
        self._log = _Contents(Path(f"{path}-wal"))
        self._in_log, pages = _newest_pages(self._log, page_bytes)
        self._pages = max(pages, -(-self._file.size // page_bytes))
        header = self._page(1)[:_HEADER_BYTES]
        self.header = header if header.startswith(_MAGIC) else b""
        self._usable = page_bytes
        self.unread = 0
        reserved = self.header[20] if self.header else 0
        # Few builds of SQLite reserve a part of each page, so this byte may be damaged.
        if reserved and self._count_unread() > self._count_unread(reserved):
            self._usable = page_bytes - reserved

    def records(self) -> Iterator[Record]:
        """Yield the records of all tables; one that was moved recently may come twice."""
        for number in range(1, self._pages + 1):
            if self._is_free(number):
                continue
            page = self._page(number)
            start = _HEADER_BYTES if number == 1 else 0
            if len(page) < self._page_bytes or page[start] != _LEAF:
                continue
            cells = int.from_bytes(page[start + 3 : start + 5], "big")
            if 8 + start + 2 * cells > self._usable:
                continue
            for at in range(start + 8, start + 8 + 2 * cells, 2):
                try:
                    yield self._record(page, int.from_bytes(page[at : at + 2], "big"))
                except (_DamagedError, IndexError, struct.error, UnicodeDecodeError):
                    self.unread += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._log.close()

    def _count_unread(self, reserved: int = 0) -> int:
        self._usable = self._page_bytes - reserved
        for _ in self.records():
            pass
        found, self.unread, self._usable = self.unread, 0, self._page_bytes
        return found

    def _page(self, number: int) -> bytes:
        at = self._in_log.get(number)
        if at is not None:
            return self._log.read(at, self._page_bytes)
        return self._file.read((number - 1) * self._page_bytes, self._page_bytes)

    def _is_free(self, number: int) -> bool:
        """Return whether a page is free according to the map; False when in doubt."""
        entries = self._usable // 5
        if number < 2:
            return False
        its_map = (number - 2) // (entries + 1) * (entries + 1) + 2
        if its_map == number:
            return True  # a page of the map itself
        at = 5 * (number - its_map - 1)
        found = self._page(its_map)[at : at + 5]
        return found == bytes((_FREE, 0, 0, 0, 0))

    def _record(self, page: bytes, at: int) -> Record:
        size, at = _varint(page, at)
        row, at = _varint(page, at)
        content = self._content(page, at, size)
        header, where = _varint(content, 0)
        if not where <= header <= size:
            raise _DamagedError
        values: list[Value] = []
        begin = header
        while where < header:
            kind, where = _varint(content, where)
            value, begin = _value(content, begin, kind)
            values.append(value)
        if begin != size:
            raise _DamagedError
        return row, tuple(values)

    def _content(self, page: bytes, at: int, size: int) -> bytes:
        """Return the bytes of a record; a long one is spread over several pages."""
        usable = self._usable
        if size <= usable - 35:
            if at + size > usable:
                raise _DamagedError
            return page[at : at + size]
        least = (usable - 12) * 32 // 255 - 23
        here = least + (size - least) % (usable - 4)
        if here > usable - 35:
            here = least
        parts, left = [page[at : at + here]], size - here
        number = int.from_bytes(page[at + here : at + here + 4], "big")
        while left > 0:
            if not 2 <= number <= self._pages:
                raise _DamagedError
            more = self._page(number)
            if len(more) < self._page_bytes:
                raise _DamagedError
            parts.append(more[4 : 4 + min(left, usable - 4)])
            left -= len(parts[-1])
            number = int.from_bytes(more[:4], "big")
        if number:  # the last one has no successor
            raise _DamagedError
        return b"".join(parts)


class _Contents:
    """The readable bytes of a file; none if it does not exist.

    The file is not mapped into memory: a mapped file that is truncated, or has an unreadable
    sector, kills the process.
    """

    def __init__(self, path: Path) -> None:
        self._file: FileIO | None = None
        self.size = 0
        with suppress(FileNotFoundError):
            self._file = path.open("rb", buffering=0)
            self.size = self._file.seek(0, 2)

    def read(self, at: int, size: int) -> bytes:
        """Return bytes; fewer at the end of the file, and none if a sector is unreadable."""
        found = b""
        try:
            while self._file is not None and len(found) < size:
                self._file.seek(at + len(found))
                more = self._file.read(size - len(found))
                if not more:
                    break
                found += more
        except OSError as error:
            if error.errno != EIO:
                raise
            return b""
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


_Sums = tuple[int, int]


@dataclass(slots=True)
class _Frame:
    """A page in the log.

    Attributes:
        log: The log.
        number: The number of frames before it.
        at: Its offset in the log.
        size: Its bytes.
        page: The page's number.
        pages: How many pages the file has, if a commit ends here, else 0.
        salts: The values that all frames share until the log is restarted.
        sums: The frame's own checksums.
        before: The checksums of the frame before it, which its own continue; None if unknown.
    """

    log: _Contents
    number: int
    at: int
    size: int
    page: int
    pages: int
    salts: tuple[int, int]
    sums: _Sums
    before: _Sums | None

    def is_whole(self, order: str) -> bool:
        """Return whether it is undamaged, according to the checksums.

        Args:
            order: The byte order by which the checksums are computed.
        """
        if not self.page:
            return False
        if self.before is None:
            return True
        data = self.log.read(self.at, self.size)
        if len(data) < self.size:
            return False
        return _sums(data[:8] + data[_FRAME_HEADER_BYTES:], self.before, order) == self.sums


@dataclass(slots=True, frozen=True)
class _Head:
    """What the log's frames share: their salts, the checksums' byte order, and the first ones."""

    salts: tuple[int, int]
    order: str
    sums: _Sums | None


def _head(log: _Contents, page_bytes: int) -> tuple[_Head | None, bool]:
    """Return what the log's frames share, and whether it is from the log's head.

    SQLite treats a log with a damaged head as empty. But the frames have the same data: each also
    has the salts, and its checksums continue those of the frame before it.
    """
    head = log.read(0, _LOG_HEADER_BYTES)
    if len(head) == _LOG_HEADER_BYTES:
        magic, _, its_page_bytes, _, *salts, first, second = struct.unpack(">8I", head)
        order = ">" if magic & 1 else "<"
        if magic & ~1 == 0x377F0682 and _sums(head[:24], (0, 0), order) == (first, second):
            found = _Head((salts[0], salts[1]), order, (first, second))
            return (found if its_page_bytes == page_bytes else None), True
    before = None
    for frame in _all_frames(log, page_bytes, None):
        if before is not None and before.salts == frame.salts and before.page:
            for order in "<>":
                if frame.is_whole(order):
                    return _Head(frame.salts, order, None), False
        before = frame
    if before is not None and before.number == 0 and 0 < before.page <= before.pages:
        return _Head(before.salts, "<", None), False
    return None, False


def _all_frames(log: _Contents, page_bytes: int, before: _Sums | None) -> Iterator[_Frame]:
    size = page_bytes + _FRAME_HEADER_BYTES
    for number, at in enumerate(range(_LOG_HEADER_BYTES, log.size - size + 1, size)):
        head = log.read(at, _FRAME_HEADER_BYTES)
        if len(head) < _FRAME_HEADER_BYTES:
            head = bytes(_FRAME_HEADER_BYTES)
        page, pages, *salts, first, second = struct.unpack(">6I", head)
        sums = first, second
        yield _Frame(log, number, at, size, page, pages, (salts[0], salts[1]), sums, before)
        before = sums


def _whole_frames(
    log: _Contents, page_bytes: int, head: _Head | None, first: int = 0
) -> Iterator[_Frame]:
    """Yield the undamaged frames, from `first` on, without those from before the log's restart.

    Each is checked on its own, so a damaged frame does not hide those after it.
    """
    if head is None:
        return
    for frame in _all_frames(log, page_bytes, head.sums):
        if frame.number >= first and frame.salts == head.salts and frame.is_whole(head.order):
            yield frame


def _newest_pages(
    log: _Contents, page_bytes: int, head: _Head | None = None
) -> tuple[dict[int, int], int]:
    """Return the offset of each page's newest frame in the log, and how many pages there are.

    Frames after the last commit do not count.
    """
    found: dict[int, int] = {}
    pending: dict[int, int] = {}
    pages = 0
    head = head or _head(log, page_bytes)[0]
    for frame in _whole_frames(log, page_bytes, head):
        pending[frame.page] = frame.at + _FRAME_HEADER_BYTES
        if frame.pages:
            found |= pending
            pending, pages = {}, frame.pages
    return found, pages


def has_unread_commits(path: Path, *, page_bytes: int, read_frames: int | None) -> bool:
    """Return whether the log has commits that SQLite does not read and the file does not have.

    SQLite treats the first damaged frame as the end of the log, which is right after a crash. If
    the frame was damaged later, SQLite would silently drop all commits after it, or with a damaged
    head all commits of the log. After a crash during a restart of the log, its head may be half
    written, but then the file has all of the log's commits as well.

    Args:
        path: The file; its log is beside it.
        page_bytes: The size of a page.
        read_frames: How many frames SQLite reads; None when it can't be asked.

    Raises:
        OSError: It can't be read.
    """
    log = _Contents(Path(f"{path}-wal"))
    try:
        head, is_readable = _head(log, page_bytes)
        if not is_readable:
            return _has_other_pages(path, log, page_bytes, head)
        if read_frames is None:
            read_frames = 0
            for frame in _whole_frames(log, page_bytes, head):
                if frame.number != read_frames:
                    break
                read_frames += 1
        return any(frame.pages for frame in _whole_frames(log, page_bytes, head, read_frames))
    finally:
        log.close()


def _has_other_pages(path: Path, log: _Contents, page_bytes: int, head: _Head | None) -> bool:
    """Return whether the log has a page that is missing or different in the file."""
    file = _Contents(path)
    try:
        return any(
            log.read(at, page_bytes) != file.read((number - 1) * page_bytes, page_bytes)
            for number, at in _newest_pages(log, page_bytes, head)[0].items()
        )
    finally:
        file.close()


def _sums(data: bytes, sums: _Sums, order: str) -> _Sums:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and the offset after it."""
    value = 0
    for index in range(at, at + 8):
        byte = data[index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, index + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9


def _value(data: bytes, at: int, kind: int) -> tuple[Value, int]:
    """Return a column's value by its serial type, and the offset after it."""
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind in (10, 11) or kind < 0:
        raise _DamagedError
    size = _SIZES.get(kind, 8 if kind == 7 else (kind - 12) // 2)
    part = data[at : at + size]
    if len(part) < size:
        raise _DamagedError
    if kind == 7:
        return struct.unpack(">d", part)[0], at + size
    if kind < 7:
        return int.from_bytes(part, "big", signed=True), at + size
    return (part.decode() if kind % 2 else part), at + size
