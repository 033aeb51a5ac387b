"""One file of the spool, with the changes that are still to be written to it."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from arthur_relay.buffers.spool.directory import FileClaim
from arthur_relay.buffers.spool.file_format import ForeignSpoolError, NotASpoolError
from arthur_relay.buffers.spool.salvage import Salvage
from arthur_relay.buffers.spool.sqlite_file import LOG_BYTES, SpoolFile
from arthur_relay.encoding.product import Product, RowWords
from arthur_relay.errors import ConfigurationError, SpoolError
from arthur_relay.row import History, Row, RowOwner
from arthur_relay.sentences import named
from arthur_relay.system.clocks import Clock
from arthur_relay.system.files import KEPT_ASIDE
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.spool")

ROW_OVERHEAD_BYTES = 64
"""About the bytes of a row in the file without its body: ids, lengths, its place in the tree."""

SALVAGED_ROWS = 500
"""The number of rows of a damaged file that are written to the new one at a time."""


def bytes_of(row: Row) -> int:
    """Return about how many bytes a row takes in a file."""
    return len(row.body) + ROW_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Opening:
    """How files are opened.

    Attributes:
        owner: Returns who sends the rows.
        power_safe: Whether each commit is forced to the disk.
        clock: Gives the time, for the name of a damaged file and the age of rows.
        log_bytes: Logs are written back when they have this many bytes.
        aside_bytes: The most bytes that damaged files may take together.
        words: What the log calls rows.
        damaged: Counts the damaged files that were `set_aside`, and those that were `removed`.
    """

    owner: Callable[[], RowOwner]
    power_safe: bool
    clock: Clock
    log_bytes: int = LOG_BYTES
    aside_bytes: int = 1 << 30
    words: RowWords = Product.SCOPE.words
    damaged: Counter[str] = field(default_factory=Counter)

    def file(self, path: Path, owner: RowOwner | None = None) -> SpoolFile:
        """Open a file; raises what `SpoolFile` does."""
        return SpoolFile(
            path,
            power_safe=self.power_safe,
            owner=owner or self.owner(),
            log_bytes=self.log_bytes,
        )


@dataclass(slots=True, eq=False)
class Segment:
    """A file of ours, with the changes that are still to be written to it.

    Attributes:
        claim: Our claim on it.
        file: The file.
        opening: How it is opened.
        acked: The models of settled rows that the next write deletes, by sequence number.
        acked_bytes: About how many bytes these rows take in the file.
        retained: The models of settled rows whose dead letters are not safe yet, by sequence
            number.
        updated: Rows that were cut, by sequence number.
        noted: Histories of rows, by sequence number.
        lost: How many rows were missing or unreadable when the file was opened.
        trouble: Why a later process would not find what is written now, or None.
        is_damaged: Whether the file has to be rebuilt before it can be used.
        is_miscounted: Whether the file records more rows than it has.
    """

    claim: FileClaim
    file: SpoolFile
    opening: Opening
    acked: dict[int, str] = field(default_factory=dict)
    acked_bytes: int = 0
    retained: dict[int, str] = field(default_factory=dict)
    updated: dict[int, Row] = field(default_factory=dict)
    noted: dict[int, History] = field(default_factory=dict)
    lost: int = 0
    trouble: str | None = None
    is_damaged: bool = False
    is_miscounted: bool = False

    @property
    def size(self) -> int:
        """About how many bytes the file takes once the acked rows are deleted."""
        return self.file.size - self.acked_bytes

    @property
    def kept(self) -> int:
        """The number of rows that outlive the process; never too high, even during a commit."""
        if self.trouble:
            return 0
        # Acked rows are counted first, so that a commit in between makes the result too low.
        return -len(self.acked) - len(self.retained) + self.file.rows

    @property
    def is_done_with(self) -> bool:
        """Whether every row in the file is acked; the rows may still be there."""
        return self.file.rows == len(self.acked) > 0

    @property
    def is_to_be_written(self) -> bool:
        """Whether there are changes to write, beside new rows."""
        return bool(self.acked or self.updated or self.noted or self.is_miscounted)

    def write(self, fresh: Collection[tuple[int, Row]]) -> None:
        """Write new rows and all changes. Raises sqlite3.Error."""
        self.file.write(
            list(fresh),
            list(self.acked),
            list(self.updated.items()),
            noted=self.noted.items(),
            now=self.opening.clock.utc_now().timestamp(),
            trouble=self.claim.trouble,
        )
        self._written()

    def write_notes(self, fresh: Collection[tuple[int, Row]]) -> None:
        """Write new rows and histories, but no other changes. Raises sqlite3.Error."""
        now = self.opening.clock.utc_now().timestamp()
        noted = self.noted.items()
        self.file.write(list(fresh), (), (), noted=noted, now=now, trouble=self.claim.trouble)
        self.noted = {}

    def forget(self, row: Row, seq: int) -> None:
        """Delete a row with the next write."""
        self.acked[seq] = row.model_id
        self.acked_bytes += bytes_of(row)
        self.updated.pop(seq, None)
        self.noted.pop(seq, None)

    def let_go(self, seq: int) -> None:
        """Delete a retained row with the next write."""
        model_id = self.retained.pop(seq, None)
        if model_id is not None:
            self.acked[seq] = model_id
            self.updated.pop(seq, None)
            self.noted.pop(seq, None)

    def rows_by_model(self) -> dict[str, int]:
        """Return the number of rows in the file, by model; nothing when it cannot be read."""
        try:
            return self.file.rows_by_model()
        except sqlite3.Error:
            return {}

    def start_over(self) -> None:
        """Replace a file whose rows are all acked by an empty one.

        On a full disk, deleting rows may need more room than there is; this frees it.

        Raises:
            ConfigurationError, ForeignSpoolError, NotASpoolError, OSError, sqlite3.Error: It
                failed, and may be tried again.
        """
        models: dict[str, str] = {}
        with suppress(sqlite3.Error):  # the destination is asked again
            models = self.file.models()
        last_seq, owner = self.file.last_seq, self.file.owner
        self._close_file()
        self.claim.remove()
        self.claim.begin_anew()
        self._open_file(owner)
        self.file.last_seq = last_seq
        self._written()
        with suppress(sqlite3.Error):
            for model_id, description in models.items():
                self.file.remember(model_id, description)

    def rebuild(self, error: Exception, in_memory: Mapping[int, Row]) -> None:
        """Rebuild a damaged file from the rows that can be read and those in memory.

        Args:
            error: The error of SQLite.
            in_memory: Rows that are being sent, by sequence number.

        Raises:
            ConfigurationError, ForeignSpoolError, NotASpoolError, OSError, sqlite3.Error: It
                failed, and may be tried again.
        """
        self.is_damaged = True
        if not self.claim.finish():
            fresh, expected = self.claim.make_fresh(), self.file.rows - len(self.acked)
            last_seq, owner = self.file.last_seq, self.file.owner
            salvage = Salvage(self.claim.path, until=last_seq, last_seq=last_seq)
            found = _write_anew(
                fresh, salvage, self.opening, acked=self.acked, known=in_memory, owner=owner
            )
            self._close_file()
            aside = self.claim.quarantine(self.opening.clock.utc_now())
            self.claim.put_in_place(fresh)
            _log_damage(self.claim.path, error, aside, found=found, lost=expected - found)
            _remove_oldest_aside(self.claim, self.opening)
        self._open_file(self.file.owner)
        there = self.file.which_of(self.retained)
        self.retained = {seq: model for seq, model in self.retained.items() if seq in there}
        self._written()
        self.is_damaged = False

    def close(self, *, keep: bool) -> None:
        """Close and release the file, and delete it unless `keep` is set."""
        self._close_file()
        if not keep and not self.claim.trouble():
            self.claim.remove()
        self.claim.release()

    def _written(self) -> None:
        self.acked, self.acked_bytes, self.updated, self.noted = {}, 0, {}, {}
        self.is_miscounted = False

    def _close_file(self) -> None:
        with suppress(sqlite3.Error):
            self.file.close()
        self.claim.on_closed()

    def _open_file(self, owner: RowOwner) -> None:
        self.file = self.opening.file(self.claim.path, owner)
        self.claim.on_opened()


Place = tuple[Segment, int]
"""A file, and the sequence number of a row in it."""


def _write_anew(
    fresh: Path,
    salvage: Salvage,
    opening: Opening,
    *,
    acked: Collection[int] = (),
    known: Mapping[int, Row] = MappingProxyType({}),
    owner: RowOwner | None = None,
) -> int:
    """Write the readable rows of a damaged file to a new one; returns how many there are.

    Args:
        fresh: The new file, which is empty.
        salvage: Reads the damaged one.
        opening: How the new one is opened.
        acked: Numbers of rows to leave out.
        known: Rows, by number, that are in memory as they should be.
        owner: Who owns the rows. None for the owner that the damaged file names. If it names none,
            we own the rows of a file of the first version, and nobody those of any other.
    """
    seen = set(acked)
    waiting: list[tuple[int, Row, float]] = []
    file = opening.file(fresh)
    try:
        for seq, row, stored_at in salvage.read():
            if seq in seen:
                continue
            seen.add(seq)
            waiting.append((seq, known.get(seq, row), stored_at))
            if len(waiting) == SALVAGED_ROWS:
                file.restore(waiting)
                waiting = []
        now = opening.clock.utc_now().timestamp()
        waiting += [(seq, row, now) for seq, row in known.items() if seq not in seen]
        file.restore(waiting, salvage.last_seq)
        if owner is None:
            # Without an owner given, no cursor of ours relies on the old numbers yet.
            strays = enumerate(salvage.strays, file.last_seq + 1)
            file.restore([(seq, row, stored_at) for seq, (row, stored_at) in strays])
        for model_id, description in salvage.models.items():
            file.remember(model_id, description)
        owner = owner or salvage.owner
        if owner is not None or (file.rows and not salvage.never_had_owner):
            file.belong_to(owner)
        return file.rows
    finally:
        file.close()


def open_segment(claim: FileClaim, opening: Opening) -> Segment:
    """Open a file. A damaged one is quarantined, and its readable rows go into a new one.

    Args:
        claim: Our claim on it, which is released when the file cannot be opened.
        opening: How.

    Raises:
        ConfigurationError: It cannot be opened, or a later version wrote it.
        ForeignSpoolError: Its rows are for another owner.
    """
    lost = 0
    try:
        try:
            file = opening.file(claim.path)
        except ForeignSpoolError as error:
            if error.rows:
                raise
            claim.remove()  # nor are the models in it ours
            claim.begin_anew()
            file = opening.file(claim.path)
        except NotASpoolError as error:
            lost = _open_damaged(claim, opening, error)
            file = opening.file(claim.path)
        if file.missing:
            log_missing(claim.path, file.missing, opening.words)
            lost += file.missing
    except (ConfigurationError, ForeignSpoolError):
        claim.release()
        raise
    except (OSError, sqlite3.Error, NotASpoolError) as error:
        claim.release()
        raise SpoolError(
            f"The spool file {claim.path} can't be opened ({error}): check the disk, or give"
            f" another {named('spool_dir')}."
        ) from error
    claim.on_opened()
    return Segment(claim, file, opening, lost=lost)


def _open_damaged(claim: FileClaim, opening: Opening, error: NotASpoolError) -> int:
    """Replace a damaged file by a new one. Returns how many rows are missing in it."""
    salvage = Salvage(claim.path)
    fresh = claim.make_fresh()
    found = _write_anew(fresh, salvage, opening)
    lost = max(0, (salvage.rows or 0) - found)
    aside = claim.quarantine(opening.clock.utc_now())
    claim.put_in_place(fresh)
    _log_damage(claim.path, error, aside, found=found, lost=lost)
    _remove_oldest_aside(claim, opening)
    return lost


def _remove_oldest_aside(claim: FileClaim, opening: Opening) -> None:
    """Count a file that was just quarantined, and delete the oldest ones if there are too many."""
    opening.damaged["set_aside"] += 1
    removed: list[Path] = []
    with suppress(OSError):  # with the next one that is damaged
        removed = claim.remove_oldest_aside(most_bytes=opening.aside_bytes)
    opening.damaged["removed"] += len(removed)
    if removed:
        logger.warning(
            "arthur-relay: %d damaged spool files, the oldest ones, were removed, because there"
            " were more than %d or they took more than %s: %s. Files are damaged again and"
            " again: check the disk",
            len(removed),
            KEPT_ASIDE,
            named("spool_bytes"),
            ", ".join([path.name for path in removed]),
        )


def log_missing(path: Path, rows: int, words: RowWords) -> None:
    """Log that a file has fewer rows than it should have."""
    logger.warning(
        "arthur-relay: %d %s are not in the spool file %s any more, though nobody has delivered"
        " them; they are counted as dropped",
        rows,
        words.many,
        path,
    )


def _log_damage(path: Path, error: Exception, aside: Path, *, found: int, lost: int) -> None:
    logger.error(
        "arthur-relay: the spool file %s is damaged (%s): %d rows of it could be read and are in a"
        " new one, %d are missing and counted as dropped; it is kept as %s",
        path,
        error,
        found,
        lost,
        aside.name,
    )
