"""All files of a spool, and how far each of them has been read."""

from dataclasses import dataclass

from arthur_relay.buffers import ANY_BYTES, Recover
from arthur_relay.buffers.spool.directory import FileClaim
from arthur_relay.buffers.spool.segment import Opening, Segment, open_segment
from arthur_relay.row import Row
from arthur_relay.system.sqlite_pages import DamagedFileError


class Segments(list[Segment]):
    """The files of a spool. Worker's thread only, except where a member says otherwise."""

    def enter(self, claim: FileClaim, recover: Recover, opening: Opening) -> Segment:
        """Open one more file. Raises what `open_segment` does."""
        segment = open_segment(claim, opening)
        # First, because a caller that sees as many rows kept as pending takes all pending for safe.
        recover(segment.file.rows + segment.lost, segment.rows_by_model)
        self.append(segment)
        return segment

    @property
    def kept(self) -> int:
        """The number of rows that outlive the process; never too high, even during a commit."""
        return sum([segment.kept for segment in self])

    @property
    def size(self) -> int:
        """About how many bytes they take."""
        return sum([segment.size for segment in self])

    @property
    def logs_may_grow(self) -> int:
        """How many bytes their logs may still grow by."""
        return sum([segment.file.log_may_grow for segment in self])

    @property
    def oldest_at(self) -> float | None:
        """When the oldest row was stored, in seconds since 1970, or None. Any thread."""
        found = [segment.file.oldest_at for segment in list(self)]
        return min([moment for moment in found if moment is not None], default=None)

    def trouble(self) -> str | None:
        """Return why a later process would not find what is written now, or None. Any thread.

        Asks the file system.
        """
        return next(filter(None, [segment.claim.trouble() for segment in list(self)]), None)


@dataclass(slots=True, eq=False)
class Cursor:
    """How far a segment has been read.

    Attributes:
        segment: The segment.
        after: The sequence number that was read last.
        until: The last one to read. None for all, new ones included.
        epoch: The epoch that the rows get. None leaves theirs.
    """

    segment: Segment
    after: int
    until: int | None = None
    epoch: int | None = None

    def read(self, limit: int, most_bytes: int = ANY_BYTES) -> list[tuple[int, Row]]:
        """Return up to `limit` of the next rows. Raises sqlite3.Error, and then stays where it is.

        No further row is read after the bodies have `most_bytes`.
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
