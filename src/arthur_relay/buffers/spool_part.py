"""What the spool knows of one of its files: what is to be written, and how far it was read."""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import orjson

from arthur_relay.buffers import Recover
from arthur_relay.buffers.spool_directory import Claim
from arthur_relay.buffers.spool_file import SpoolFile
from arthur_relay.buffers.spool_format import NotASpoolError
from arthur_relay.errors import ConfigurationError, ModelError, SpoolError
from arthur_relay.row import History, Row
from arthur_relay.schema import ModelSchema
from arthur_relay.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.spool")

ROW_OVERHEAD_BYTES = 64
"""What a row takes in the file beside its body, about: ids, lengths, its place in the tree."""


def bytes_of(row: Row) -> int:
    """Return what a row takes in a file, about."""
    return len(row.body) + ROW_OVERHEAD_BYTES


@dataclass(slots=True, eq=False)
class Part:
    """A file of ours, with what is to be written to it.

    Attributes:
        claim: What makes it ours.
        file: The file.
        gone: Sequence numbers of rows that are done with.
        gone_bytes: What they take in the file, about.
        changed: Rows that were cut, by sequence number.
        noted: What happened to rows, by sequence number.
    """

    claim: Claim
    file: SpoolFile
    gone: list[int] = field(default_factory=list)
    gone_bytes: int = 0
    changed: dict[int, Row] = field(default_factory=dict)
    noted: dict[int, History] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that it takes once what is gone is forgotten, about."""
        return self.file.size - self.gone_bytes

    @property
    def is_done_with(self) -> bool:
        """Whether no row in the file is wanted any more, though it may still be there."""
        return self.file.rows == len(self.gone) > 0

    @property
    def is_to_be_written(self) -> bool:
        """Whether the file is not as it should be."""
        return bool(self.gone or self.changed or self.noted)

    def written(self) -> None:
        """Take note that it is now."""
        self.gone, self.gone_bytes, self.changed, self.noted = [], 0, {}, {}

    def rows_by_model(self) -> dict[str, int]:
        """Return how many rows of each model are in the file; none when it can't be read."""
        try:
            return self.file.rows_by_model()
        except sqlite3.Error:
            return {}

    def start_over(self, *, power_safe: bool) -> None:
        """Replace the file, once it is done with, by one without rows.

        On a full disk forgetting rows may need more room than there is; this frees it.

        Raises:
            ConfigurationError, OSError, sqlite3.Error: It can't be; to be tried again.
        """
        models: dict[str, str] = {}
        with suppress(sqlite3.Error):  # they are asked for again
            models = self.file.models()
        last_seq = self.file.last_seq
        self.file.close()
        self.claim.remove()
        self.file = SpoolFile(self.claim.path, power_safe=power_safe)
        self.file.last_seq = last_seq
        self.written()
        with suppress(sqlite3.Error):
            for model_id, description in models.items():
                self.file.remember(model_id, description)

    def close(self, *, keep: bool) -> None:
        """Let go of the file, and delete it unless it is to be kept."""
        self.file.close()
        if not keep:
            self.claim.remove()
        self.claim.release()


def open_part(claim: Claim, *, power_safe: bool, utc_now: Callable[[], datetime]) -> Part:
    """Open a file; a damaged or foreign one is set aside, and another one made.

    Args:
        claim: What makes it ours; released when it can't be opened.
        power_safe: Whether each commit is forced to the disk.
        utc_now: Returns the time, for the name of a damaged file.

    Raises:
        ConfigurationError: It can't be opened, or a later version has written it.
    """
    try:
        try:
            file = SpoolFile(claim.path, power_safe=power_safe)
        except NotASpoolError as error:
            aside = claim.set_aside(utc_now())
            logger.error(  # noqa: TRY400 - the error is told
                "arthur-relay: the spool file %s can't be read (%s); it is kept as %s",
                claim.path,
                error,
                aside.name,
            )
            file = SpoolFile(claim.path, power_safe=power_safe)
    except ConfigurationError:
        claim.release()
        raise
    except (OSError, sqlite3.Error, NotASpoolError) as error:
        claim.release()
        raise SpoolError(
            f"The spool file {claim.path} can't be opened ({error}): check the disk, or give"
            " another spool_dir (ARTHUR_RELAY_SPOOL_DIR)."
        ) from error
    return Part(claim, file)


class PartList(list[Part]):
    """The parts that are ours. What is not said to be for any thread is for the worker's."""

    def enter(
        self,
        claim: Claim,
        recover: Recover,
        *,
        power_safe: bool,
        utc_now: Callable[[], datetime],
    ) -> Part:
        """Open one more and return it. Raises what `open_part` does."""
        part = open_part(claim, power_safe=power_safe, utc_now=utc_now)
        # First: whoever finds as many rows kept as are pending takes those pending for safe.
        recover(part.file.rows, part.rows_by_model)
        self.append(part)
        return part

    @property
    def kept(self) -> int:
        """Rows that outlive the process; never too many, also while a commit goes on."""
        # What is gone is read first: a commit in between makes it too few.
        return sum([-len(part.gone) + part.file.rows for part in self])

    @property
    def size(self) -> int:
        """Bytes that they take, about."""
        return sum([part.size for part in self])

    @property
    def oldest_at(self) -> float | None:
        """When the oldest row was stored, in seconds since 1970, or None. Any thread."""
        found = [part.file.oldest_at for part in list(self)]
        return min([moment for moment in found if moment is not None], default=None)

    def schemas(self) -> list[ModelSchema]:
        """Return the models that are remembered, as they were."""
        found: dict[str, ModelSchema] = {}
        for part in self:
            with suppress(sqlite3.Error, orjson.JSONDecodeError, ModelError):
                for model_id, description in part.file.models().items():
                    found[model_id] = ModelSchema.from_json(orjson.loads(description))
        return list(found.values())

    def forget(self, model_id: str) -> None:
        """Keep a model no longer."""
        for part in self:
            with suppress(sqlite3.Error):
                part.file.forget(model_id)


@dataclass(slots=True, eq=False)
class Cursor:
    """How far a part has been read.

    Attributes:
        part: The part.
        after: The last sequence number that was read.
        until: The last one to read; None for all, new ones included.
        epoch: What the rows' epochs become; None leaves them.
    """

    part: Part
    after: int
    until: int | None = None
    epoch: int | None = None

    def read(self, limit: int) -> list[tuple[int, Row]]:
        """Return the next rows, `limit` at most; raises sqlite3.Error, and stays where it is."""
        until = self.part.file.last_seq if self.until is None else self.until
        if limit <= 0 or self.after >= until:
            return []
        found = self.part.file.read(self.after, until, limit, epoch=self.epoch)
        self.after = found[-1][0] if found else until
        return found
