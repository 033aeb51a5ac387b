"""Reads what is left in a damaged SQLite file: the records in its pages, without SQLite.

SQLite finds a record by the pages above it, and gives up at the first that is damaged: one page in
the wrong place can hide all others. Here each page is looked at by itself, so that a damaged one
costs what is in it alone. What the log has of a page is newer than what the file has. Pages that
are free, and hold what was deleted, are known by the map that files with `auto_vacuum` have.

The format is that of https://www.sqlite.org/fileformat2.html.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100
_LEAF = 13
"""A page of a table with records in it."""

_FREE = 2
"""In the map: the page is free."""

_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""Bytes of integers by their serial type."""

Value = None | int | float | str | bytes
Record = tuple[int, tuple[Value, ...]]
"""The row's number, and its columns; an `INTEGER PRIMARY KEY` is None there."""


class _DamagedError(Exception):
    """There is no record here."""


class Pages:
    """The pages of a file, as they are by its log. Reads; changes nothing.

    Args:
        path: The file; its log is beside it. It need not have a header that can be read.
        page_bytes: What a page takes.

    Attributes:
        unread: Records that were found so far, and could not be read.

    Raises:
        OSError: It can't be read.
    """

    def __init__(self, path: Path, *, page_bytes: int) -> None:
        self._page_bytes = page_bytes
        self._file = _contents(path)
        self._log = _contents(Path(f"{path}-wal"))
        self._in_log, pages = self._read_log()
        self._pages = max(pages, -(-len(self._file) // page_bytes))
        header = self._page(1)[:_HEADER_BYTES]
        reserved = header[20] if header.startswith(_MAGIC) else 0
        self._usable = page_bytes - reserved
        self.unread = 0

    def records(self) -> Iterator[Record]:
        """Yield the records of all tables; of one that was moved lately perhaps twice."""
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
        """Let go of the file."""
        for content in (self._file, self._log):
            if isinstance(content, mmap.mmap):
                content.close()

    def _page(self, number: int) -> bytes:
        at = self._in_log.get(number)
        if at is not None:
            return bytes(self._log[at : at + self._page_bytes])
        start = (number - 1) * self._page_bytes
        return bytes(self._file[start : start + self._page_bytes])

    def _is_free(self, number: int) -> bool:
        """Say whether the map has a page for free; in doubt it is not."""
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
        """Return the bytes of a record, a long one's from all the pages that it is on."""
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
        if number:  # the last one has no other behind it
            raise _DamagedError
        return b"".join(parts)

    def _read_log(self) -> tuple[dict[int, int], int]:
        """Return where in the log the newest form of each page is, and how many pages there are.

        Each frame is looked at by itself: the sum of one goes on from that of the one before it.
        What no commit was written behind does not count.
        """
        found: dict[int, int] = {}
        pending: dict[int, int] = {}
        pages = 0
        for frame in _frames(self._log, self._page_bytes):
            if frame.is_whole():
                pending[frame.page] = frame.at + _FRAME_HEADER_BYTES
                if frame.pages:
                    found |= pending
                    pending, pages = {}, frame.pages
        return found, pages


@dataclass(slots=True)
class _Frame:
    """A page in the log.

    Attributes:
        log: The log.
        at: Where in it the frame begins.
        end: Where it ends.
        page: The page's number.
        pages: How many there are, where a commit ends here, else 0.
        sums: The frame's own sums.
        before: Those of the frame before it, from which its own go on.
        order: How the log's numbers are stored for them.
    """

    log: mmap.mmap | bytes
    at: int
    end: int
    page: int
    pages: int
    sums: tuple[int, int]
    before: tuple[int, int]
    order: str

    def is_whole(self) -> bool:
        """Say whether what is in it is what was written."""
        data = self.log[self.at : self.at + 8] + self.log[self.at + 24 : self.end]
        return _sums(data, self.before, self.order) == self.sums


def _frames(log: mmap.mmap | bytes, page_bytes: int) -> Iterator[_Frame]:
    """Yield the frames of a log, whole or not, until those of an earlier round begin."""
    if len(log) < _LOG_HEADER_BYTES:
        return
    magic, _, its_page_bytes, _, *salts, first, second = struct.unpack(">8I", log[:32])
    if magic & ~1 != 0x377F0682 or its_page_bytes != page_bytes:
        return
    order = ">" if magic & 1 else "<"
    size, before = page_bytes + _FRAME_HEADER_BYTES, (first, second)
    for at in range(_LOG_HEADER_BYTES, len(log) - size + 1, size):
        page, pages, *its_salts, first, second = struct.unpack(">6I", log[at : at + 24])
        if its_salts != salts:
            return
        yield _Frame(log, at, at + size, page, pages, (first, second), before, order)
        before = first, second


def has_unread_commits(path: Path, *, page_bytes: int, read_frames: int) -> bool:
    """Say whether a file's log has commits behind the last frame that SQLite reads.

    SQLite takes the first frame that is not whole for the end of the log, as after a crash it is;
    when it was damaged later, all that was committed since would be forgotten without a word.

    Args:
        path: The file; its log is beside it.
        page_bytes: What a page takes.
        read_frames: How many frames SQLite reads.

    Raises:
        OSError: It can't be read.
    """
    log = _contents(Path(f"{path}-wal"))
    try:
        behind = islice(_frames(log, page_bytes), read_frames, None)
        return any(frame.pages and frame.is_whole() for frame in behind)
    finally:
        if isinstance(log, mmap.mmap):
            log.close()


def _contents(path: Path) -> mmap.mmap | bytes:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError):  # there is none, or nothing in it
        return b""


def _sums(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and where it ends."""
    value = 0
    for place in range(at, at + 8):
        byte = data[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9


def _value(data: bytes, at: int, kind: int) -> tuple[Value, int]:
    """Return a column's value by its serial type, and where it ends."""
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
