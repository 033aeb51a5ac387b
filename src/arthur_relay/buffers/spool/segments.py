"""The files that are a spool's, together, and how far each of them was read."""

from dataclasses import dataclass

from arthur_relay.buffers import ANY_BYTES, Recover
from arthur_relay.buffers.spool.directory import FileClaim
from arthur_relay.buffers.spool.segment import Opening, Segment, open_segment
from arthur_relay.row import Row
from arthur_relay.system.sqlite_pages import DamagedFileError


class Segments(list[Segment]):
    """A spool's own files. What is not said to be for any thread is for the worker's."""

    def enter(self, claim: FileClaim, recover: Recover, opening: Opening) -> Segment:
        """Open one more and return it. Raises what `open_segment` does."""
        segment = open_segment(claim, opening)
        # First: whoever finds as many rows kept as are pending takes those pending for safe.
        recover(segment.file.rows + segment.lost, segment.rows_by_model)
        self.append(segment)
        return segment

    @property
    def kept(self) -> int:
        """Rows that outlive the process; never too many, also while a commit goes on."""
        return sum([segment.kept for segment in self])

    @property
    def size(self) -> int:
        """Bytes that they take, about."""
        return sum([segment.size for segment in self])

    @property
    def logs_may_grow(self) -> int:
        """Bytes that their logs may still grow by."""
        return sum([segment.file.log_may_grow for segment in self])

    @property
    def oldest_at(self) -> float | None:
        """When the oldest row was stored, in seconds since 1970, or None. Any thread."""
        found = [segment.file.oldest_at for segment in list(self)]
        return min([moment for moment in found if moment is not None], default=None)

    def trouble(self) -> str | None:
        """Say why what is written now would not be found by a later process, or None. Any thread.

        Asks the file system.
        """
        return next(filter(None, [segment.claim.trouble() for segment in list(self)]), None)


@dataclass(slots=True, eq=False)
class Cursor:
    """How far a segment has been read.

    Attributes:
        segment: The segment.
        after: The last sequence number that was read.
        until: The last one to read; None for all, new ones included.
        epoch: What the rows' epochs become; None leaves them.
    """

    segment: Segment
    after: int
    until: int | None = None
    epoch: int | None = None

    def read(self, limit: int, most_bytes: int = ANY_BYTES) -> list[tuple[int, Row]]:
        """Return the next rows, `limit` at most; raises sqlite3.Error, and stays where it is.

        After `most_bytes` of bodies no more are read.
        """
        if self.segment.is_damaged:
            raise DamagedFileError("it is not mended yet")
        until = self.segment.file.last_seq if self.until is None else self.until
        if limit <= 0 or most_bytes <= 0 or self.after >= until:
            return []
        found = self.segment.file.read(
            self.after, until, limit, epoch=self.epoch, most_bytes=most_bytes
        )
        self.after = found[-1][0] if found else until
        return found
