"""Buffers hold rows until they are acknowledged: in `memory`, in a `spool` on disk, or in both.

The users of a buffer need different things, so it has several small interfaces. `LeaseBuffer` hands
rows out for delivery, `IntakeBuffer` takes them in. The others are for what only some buffers can
do. `Buffer` combines them, with a stand-in for each that a buffer does not implement.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

from arthur_relay.buffers.schema_cache import NoSchemaCache, SchemaCache
from arthur_relay.row import Row, RowKind

ANY_BYTES = 1 << 62
"""No limit: more than all rows have together."""


class Recover(Protocol):
    """Counts rows that an earlier process captured, before anyone can see them here."""

    def __call__(self, rows: int, by_model: Callable[[], Mapping[str, int]], /) -> None:
        """Count the rows.

        Args:
            rows: The number of rows.
            by_model: Returns the number of rows by model, as far as they can be read. It reads all
                of them, so only those who need it should call it.
        """
        ...


def count_nothing(_rows: int, _by_model: Callable[[], Mapping[str, int]], /) -> None:
    """Leave the counting to the caller."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows that were held and can no longer be read.

    Attributes:
        rows: The number of rows.
        epochs: The number of rows that this process captured, by epoch.
    """

    rows: int = 0
    epochs: Mapping[int, int] = field(default_factory=dict)

    def plus(self, rows: int, epochs: Mapping[int, int] = MappingProxyType({})) -> "Loss":
        """Return the sum of this loss and another one."""
        return Loss(self.rows + rows, Counter(self.epochs) + Counter(epochs))


class DamagedFiles(NamedTuple):
    """The damaged spool files that this process found.

    Attributes:
        quarantined: Files that were renamed and kept.
        removed: Older quarantined files that were deleted to make room for them.
    """

    quarantined: int = 0
    removed: int = 0


class Compaction(Protocol):
    """Work that compresses some rows; the buffer may be used in the meantime."""

    def run(self) -> None:
        """Do the work. Any thread."""
        ...

    def finish(self) -> None:
        """Put the result in place, if there is one. Worker's thread only."""
        ...


class LeaseBuffer(Protocol):
    """Hands rows out for delivery; knows nothing of HTTP. Worker's thread only.

    A row is waiting or leased. A leased row is held until it is settled.
    """

    @property
    def waiting(self) -> int:
        """The number of rows that can be leased."""
        ...

    @property
    def is_looking(self) -> bool:
        """Whether the last lease ended early because it passed over too many rows.

        The caller should lease again soon.
        """
        ...

    def lease(
        self,
        limit: int,
        but: AbstractSet[str] = frozenset(),
        *,
        most_bytes: int = ANY_BYTES,
    ) -> list[Row]:
        """Lease the oldest waiting rows. May return none.

        Args:
            limit: The maximum number of rows.
            but: Models whose rows stay where they are.
            most_bytes: No further row is leased after the bodies have this many bytes.
        """
        ...

    def lease_of(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease up to `limit` waiting rows of one model, those sent least often first.

        May return none.
        """
        ...

    def settle(self, rows: Iterable[Row]) -> None:
        """Forget leased rows, which were acknowledged, rejected or dropped."""
        ...

    def replace(self, old: Row, new: Row) -> None:
        """Put a smaller form of a leased row in its place; the new row is leased as well."""
        ...

    def release(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait again, after those of their model that were sent as often."""
        ...

    def release_all(self) -> None:
        """Make every leased row wait again, in the old order, before all others.

        Rows that were put off then wait like any others.
        """
        ...


class DeferringBuffer(Protocol):
    """Holds ground truth back until its inference has been delivered. Worker's thread only."""

    def put_off(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait until `lease_put_off` asks for them."""
        ...

    def has_put_off(self, model_id: str) -> bool:
        """Return whether rows of a model are put off."""
        ...

    def lease_put_off(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease up to `limit` rows of one model that were put off, those sent least often first.

        May return none.
        """
        ...

    def on_their_way(
        self, inferences: AbstractSet[tuple[str, str]]
    ) -> AbstractSet[tuple[str, str]]:
        """Return which of some inferences, as in `Row.inference`, are leased themselves."""
        ...


class IntakeBuffer(Protocol):
    """Takes rows in and holds them, up to a limit. Worker's thread only."""

    @property
    def rows(self) -> int:
        """The number of rows held, leased ones included."""
        ...

    @property
    def size(self) -> int:
        """The bytes held, leased rows included."""
        ...

    @property
    def is_durable(self) -> bool:
        """Whether rows go to the disk first, so that captures should arrive here soon."""
        ...

    def has_room(self, *, rows: int, size: int) -> bool:
        """Return whether that many more rows have room, with bodies of `size` bytes in all."""
        ...

    def put(self, rows: Sequence[Row]) -> None:
        """Hold rows in their order, even without room."""
        ...

    def store(self, rows: Sequence[Row]) -> bool:
        """Hold rows that have room and make them as safe as the buffer can, or hold none of them.

        Returns:
            Whether the rows are held. False when they should be written to disk and cannot be.
        """
        ...

    def evict(self) -> Row | None:
        """Forget the oldest waiting row and return it, or None when none waits."""
        ...


class DurableBuffer(Protocol):
    """Keeps rows for a later process. Worker's thread only, except where a member says otherwise.

    It is opened before any other call, and committed once per turn of the worker.
    """

    def open(self, recover: Recover = count_nothing) -> int:
        """Get ready for use; a second call does nothing.

        Args:
            recover: Counts the rows that an earlier process left, before `kept` includes them.

        Returns:
            The number of those rows.

        Raises:
            ConfigurationError: The buffer cannot be used.
        """
        ...

    def adopt(self, recover: Recover = count_nothing) -> int:
        """Now and then, take over the rows that other processes have left.

        Args:
            recover: As for `open`.

        Returns:
            The number of those rows.
        """
        ...

    def commit(self) -> None:
        """Make all changes since the last call safe."""
        ...

    def close(self, out_of_time: Callable[[], bool] = ...) -> int:
        """Release everything; only `open` may follow. Any thread, after the worker has ended.

        Args:
            out_of_time: Returns whether to stop moving rows to the disk; by default, always False.

        Returns:
            The number of rows that are kept for a later process.
        """
        ...

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent."""
        ...

    @property
    def kept(self) -> int:
        """The number of rows that a later process would find if this one ended now. Any thread."""
        ...

    @property
    def keeper(self) -> str:
        """What keeps them, in two words. Any thread."""
        ...

    @property
    def closing_seconds(self) -> float:
        """How long `close` usually takes to keep all it can. Any thread."""
        ...

    @property
    def asks_for_owner(self) -> bool:
        """Whether rows wait that may be ours; this is decided once our owner is known."""
        ...

    def lost(self) -> Loss:
        """Return the rows lost since the last call; they are no longer held."""
        ...

    def rows_by_model(self) -> Mapping[str, int]:
        """Return the number of rows held, by model. It reads all of them, so it may take long."""
        ...


class DeliveryJournal(Protocol):
    """Records the history of leased rows for a later process. Worker's thread only."""

    def note(self, rows: Iterable[Row], *, at_once: bool = False) -> None:
        """Keep the histories of leased rows. Rows that are not leased are ignored.

        Args:
            rows: The rows.
            at_once: Whether to write them before this returns, if the disk allows it. Otherwise,
                the next commit writes them.
        """
        ...

    def retain(self, row: Row) -> object | None:
        """Settle a leased row, but keep it for a later process until `let_go`.

        Returns:
            The argument for `let_go`, or None when the row is in memory only and not settled yet.
        """
        ...

    def let_go(self, retained: Iterable[object]) -> None:
        """Forget retained rows with the next commit."""
        ...


class BufferStatus(Protocol):
    """The state of a buffer on disk, for operators. Any thread."""

    @property
    def trouble(self) -> str | None:
        """Why rows cannot be kept for a later process now, or None when they can.

        It asks the file system, which takes microseconds.
        """
        ...

    @property
    def left_alone(self) -> int:
        """The number of other processes' rows for another address or organisation.

        It includes rows for which this is not known yet.
        """
        ...

    @property
    def damaged_files(self) -> DamagedFiles:
        """The damaged files that were found."""
        ...

    @property
    def oldest_at(self) -> float | None:
        """When the oldest row on disk was stored, in seconds since 1970. None when none is."""
        ...


class CompactableBuffer(Protocol):
    """Compresses waiting rows, for a long wait. Worker's thread only."""

    def pack(self) -> None:
        """Serialise some waiting rows into one piece, which takes a millisecond at most.

        The memory between rows in separate objects is wasted.
        """
        ...

    def compact(self, *, quickly: bool = False) -> bool:
        """Compress some waiting rows before this returns.

        Args:
            quickly: Whether to compress less, in less time.

        Returns:
            Whether there was anything to compress.
        """
        ...

    def begin_compaction(self) -> Compaction | None:
        """Return the work that compresses some waiting rows as far as possible, or None."""
        ...


class NothingKept:
    """Stands in for `DurableBuffer`, `DeliveryJournal` and `BufferStatus` where no disk is used."""

    keeper = "the spool"
    closing_seconds = 0.0
    asks_for_owner = False
    trouble: str | None = None
    left_alone = 0
    damaged_files = DamagedFiles()
    oldest_at: float | None = None

    @property
    def kept(self) -> int:
        """0: no row outlives the process."""
        return 0

    def open(self, recover: Recover = count_nothing) -> int:  # noqa: ARG002 - the protocol's
        """Return 0."""
        return 0

    def adopt(self, recover: Recover = count_nothing) -> int:  # noqa: ARG002 - the protocol's
        """Return 0."""
        return 0

    def commit(self) -> None:
        """Do nothing."""

    def close(self, out_of_time: Callable[[], bool] = bool) -> int:  # noqa: ARG002 - the protocol's
        """Return 0."""
        return 0

    def abandon(self) -> None:
        """Do nothing: a forked child has its own memory."""

    def lost(self) -> Loss:
        """Return no loss: memory does not lose rows."""
        return Loss()

    def rows_by_model(self) -> Mapping[str, int]:
        """Return nothing: it is only used after a loss."""
        return {}

    def note(self, rows: Iterable[Row], *, at_once: bool = False) -> None:
        """Do nothing: the rows themselves have their histories."""

    def retain(self, row: Row) -> object | None:  # noqa: ARG002 - the protocol's
        """Return None: the row is in memory only."""
        return None

    def let_go(self, retained: Iterable[object]) -> None:
        """Do nothing: no row was retained."""


class NothingToCompact:
    """Stands in for `CompactableBuffer` where rows wait on disk."""

    def pack(self) -> None:
        """Do nothing."""

    def compact(self, *, quickly: bool = False) -> bool:  # noqa: ARG002 - the protocol's
        """Return False."""
        return False

    def begin_compaction(self) -> Compaction | None:
        """Return None."""
        return None


_NOTHING_KEPT = NothingKept()


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """The interfaces of a buffer. Usually, one object implements all that are not stand-ins.

    Attributes:
        leases: Hands rows out for delivery.
        deferred: Holds ground truth back.
        intake: Takes rows in.
        durable: Keeps rows for a later process.
        journal: Records the history of leased rows.
        status: The state for operators.
        schemas: Keeps models' schemas for a later process.
        compaction: Compresses waiting rows.
    """

    leases: LeaseBuffer
    deferred: DeferringBuffer
    intake: IntakeBuffer
    durable: DurableBuffer = _NOTHING_KEPT
    journal: DeliveryJournal = _NOTHING_KEPT
    status: BufferStatus = _NOTHING_KEPT
    schemas: SchemaCache = field(default_factory=NoSchemaCache)
    compaction: CompactableBuffer = field(default_factory=NothingToCompact)


MOST_RANKS = 32
"""Rows that were sent this often or more are leased in the order in which they came."""


def attempts_rank(row: Row) -> int:
    """Return a row's rank among those of its model that wait again; the lowest goes first."""
    return min(row.history.attempts, MOST_RANKS)


def inferences_among(
    rows: Iterable[Row], wanted: AbstractSet[tuple[str, str]]
) -> AbstractSet[tuple[str, str]]:
    """Return which of some inferences have a row of their own among these rows."""
    return {
        row.inference for row in rows if row.kind is RowKind.INFERENCE and row.inference in wanted
    }
