"""The order in which the waiting rows of a spool are leased.

Half of the rows come from those that earlier processes left, oldest first, and the other half from
new ones, so that neither half waits for the other. Rows that were read and are not leased wait
apart by model: rows of models that a lease passed over, rows that failed, and rows that were put
off.
"""

from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from arthur_relay.buffers import ANY_BYTES, attempts_rank
from arthur_relay.buffers.spool.disk_state import DiskState
from arthur_relay.buffers.spool.passed_over import PassedOver
from arthur_relay.buffers.spool.rows_in_memory import RowsInMemory, with_places
from arthur_relay.buffers.spool.segment import Place, Segment
from arthur_relay.buffers.spool.storage import Cursor, Storage
from arthur_relay.row import RECOVERED, Row, body_bytes

SCAN_ROWS = 5000
SCAN_BYTES = 64 * 1024 * 1024
"""The most rows that one lease reads while it passes over those of some models."""

READ_ROWS = 500
READ_BYTES = 2 * 1024 * 1024
"""About how many of those are in memory at a time."""

PlacedRows = list[tuple[Row, Place]]
"""Rows that were read, with their places."""


class ReadingOrder:
    """Reads waiting rows in their order. What it returns does not wait here any more.

    Args:
        storage: Reads the files.
        memory: Has the rows that are not in a file yet.
        disk: Whether rows that are not found can be read later.

    Attributes:
        is_looking: Whether the last `take` ended before it had looked at all waiting rows.
        has_read_all: Whether the last `take` found no further row in any file.
    """

    def __init__(self, storage: Storage, memory: RowsInMemory, disk: DiskState) -> None:
        self._storage = storage
        self._memory = memory
        self._disk = disk
        self._backlog: deque[Cursor] = deque()
        self._fresh: Cursor | None = None
        self._favours_fresh = False
        self._passed_over = PassedOver()
        self._put_off = PassedOver()
        self.is_looking = False
        self.has_read_all = False

    @property
    def has_fresh(self) -> bool:
        """Whether any row of this process has not been read yet."""
        return self._fresh is not None and self._fresh.after < self._memory.next_seq - 1

    @property
    def apart(self) -> int:
        """The number of rows that wait apart."""
        return len(self._passed_over) + len(self._put_off)

    def apart_in(self, segment: Segment) -> int:
        """Return the number of rows of a file that wait apart."""
        return self._passed_over.count_of(segment) + self._put_off.count_of(segment)

    def start(self, own: Segment) -> None:
        """Begin with our own file."""
        self.add_backlog(own)
        self._fresh = Cursor(own, own.file.last_seq)

    def add_backlog(self, segment: Segment) -> None:
        """Add the rows that an earlier process left in a file."""
        self._backlog.append(Cursor(segment, 0, segment.file.last_seq, RECOVERED))

    def remove_backlog(self, segment: Segment) -> None:
        """Remove a file that is to be closed."""
        self._backlog = deque(cursor for cursor in self._backlog if cursor.segment is not segment)

    def take(self, limit: int, but: AbstractSet[str], most_bytes: int) -> PlacedRows:
        """Read up to `limit` waiting rows, except those of some models, which then wait apart."""
        self.is_looking = False
        taken: PlacedRows = []
        left, scanned = most_bytes, 0
        for model_id in self._passed_over.models(but):
            some = self._take_apart(self._passed_over, model_id, limit - len(taken), left)
            left -= _body_bytes(some)
            taken += some
            if left <= 0 or len(taken) >= limit:
                break
        while left > 0 and (found := self._read_next(limit - len(taken), left)):
            scanned += len(found)
            some = self._pass_over(found, but) if but else found
            left -= _body_bytes(some)
            taken += some
            if scanned >= SCAN_ROWS and len(taken) < limit:
                self.is_looking = True
                break
        self.has_read_all = left > 0 and len(taken) < limit and not self.is_looking
        return taken

    def take_of(self, model_id: str, limit: int, most_bytes: int) -> PlacedRows:
        """Read up to `limit` waiting rows of one model; those of others then wait apart."""
        taken = self._take_apart(self._passed_over, model_id, limit, most_bytes)
        left = 0 if taken else most_bytes
        rows_left, bytes_left = SCAN_ROWS, SCAN_BYTES
        while left > 0 and len(taken) < limit and rows_left > 0 and bytes_left > 0:
            found = self._read_next(min(rows_left, READ_ROWS), READ_BYTES)
            if not found:
                break
            rows_left -= len(found)
            bytes_left -= _body_bytes(found)
            for row, place in found:
                if row.model_id == model_id and len(taken) < limit and left > 0:
                    taken.append((row, place))
                    left -= len(row.body)
                else:
                    self.pass_over(row, place)
        return taken

    def take_backlog(self, limit: int, most_bytes: int) -> PlacedRows:
        """Read up to `limit` rows that an earlier process left."""
        found: PlacedRows = []
        while self._backlog and len(found) < limit and most_bytes > 0:
            rows = self._storage.read_next(self._backlog[0], limit - len(found), most_bytes)
            most_bytes -= _body_bytes(rows)
            found += rows
            if not rows:
                if self._disk.is_failing:
                    break
                self._backlog.popleft()
        return found

    def take_put_off(self, model_id: str, limit: int, most_bytes: int) -> PlacedRows:
        """Read up to `limit` rows of one model that were put off."""
        return self._take_apart(self._put_off, model_id, limit, most_bytes)

    def take_oldest(self) -> PlacedRows:
        """Read the oldest waiting row.

        While the disk fails, it is the oldest row in memory: only that makes room.
        """
        if self._disk.is_failing:
            return self._take_unwritten(1, ANY_BYTES)
        for apart in (self._put_off, self._passed_over):
            if models := apart.models():
                return self._take_apart(apart, models[0], 1, ANY_BYTES)
        return self._read_next(1, ANY_BYTES)

    def pass_over(self, row: Row, place: Place) -> None:
        """Make a row wait apart, after those of its model that were sent as often."""
        _set_apart(self._passed_over, row, place)

    def put_off(self, row: Row, place: Place) -> None:
        """Make a row wait until `take_put_off` asks for it."""
        _set_apart(self._put_off, row, place)

    def has_put_off(self, model_id: str) -> bool:
        """Return whether rows of a model are put off."""
        return self._put_off.has(model_id)

    def end_put_off(self) -> None:
        """Let rows that were put off wait like those that were passed over."""
        self._passed_over.take_over(self._put_off)

    def _read_next(self, limit: int, most_bytes: int) -> PlacedRows:
        """Read the next rows: requeued ones first, then old and new ones in turn."""
        taken: PlacedRows = []
        requeued = self._memory.requeued
        while requeued and len(taken) < limit and most_bytes > 0:
            taken.append(requeued.popleft())
            most_bytes -= len(taken[-1][0].body)
        left = limit - len(taken)
        if left <= 0 or most_bytes <= 0:
            return taken
        self._favours_fresh = not self._favours_fresh  # a lease of one row can't be halved
        first, second = self.take_backlog, self._read_fresh
        if self._favours_fresh:
            first, second = second, first
        some = first((left + 1) // 2, (most_bytes + 1) // 2)
        others = second(left - len(some), most_bytes - _body_bytes(some))
        left -= len(some) + len(others)
        some += first(left, most_bytes - _body_bytes(some) - _body_bytes(others))
        older, fresh = (others, some) if self._favours_fresh else (some, others)
        return taken + older + fresh

    def _read_fresh(self, limit: int, most_bytes: int) -> PlacedRows:
        cursor = self._fresh
        assert cursor is not None, "the spool is used before it was opened"
        found = self._storage.read_next(cursor, limit, most_bytes)
        if cursor.after >= cursor.segment.file.last_seq:  # else the older ones could not be read
            left = most_bytes - _body_bytes(found)
            rest = self._take_unwritten(limit - len(found), left)
            if rest:
                cursor.after = rest[-1][1][1]
            found += rest
        return found

    def _take_unwritten(self, limit: int, most_bytes: int) -> PlacedRows:
        """Return waiting rows that are in memory only."""
        cursor = self._fresh
        assert cursor is not None, "the spool is used before it was opened"
        found = self._memory.unwritten_after(cursor.after, limit, most_bytes)
        return with_places(cursor.segment, found)

    def _pass_over(self, found: PlacedRows, but: AbstractSet[str]) -> PlacedRows:
        """Make some models' rows wait apart, and return the other rows."""
        others: PlacedRows = []
        for row, place in found:
            if row.model_id in but:
                self.pass_over(row, place)
            else:
                others.append((row, place))
        return others

    def _take_apart(
        self, apart: PassedOver, model_id: str, limit: int, most_bytes: int
    ) -> PlacedRows:
        """Read rows of a model from remembered places, and forget the places."""
        waiting = apart.take(model_id, limit, most_bytes)
        wanted: dict[Segment, list[int]] = {}
        for (segment, seq), _ in waiting:
            wanted.setdefault(segment, []).append(seq)
        read: dict[Place, Row] = {}
        for segment, numbers in wanted.items():
            read.update(self._storage.read_again(segment, numbers))
        taken: PlacedRows = []
        for place, size in waiting:
            if place in read:
                taken.append((read[place], place))
            elif self._disk.is_failing:
                apart.add(model_id, place, size, attempts=1)
        return taken


def _set_apart(apart: PassedOver, row: Row, place: Place) -> None:
    apart.add(row.model_id, place, len(row.body), attempts_rank(row))


def _body_bytes(found: Iterable[tuple[Row, Place]]) -> int:
    return body_bytes([row for row, _ in found])
