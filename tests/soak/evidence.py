"""What a soak has seen, as data, and how it is read from the files that the processes wrote."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tests.soak.inferences import digest, id_of
from tests.soak.records import (
    ANSWERED,
    ARRIVED,
    CAPTURED,
    ENDED,
    REPEATED,
    SAFE,
    UNREAD,
    read_records,
)


@dataclass
class Life:
    """One process that captured, or sent as a client.

    Attributes:
        captured: By id, the digest of the row that must arrive, and when it was captured.
        safe: Ids of which the relay has told that they are delivered or in the spool, or a gateway
            that it took them.
        repeated: Ids that were sent again, as nobody had told so.
        stats: What it counted, when it ended by itself.
    """

    captured: dict[str, tuple[str, float]] = field(default_factory=dict)
    safe: set[str] = field(default_factory=set)
    repeated: set[str] = field(default_factory=set)
    stats: dict[str, Any] | None = None


class Kill(NamedTuple):
    """The end of a process by SIGKILL.

    Attributes:
        at: Just before the signal.
        ended_at: When the process was gone.
        left: What was in its spool then: the digest of each row, by id.
    """

    at: float
    ended_at: float
    left: dict[str, str]


@dataclass
class Arrival:
    """A request with rows, as it was treated.

    Attributes:
        request: Its number.
        at: When it had arrived.
        fault: What went wrong.
        rows: Id and digest of each row.
        stored: For each row whether it was stored.
        told_at: When it was answered what became of each row; None when that was never told.
        unread_at: When the client ended the connection after this answer, if it did.
    """

    request: int
    at: float
    fault: str
    rows: list[tuple[str, str]]
    stored: list[bool]
    told_at: float | None = None
    unread_at: float | None = None

    def stored_rows(self) -> list[tuple[str, str]]:
        """Id and digest of the rows that were stored."""
        return [row for row, stored in zip(self.rows, self.stored, strict=True) if stored]


class Sample(NamedTuple):
    """What a process takes at a moment; times are on `time.monotonic()`'s scale, sizes in bytes."""

    at: float
    life: int
    resident: int
    spool: int


@dataclass
class Evidence:
    """All of it.

    Attributes:
        lives: The processes, in their order; the last one ended by itself.
        kills: How the others ended, in the same order.
        arrivals: What the server got, in its order.
        before: Samples of the first process, while all was well.
        storm: Samples from while it was not.
        after: Samples of the last process, when all was well again.
        left_at_end: Rows that were still in the spool when all had ended.
    """

    lives: list[Life] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    before: list[Sample] = field(default_factory=list)
    storm: list[Sample] = field(default_factory=list)
    after: list[Sample] = field(default_factory=list)
    left_at_end: dict[str, str] = field(default_factory=dict)


def read_life(path: Path) -> Life:
    """What one process has written down."""
    life = Life()
    numbers: list[int] = []
    for kind, values in read_records(path):
        match kind, values:
            case _, [number, row_digest, at] if kind == CAPTURED:
                numbers.append(number)
                life.captured[id_of(number)] = row_digest, at
            case _, [number, _] if kind == SAFE:
                while len(life.safe) < len(numbers) and numbers[len(life.safe)] < number:
                    life.safe.add(id_of(numbers[len(life.safe)]))
            case _, [number, behind, _] if kind == REPEATED:
                life.repeated.update(map(id_of, range(number, behind)))
            case _, [stats, _] if kind == ENDED:
                life.stats = stats
            case _:
                raise ValueError(f"{path} has a record of an unknown kind: {kind}")
    return life


def read_arrivals(path: Path) -> list[Arrival]:
    """What the server has written down."""
    found: dict[int, Arrival] = {}
    for kind, values in read_records(path):
        match kind, values:
            case _, [request, _, fault, rows, stored, at] if kind == ARRIVED:
                pairs = [(row_id, row_digest) for row_id, row_digest in rows]
                found[request] = Arrival(request, at, fault, pairs, stored)
            case _, [request, at] if kind == ANSWERED:
                found[request].told_at = at
            case _, [request, at] if kind == UNREAD:
                found[request].unread_at = at
            case _:
                raise ValueError(f"{path} has a record of an unknown kind: {kind}")
    return list(found.values())


def read_spool(directory: Path) -> dict[str, str]:
    """The rows in a spool that nobody has open: their digests, by id. Leaves it as it is."""
    left: dict[str, str] = {}
    for path in directory.glob("*.spool"):
        with TemporaryDirectory() as copy:
            for beside in directory.glob(f"{path.name}*"):  # its log, too
                if not beside.name.endswith("-shm"):
                    shutil.copy(beside, copy)
            with closing(sqlite3.connect(Path(copy, path.name))) as connection:
                rows: Iterable[tuple[str, bytes]] = connection.execute("SELECT id, body FROM rows")
                left.update((row_id, digest(body)) for row_id, body in rows)
    return left
