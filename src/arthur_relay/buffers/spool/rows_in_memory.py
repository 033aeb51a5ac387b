"""The rows of a spool that are in memory: new ones until a commit, others while they are sent."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence

from arthur_relay.buffers.spool.segment import Place, Segment, bytes_of
from arthur_relay.buffers.spool.segments import Segments
from arthur_relay.row import Row


class RowsInMemory:
    """Rows with their places in the files.

    Args:
        segments: The files. New rows belong to our own.

    Attributes:
        unwritten: New rows that are not on disk yet, by sequence number, oldest first.
        unwritten_bytes: About how many bytes they will take in the file.
        first_seq: The sequence number of the first row that this process stored.
        next_seq: The sequence number of the next new row.
        leased: Leased rows with their places.
        requeued: Rows that are leased again before all others, with their places.
    """

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self.unwritten: dict[int, Row] = {}
        self.unwritten_bytes = 0
        self.first_seq = self.next_seq = 1
        self.leased: dict[Row, Place] = {}
        self.requeued: deque[tuple[Row, Place]] = deque()

    def start_after(self, last_seq: int) -> None:
        """Number new rows from `last_seq + 1` on."""
        self.first_seq = self.next_seq = last_seq + 1

    def add(self, rows: Sequence[Row]) -> None:
        """Add new rows, which the next commit writes."""
        for row in rows:
            self.unwritten[self.next_seq] = row
            self.unwritten_bytes += bytes_of(row)
            self.next_seq += 1

    def is_unwritten(self, segment: Segment, seq: int) -> bool:
        """Return whether a row is in memory only."""
        return seq in self.unwritten and segment is self._segments.own

    def unwritten_in(self, segment: Segment) -> dict[int, Row]:
        """Return the new rows that belong to a file, by sequence number."""
        return self.unwritten if segment is self._segments.own else {}

    def unwritten_after(self, after: int, limit: int, most_bytes: int) -> list[tuple[int, Row]]:
        """Return the oldest new rows with sequence numbers above `after`, up to `limit`.

        No further row is returned after the bodies have `most_bytes`.
        """
        found: list[tuple[int, Row]] = []
        if limit <= 0 or after >= self.next_seq - 1:
            return found
        for seq, row in self.unwritten.items():
            if len(found) >= limit or most_bytes <= 0:
                break
            if seq > after:
                found.append((seq, row))
                most_bytes -= len(row.body)
        return found

    def on_written(self) -> None:
        """Note that all new rows are on disk."""
        self.unwritten.clear()
        self.unwritten_bytes = 0

    def forget_unwritten(self, seq: int) -> None:
        """Forget a new row."""
        self.unwritten_bytes -= bytes_of(self.unwritten.pop(seq))

    def replace(self, old: Row, new: Row) -> None:
        """Put a smaller form of a leased row in its place."""
        segment, seq = self.leased[new] = self.leased.pop(old)
        if self.is_unwritten(segment, seq):
            self.unwritten[seq] = new
            self.unwritten_bytes += bytes_of(new) - bytes_of(old)
        else:
            segment.updated[seq] = new

    def requeue_leased(self) -> None:
        """Put all leased rows before all others, in their old order."""
        self.requeued.extendleft(reversed(self.leased.items()))
        self.leased.clear()

    def read_from(self, segment: Segment) -> Iterator[tuple[int, Row]]:
        """Yield the rows that were read from a file and are not settled, with their numbers."""
        for row, (its_segment, seq) in (*self.leased.items(), *self.requeued):
            if its_segment is segment and not self.is_unwritten(segment, seq):
                yield seq, row

    def unwritten_by_epoch(self) -> Counter[int]:
        """Return the number of new rows, by epoch."""
        return Counter([row.epoch for row in self.unwritten.values()])

    def unwritten_by_model(self) -> Counter[str]:
        """Return the number of new rows, by model."""
        return Counter([row.model_id for row in self.unwritten.values()])


def with_places(segment: Segment, rows: Sequence[tuple[int, Row]]) -> list[tuple[Row, Place]]:
    """Return numbered rows of a file with their places."""
    return [(row, (segment, seq)) for seq, row in rows]
