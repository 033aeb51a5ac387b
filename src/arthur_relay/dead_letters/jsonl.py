"""Dead letters in a file, one JSON object per line: rotated by size, shared by processes."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from arthur_relay.dead_letters import DeadLetter, LetterKey, damaged, read_letter
from arthur_relay.system.file_lock import FileLock
from arthur_relay.system.files import open_private
from arthur_relay.system.operating_system import CAN_MOVE_OPEN_FILES

_APPENDING = os.O_CREAT | os.O_WRONLY | os.O_APPEND


class JsonLinesStore:
    """Letters in a file, and in the one that was rotated last. See `DeadLetterStore`.

    Each write locks the file and then closes its descriptor. So processes can share the file, and
    forks need no care. A letter's key is a digest of its line, because its position changes when an
    application rotates the file while someone reads it. Where an open file can't be renamed, which
    is on Windows, a file beside it is locked instead.

    Args:
        path: The file. It is created with the first letter, readable for its owner only.
        max_bytes: The size at which it is renamed to `PATH.1`, replacing the former one.
        with_damaged: Whether `letters` also yields lines that are not letters, or incomplete.
    """

    def __init__(self, path: Path, *, max_bytes: int, with_damaged: bool = False) -> None:
        self._path = path
        self._rotated = path.with_name(path.name + ".1")
        self._locks = path if CAN_MOVE_OPEN_FILES else path.with_name(path.name + ".lock")
        self._max_bytes = max_bytes
        self._with_damaged = with_damaged

    def add(self, letters: Sequence[DeadLetter]) -> int:
        """Append letters; returns how many were lost, if the file had to be rotated."""
        lines = b"".join([_line(letter) for letter in letters])
        with self._locked() as lock:
            return self._append(lock, lines)

    def letters(self) -> Iterator[tuple[LetterKey, DeadLetter]]:
        """Yield the letters, oldest first; damaged lines only if `with_damaged` is set."""
        for line in self._lines():
            letter = _letter(line)
            if letter is not None:
                yield _key(line), letter
            elif self._with_damaged and line.strip():
                yield _key(line), damaged("the line is no letter", line.strip())

    def count(self) -> Counter[str]:
        """Return how many letters are kept, by reason."""
        return Counter([letter.reason for _, letter in self.letters()])

    def remove(self, keys: Collection[LetterKey]) -> int:
        """Remove letters; returns how many were still there.

        Both files become one new file, with the letters that other processes added meanwhile.
        """
        fresh = self._path.with_name(self._path.name + ".new")
        with self._locked():
            lines = list(self._lines())
            kept = [line for line in lines if _key(line) not in keys]
            fresh.unlink(missing_ok=True)  # a process may have been killed here before
            with open(open_private(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "wb") as file:  # noqa: PTH123 - a descriptor
                file.writelines(kept)
            # In this order, nothing is lost whenever the process is killed.
            fresh.replace(self._path)
            self._rotated.unlink(missing_ok=True)
            return len(lines) - len(kept)

    def _append(self, lock: FileLock, lines: bytes) -> int:
        with self._opened(lock) as descriptor:
            before = os.fstat(descriptor).st_size
            if not before or before + len(lines) <= self._max_bytes:
                _write(descriptor, lines, before)
                return 0
        lost = sum([1 for _ in _lines_of(self._rotated)])
        self._path.replace(self._rotated)
        with self._locked() if CAN_MOVE_OPEN_FILES else nullcontext(lock) as fresh:
            return lost + self._append(fresh, lines)

    @contextmanager
    def _opened(self, lock: FileLock) -> Iterator[int]:
        """Yield the file for appending: the locked one, unless it is another that is locked."""
        if CAN_MOVE_OPEN_FILES:
            yield lock.descriptor
            return
        descriptor = open_private(self._path, _APPENDING)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _lines(self) -> Iterator[bytes]:
        for path in (self._rotated, self._path):
            yield from _lines_of(path)

    @contextmanager
    def _locked(self) -> Iterator[FileLock]:
        """Open and lock the file for appending; never one that was just rotated."""
        lock = FileLock.take(self._locks, _APPENDING, wait=True)
        assert lock is not None, "it waits"
        try:
            yield lock
        finally:
            lock.release()


def _write(descriptor: int, lines: bytes, before: int) -> None:
    """Append lines to a file that has had `before` bytes, all or nothing."""
    view = memoryview(lines)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        os.ftruncate(descriptor, before)  # half a line would damage the next one
        raise


def _lines_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, or nothing if it does not exist."""
    try:
        descriptor = open_private(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        yield from file


def _key(line: bytes) -> LetterKey:
    return int.from_bytes(sha256(line).digest()[:8], "big")


def _line(letter: DeadLetter) -> bytes:
    document = {
        "rejected_at": letter.rejected_at,
        "reason": letter.reason,
        **({"said": letter.said} if letter.said else {}),
        "status": letter.status,
        "attempts": letter.attempts,
        "destination": letter.destination,
        "model_id": letter.model_id,
        "inference_id": letter.inference_id,
        "kind": letter.kind.value,
        **_row(letter.body),
    }
    return orjson.dumps(document) + b"\n"


def _row(body: bytes) -> dict[str, Any]:
    """Return the row's part of the document: JSON if it is valid JSON, else base64."""
    if not body:
        return {"row": None}
    try:
        orjson.loads(body)
    except ValueError:
        return {"row_base64": b64encode(body).decode()}
    return {"row": orjson.Fragment(body.replace(b"\n", b" "))}  # JSON texts escape theirs


_BEFORE_ROW = b',"row":'
"""Separates the row from the other fields; within a text, its quotes would be escaped."""


def _letter(line: bytes) -> DeadLetter | None:
    """Return a line's letter, with the original bytes of its row, or None if it has none."""
    head, mark, tail = line.rstrip().partition(_BEFORE_ROW)
    body = tail.removesuffix(b"}") if mark else b""
    try:
        found = orjson.loads(head + b"}" if mark else line)
        encoded = found.get("row_base64")
        if encoded is not None:
            body = b64decode(encoded, validate=True)
    except (ValueError, TypeError, AttributeError):
        return None
    return read_letter(found, b"" if body == b"null" else body)
