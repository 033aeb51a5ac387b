"""The files that a spool has open, and those of its directory that it leaves alone."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from sqlite3 import Error

from arthur_relay.buffers import Recover
from arthur_relay.buffers.spool.directory import FileClaim, SpoolDirectory
from arthur_relay.buffers.spool.file_format import ForeignSpoolError
from arthur_relay.buffers.spool.segment import Opening, Segment, open_segment
from arthur_relay.encoding.product import product_of_address
from arthur_relay.errors import ConfigurationError
from arthur_relay.system.log_once import LogOnce
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.spool")

ADOPT_SECONDS = 30.0
"""How often a process looks for files that dead processes have left."""


class Segments(list[Segment]):
    """The open files; new rows are written to the first one.

    Worker's thread only, except where a member says otherwise.

    Args:
        directory: Creates the directory and hands out its files.
        opening: How they are opened.

    Attributes:
        opening: The same.
        asks_for_owner: Whether files were left alone that may be ours, which can be decided once
            our owner is known. Any thread.
    """

    def __init__(self, directory: SpoolDirectory, opening: Opening) -> None:
        super().__init__()
        self._directory = directory
        self.opening = opening
        self.asks_for_owner = False
        self._adopted_at = float("-inf")
        self._left_alone: dict[Path, int] = {}
        self._once = LogOnce()

    @property
    def own(self) -> Segment:
        """The file that new rows are written to."""
        return self[0]

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

    @property
    def left_alone(self) -> int:
        """The number of rows in the directory that are, or may be, for others. Any thread."""
        return sum(list(self._left_alone.values()))

    def trouble(self) -> str | None:
        """Return why a later process would not find what is written now, or None. Any thread.

        Asks the file system.
        """
        return next(filter(None, [segment.claim.trouble() for segment in list(self)]), None)

    def open_own(self, recover: Recover) -> Segment:
        """Open the first file that no process holds and whose rows are not for others.

        Raises:
            ConfigurationError: A file cannot be opened, or a later version wrote it.
        """
        skipped: set[Path] = set()
        while True:
            claim = self._directory.claim(skipped)
            try:
                return self._enter(claim, recover)
            except ForeignSpoolError as error:
                skipped.add(claim.path)
                self._leave_alone(claim.path, error)

    def adopt(self, recover: Recover) -> Iterator[Segment]:
        """Now and then, open the files that dead processes have left; yields each."""
        now = self.opening.clock.monotonic()
        if not self or now < self._adopted_at + ADOPT_SECONDS:
            return
        self._adopted_at = now
        self._left_alone = {}
        for claim in self._directory.orphans({segment.claim.path for segment in self}):
            try:
                segment = self._enter(claim, recover)
            except ForeignSpoolError as error:
                self._leave_alone(claim.path, error)
            except ConfigurationError as error:
                logger.debug("a spool was left alone: %s", error)  # its own process will log it
            else:
                yield segment

    def learn_owner(self) -> None:
        """Write the owner into the files once more is known of it, and look for more files."""
        owner = self.opening.owner()
        is_known = owner.organization is not None
        if not (is_known or owner.is_refused):
            return
        if is_known and self.asks_for_owner:
            self.asks_for_owner = False
            self._adopted_at = float("-inf")
        for segment in self:
            theirs = segment.file.owner
            is_news = is_known or theirs.organization is None  # a key that was good has an owner
            if theirs != owner and is_news and owner.may_send(theirs):
                self._adopted_at = float("-inf") if is_known else self._adopted_at
                with suppress(Error):  # another time
                    segment.file.belong_to(owner)

    def foreign_reason(self) -> str | None:
        """Return why we may not send these rows, since our owner has changed, or None."""
        owner = self.opening.owner()
        if not self or owner.may_send(self.own.file.owner) is not False:
            return None
        return f"its rows belong to {self.own.file.owner}, not to {owner}"

    def _enter(self, claim: FileClaim, recover: Recover) -> Segment:
        segment = open_segment(claim, self.opening)
        # First, because a caller that sees as many rows kept as pending takes all pending for safe.
        recover(segment.file.rows + segment.lost, segment.rows_by_model)
        self.append(segment)
        return segment

    def _leave_alone(self, path: Path, error: ForeignSpoolError) -> None:
        self._left_alone[path] = error.rows
        if not error.is_sure:
            self.asks_for_owner = True
            return
        if not self._once.is_first(path):
            return
        words = self.opening.words
        if error.owner is None:
            logger.warning(
                "arthur-relay: the spool file %s has %d %s and does not say any more for whom: it"
                " is left alone. To send them to %s: arthur-relay spool adopt %s",
                path,
                error.rows,
                words.many,
                self.opening.owner(),
                path,
            )
            return
        owner = self.opening.owner()
        theirs, ours = product_of_address(error.owner.address), product_of_address(owner.address)
        if theirs is not ours:
            logger.warning(
                "arthur-relay: the spool file %s has %d rows for %s, and this process sends to %s:"
                " it is left alone until a process starts that sends there",
                path,
                error.rows,
                theirs,
                ours,
            )
            return
        if str(error.owner) == str(owner):
            logger.warning(
                "arthur-relay: the spool file %s has %d rows for %s, captured with another key: it"
                " is left alone. To send them with this one: arthur-relay spool adopt %s",
                path,
                error.rows,
                owner,
                path,
            )
            return
        logger.warning(
            "arthur-relay: the spool file %s has %d %s for %s, and this process sends to %s: it is"
            " left alone. To send them here all the same: arthur-relay spool adopt %s",
            path,
            error.rows,
            words.many,
            error.owner,
            owner,
            path,
        )
