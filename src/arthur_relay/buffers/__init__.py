"""Holding rows until they are acknowledged: in `memory`, in a `spool` on disk, or in both."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

from arthur_relay.row import Row, RowKind

ANY_BYTES = 1 << 62
"""More than all rows have together."""


class Recover(Protocol):
    """Counts rows that an earlier process has captured, before anyone can see them here."""

    def __call__(self, rows: int, by_model: Callable[[], Mapping[str, int]], /) -> None:
        """Count them.

        Args:
            rows: How many.
            by_model: Returns how many of which model, as far as they can be read. Reads them all,
                so only for those who must know.
        """
        ...


def count_nothing(_rows: int, _by_model: Callable[[], Mapping[str, int]], /) -> None:
    """Leave the counting to the caller."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows that were held and can't be read any more.

    Attributes:
        rows: How many.
        epochs: How many of which epoch, of those that were captured in this process.
    """

    rows: int = 0
    epochs: Mapping[int, int] = field(default_factory=dict)

    def plus(self, rows: int, epochs: Mapping[int, int] = MappingProxyType({})) -> "Loss":
        """Return this and some more."""
        return Loss(self.rows + rows, Counter(self.epochs) + Counter(epochs))


class DamagedFiles(NamedTuple):
    """What became of damaged files of a spool, in this process.

    Attributes:
        set_aside: How many were found, and given another name.
        removed: How many of those that were set aside before gave way to them.
    """

    quarantine: int = 0
    removed: int = 0


class Compaction(Protocol):
    """Work that keeps some rows in a smaller form; the buffer may be used while it is done."""

    def run(self) -> None:
        """Do the work. Any thread."""
        ...

    def finish(self) -> None:
        """Put the result in its place; without one, all is as it was. Worker's thread only."""
        ...


class Buffer(Protocol):
    """Holds rows between encoding and acknowledgement; knows nothing of HTTP.

    A row is waiting, or leased to a delivery. Only the worker's thread uses a buffer.
    """

    @property
    def rows(self) -> int:
        """Rows held, leased ones included."""
        ...

    @property
    def size(self) -> int:
        """Bytes held, leased ones included."""
        ...

    @property
    def waiting(self) -> int:
        """Rows that can be leased."""
        ...

    @property
    def is_durable(self) -> bool:
        """Whether what is held outlives the process, so that captures should get here soon."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why nothing can be kept for a later process now, where it should be; None when it can.

        Any thread; asks the file system, which takes microseconds.
        """
        ...

    def open(self, recover: Recover = count_nothing) -> int:
        """Get ready; a second time does nothing. Returns how many rows an earlier process left.

        Args:
            recover: Is told of them before they show in `rows` and `kept`.

        Raises:
            ConfigurationError: It can't be used.
        """
        ...

    def adopt(self, recover: Recover = count_nothing) -> int:
        """Take over what others have left, now and then. Returns how many rows that are.

        Args:
            recover: As for `open`.
        """
        ...

    @property
    def oldest_at(self) -> float | None:
        """When the oldest row that is kept was stored, in seconds since 1970, or None. Any thread.

        None also where rows are in memory only.
        """
        ...

    def commit(self) -> None:
        """Make safe what has happened since the last time. Called once a turn."""
        ...

    @property
    def asks_for_owner(self) -> bool:
        """Whether rows wait that may be ours, once it is known who we are."""
        ...

    def schemas(self) -> Mapping[str, str]:
        """Return the models that an earlier process has remembered, as they were then."""
        ...

    def remember(self, model_id: str, text: str) -> None:
        """Keep a model's schema for a start while the destination is away."""
        ...

    def forget(self, model_id: str) -> None:
        """Keep it no longer: the destination knows no such model."""
        ...

    @property
    def closing_seconds(self) -> float:
        """How long `close` will take, as a rule, to keep what it can. Any thread."""
        ...

    def close(self, out_of_time: Callable[[], bool] = ...) -> int:
        """Let go of everything; only `open` may follow. Any thread, once the worker ended.

        Args:
            out_of_time: Says whether to keep no more rows than are kept by now; never by default.

        Returns:
            How many rows are kept for a later process.
        """
        ...

    def abandon(self) -> None:
        """Leave everything to the parent, in a forked child."""
        ...

    @property
    def kept(self) -> int:
        """Rows that are kept for a later process, should this one end now. Any thread."""
        ...

    def has_room(self, *, rows: int, size: int) -> bool:
        """Say whether that many more rows, of so many bytes in all, fit in."""
        ...

    def put(self, rows: Sequence[Row]) -> None:
        """Hold rows, in their order, whether or not there is room."""
        ...

    def store(self, rows: Sequence[Row]) -> bool:
        """Hold rows that have room, and make them as safe as the buffer can; or hold none.

        Returns:
            Whether they are held. False where they would be in memory only, and should not.
        """
        ...

    def pack(self) -> None:
        """Keep some of what waits in a form for a long wait; takes a millisecond at most.

        Where rows wait each on its own, the memory between them is of no use to anything.
        """
        ...

    def compact(self, *, quickly: bool = False) -> bool:
        """Keep some of what waits in a smaller form, here and now.

        Args:
            quickly: Time is short, so it need not become as small as it could.

        Returns:
            Whether there was anything to do.
        """
        ...

    def begin_compaction(self) -> Compaction | None:
        """Return work that keeps some of what waits in its smallest form, or None."""
        ...

    def lease(
        self,
        limit: int,
        but: AbstractSet[str] = frozenset(),
        *,
        most_bytes: int = ANY_BYTES,
    ) -> list[Row]:
        """Return the oldest waiting rows; they stay held. May be empty.

        Args:
            limit: How many rows, at most.
            but: Models whose rows stay where they are.
            most_bytes: After so many bytes of bodies no more are leased.
        """
        ...

    @property
    def is_looking(self) -> bool:
        """Whether a lease ended early, because too many rows were passed over: ask again soon."""
        ...

    def lease_of(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Return waiting rows of one model, `limit` at most; they stay held. May be empty.

        Those that were sent least often come first.
        """
        ...

    def put_off(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait again, until they are asked for by `lease_put_off`."""
        ...

    def has_put_off(self, model_id: str) -> bool:
        """Say whether rows of a model are put off."""
        ...

    def lease_put_off(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Return rows of one model that were put off, `limit` at most; they stay held.

        Those that were sent least often come first, as for `lease_of`. May be empty.
        """
        ...

    def give_back(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait again, behind those of their model that were sent as often."""
        ...

    def on_their_way(
        self, inferences: AbstractSet[tuple[str, str]]
    ) -> AbstractSet[tuple[str, str]]:
        """Return which of some inferences, as in `Row.inference`, are leased themselves."""
        ...

    def settle(self, rows: Iterable[Row]) -> None:
        """Forget leased rows: acknowledged, rejected or given up."""
        ...

    def replace(self, old: Row, new: Row) -> None:
        """Hold a smaller form of a leased row in its place, leased as well."""
        ...

    def note(self, rows: Iterable[Row], *, at_once: bool = False) -> None:
        """Keep the histories of leased rows for a later process, where there may be one.

        Args:
            rows: The rows; those that are not held are passed over.
            at_once: Whether they are to be safe when this returns, as far as that can be had;
                else they are with the next commit.
        """
        ...

    def retain(self, row: Row) -> object | None:
        """Settle a leased row, but keep it for a later process, should this one end, until let go.

        Returns:
            What to let go; None when it is not kept anyway, and still to be settled.
        """
        ...

    def let_go(self, retained: Iterable[object]) -> None:
        """Forget what was retained, with the next commit."""
        ...

    def lost(self) -> Loss:
        """Return what was lost since the last call; it is held no longer."""
        ...

    @property
    def left_alone(self) -> int:
        """Rows of other processes that are for another address or organisation. Any thread.

        So are those of which it is not known yet whether they are.
        """
        ...

    @property
    def damaged_files(self) -> DamagedFiles:
        """What became of files that were found damaged. Any thread."""
        ...

    def rows_by_model(self) -> Mapping[str, int]:
        """Return how many rows of each model are held, where rows can be lost. May take long."""
        ...

    def evict(self) -> Row | None:
        """Forget the oldest waiting row and return it, or None when none waits."""
        ...

    def release_all(self) -> None:
        """Make every leased row wait again, in the old order, before the others."""
        ...


MOST_RANKS = 32
"""Rows that were sent so often, or oftener, have their turn in the order in which they came."""


def attempts_rank(row: Row) -> int:
    """Return when a row's turn comes among those of its model that wait again: the lowest first."""
    return min(row.history.attempts, MOST_RANKS)


def inferences_among(
    rows: Iterable[Row], wanted: AbstractSet[tuple[str, str]]
) -> AbstractSet[tuple[str, str]]:
    """Return which of some inferences have a row of their own among these."""
    return {
        row.inference for row in rows if row.kind is RowKind.INFERENCE and row.inference in wanted
    }
