"""The buffer for `overflow = spill`: rows that do not fit into memory go to the disk."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from arthur_relay.buffers import (
    ANY_BYTES,
    Buffer,
    Loss,
    Recover,
    count_nothing,
)
from arthur_relay.buffers.memory import MemoryBuffer
from arthur_relay.buffers.spool.buffer import Spool
from arthur_relay.row import Row, body_bytes

MOVED_ROWS = 500
"""The rows that are moved from memory to the disk at a time when the process ends."""

MOVED_BYTES_PER_SECOND = 4 * 1024 * 1024
"""The bytes in memory that can be decompressed and written in a second. Uncompressed rows take a
twentieth of the time, but too long an estimate only delays their delivery."""


class OverflowBuffer:
    """Rows in memory first, then on disk. See the protocols of `buffers` for each method.

    Rows keep their order: once rows are on disk, new ones go there too, until all of those have
    been leased. Rows that an earlier process left take up to half of each lease.

    Args:
        memory: Holds rows while they have room in it.
        spool: Holds the others, and all that are left when the process ends.
    """

    is_durable = False

    def __init__(self, memory: MemoryBuffer, spool: Spool) -> None:
        self._memory = memory
        self._spool = spool

    def as_buffer(self) -> Buffer:
        """Return its interfaces; memory or the spool alone implement some of them."""
        return Buffer(
            leases=self,
            deferred=self,
            intake=self,
            durable=self,
            journal=self._spool,  # histories in memory are written with their rows
            status=self._spool,
            schemas=self._spool.schemas,
            compaction=self._memory,
        )

    @property
    def rows(self) -> int:
        """The number of rows held, leased ones included."""
        return self._memory.rows + self._spool.rows

    @property
    def size(self) -> int:
        """The bytes held, leased rows included."""
        return self._memory.size + self._spool.size

    @property
    def waiting(self) -> int:
        """The number of rows that can be leased."""
        return self._memory.waiting + self._spool.waiting

    @property
    def kept(self) -> int:
        """The number of rows that outlive the process, however it ends."""
        return self._spool.kept

    @property
    def asks_for_owner(self) -> bool:
        """Whether rows wait on disk that may be ours."""
        return self._spool.asks_for_owner

    def open(self, recover: Recover = count_nothing) -> int:
        """Open the spool."""
        return self._spool.open(recover)

    def adopt(self, recover: Recover = count_nothing) -> int:
        """Take over the files that dead processes have left."""
        return self._spool.adopt(recover)

    def commit(self) -> None:
        """Make the rows on disk safe."""
        self._spool.commit()

    @property
    def keeper(self) -> str:
        """What keeps them, in two words."""
        return self._spool.keeper

    @property
    def closing_seconds(self) -> float:
        """How long it takes to move the rows in memory to the disk."""
        return self._memory.size / MOVED_BYTES_PER_SECOND

    def close(self, out_of_time: Callable[[], bool] = bool) -> int:
        """Move the rows in memory to the disk, as far as they have room, and release the files."""
        self._memory.release_all()
        while not out_of_time() and (rows := self._memory.lease(MOVED_ROWS)):
            size = body_bytes(rows)
            if not self._spool.has_room(rows=len(rows), size=size):
                break
            self._spool.put(rows)
            self._spool.commit()
            self._memory.settle(rows)
        return self._spool.close()

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent."""
        self._spool.abandon()

    def has_room(self, *, rows: int, size: int) -> bool:
        """Return whether that many more rows have room, in memory or on disk."""
        return self._fits_into_memory(rows, size) or self._spool.has_room(rows=rows, size=size)

    def put(self, rows: Sequence[Row]) -> None:
        """Hold rows."""
        if self._fits_into_memory(len(rows), body_bytes(rows)):
            self._memory.put(rows)
        else:
            self._spool.put(rows)

    def store(self, rows: Sequence[Row]) -> bool:
        """Hold rows. Returns True: without room in memory they go to the disk."""
        self.put(rows)
        return True

    @property
    def is_looking(self) -> bool:
        """Whether the last lease ended before it had looked at all waiting rows."""
        return self._spool.is_looking

    def lease(
        self,
        limit: int,
        but: AbstractSet[str] = frozenset(),
        *,
        most_bytes: int = ANY_BYTES,
    ) -> list[Row]:
        """Lease up to `limit` waiting rows."""
        rows = [] if but else self._spool.lease_backlog(limit // 2, most_bytes // 2)
        left = most_bytes - body_bytes(rows)
        if left > 0:
            found = self._memory.lease(limit - len(rows), but, most_bytes=left)
            left -= body_bytes(found)
            rows += found
        if len(rows) < limit and left > 0:  # what is on disk came later
            rows += self._spool.lease(limit - len(rows), but, most_bytes=left)
        return rows

    def lease_of(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease up to `limit` waiting rows of one model."""
        return self._memory.lease_of(
            model_id, limit, most_bytes=most_bytes
        ) or self._spool.lease_of(model_id, limit, most_bytes=most_bytes)

    def put_off(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait where they are held, until `lease_put_off` asks for them."""
        for row in rows:
            holder = self._memory if self._memory.has_leased(row) else self._spool
            holder.put_off((row,))

    def has_put_off(self, model_id: str) -> bool:
        """Return whether rows of a model are put off."""
        return self._memory.has_put_off(model_id) or self._spool.has_put_off(model_id)

    def lease_put_off(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease up to `limit` rows of one model that were put off."""
        return self._memory.lease_put_off(
            model_id, limit, most_bytes=most_bytes
        ) or self._spool.lease_put_off(model_id, limit, most_bytes=most_bytes)

    def release(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait again where they are held."""
        for row in rows:
            holder = self._memory if self._memory.has_leased(row) else self._spool
            holder.release((row,))

    def on_their_way(
        self, inferences: AbstractSet[tuple[str, str]]
    ) -> AbstractSet[tuple[str, str]]:
        """Return which of some inferences are leased themselves."""
        return self._memory.on_their_way(inferences) | self._spool.on_their_way(inferences)

    def settle(self, rows: Iterable[Row]) -> None:
        """Forget leased rows."""
        rows = list(rows)
        self._memory.settle(rows)  # each ignores the other's
        self._spool.settle(rows)

    def replace(self, old: Row, new: Row) -> None:
        """Put a smaller form of a leased row in its place."""
        holder = self._memory if self._memory.has_leased(old) else self._spool
        holder.replace(old, new)

    def lost(self) -> Loss:
        """Return the rows lost on disk since the last call."""
        return self._spool.lost()

    def rows_by_model(self) -> Mapping[str, int]:
        """Return the number of rows on disk, by model."""
        return self._spool.rows_by_model()

    def evict(self) -> Row | None:
        """Forget the oldest row on disk, because new ones go there too."""
        return self._spool.evict() or self._memory.evict()

    def release_all(self) -> None:
        """Make every leased row wait again, before all others."""
        self._memory.release_all()
        self._spool.release_all()

    def _fits_into_memory(self, rows: int, size: int) -> bool:
        return not self._spool.has_fresh and self._memory.has_room(rows=rows, size=size)
