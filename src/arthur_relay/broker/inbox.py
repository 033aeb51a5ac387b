"""The inbox: the rows of the packets that a worker has in hand, as the pipeline's buffer.

The rows themselves wait in a buffer in memory, as without a broker. The inbox remembers which
packet each came in, and so knows when a packet is settled: when all its rows are, and the dead
letters among them are safe. Until then the broker has it, and gives it to another worker when this
one dies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from arthur_relay.buffers import ANY_BYTES, Buffer, NothingKept
from arthur_relay.buffers.memory import MemoryBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from arthur_relay.broker.packets import Packet
    from arthur_relay.row import Row

_NO_ROWS = 1 << 40
"""More rows than fit into memory: bytes are the inbox's one limit."""


@dataclass(slots=True, eq=False)
class HeldPacket:
    """A packet that this worker has in hand.

    Attributes:
        packet: What it is.
        left: How many of its rows are not settled.
        letters: How many dead letters of its rows are not safe yet.
    """

    packet: Packet
    left: int
    letters: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether the broker may forget it."""
        return self.left == 0 and self.letters == 0


class Inbox(NothingKept):
    """Holds the rows of packets. Worker's thread only; see the protocols of `buffers`.

    Args:
        max_bytes: The bytes of rows that it should hold; a packet that is on its way may exceed it.
    """

    is_durable = False
    is_looking = False

    def __init__(self, *, max_bytes: int) -> None:
        self._memory = MemoryBuffer(max_rows=_NO_ROWS, max_bytes=max_bytes)
        self._max_bytes = max_bytes
        self._held: dict[Row, HeldPacket] = {}
        self._settled: list[HeldPacket] = []
        self.on_settled: Callable[[], object] = bool

    def as_buffer(self) -> Buffer:
        """Return its interfaces."""
        return Buffer(leases=self, deferred=self._memory, intake=self, durable=self, journal=self)

    # What the puller asks.

    def hold(self, packet: Packet) -> HeldPacket:
        """Remember whose the rows are that `store` is about to get."""
        held = HeldPacket(packet, len(packet.rows))
        self._held.update(dict.fromkeys(packet.rows, held))
        return held

    def take_settled(self) -> list[HeldPacket]:
        """Return the packets that were settled since the last call."""
        found, self._settled = self._settled, []
        return found

    def take_unsent(self) -> list[HeldPacket]:
        """Forget the packets of which nothing has been sent, and return them.

        Rows that are on their way, and those of packets that are settled in part, stay.
        """
        leased = self._memory.lease(_NO_ROWS)
        free: dict[HeldPacket, list[Row]] = {}
        for row in leased:
            free.setdefault(self._held[row], []).append(row)
        whole = [held for held, rows in free.items() if len(rows) == len(held.packet.rows)]
        for held in whole:
            rows = free.pop(held)
            self._memory.settle(rows)
            for row in rows:
                del self._held[row]
        self._memory.release([row for rows in free.values() for row in rows])
        return whole

    def take_all(self) -> list[HeldPacket]:
        """Forget everything, and return the packets with the rows that were not settled."""
        packets = [
            replace(held, packet=replace(held.packet, rows=tuple(rows)))
            for held, rows in self.unsettled().items()
        ]
        self._memory.release_all()
        self._memory.settle(self._memory.lease(_NO_ROWS))
        self._held.clear()
        self._settled.clear()
        return packets

    def unsettled(self) -> dict[HeldPacket, list[Row]]:
        """Return the rows that are not settled, by packet. For the end."""
        found: dict[HeldPacket, list[Row]] = {}
        for row, held in self._held.items():
            found.setdefault(held, []).append(row)
        return found

    @property
    def room(self) -> int:
        """The bytes of rows that it should get now; may be negative."""
        return self._max_bytes - self._memory.size

    # `IntakeBuffer`

    @property
    def rows(self) -> int:
        """The number of rows held."""
        return self._memory.rows

    @property
    def size(self) -> int:
        """The bytes held."""
        return self._memory.size

    def has_room(self, *, rows: int, size: int) -> bool:  # noqa: ARG002 - the protocol's
        """Return True: the puller fetches no more than there is room for."""
        return True

    def put(self, rows: Sequence[Row]) -> None:
        """Hold rows."""
        self._memory.put(rows)

    def store(self, rows: Sequence[Row]) -> bool:
        """Hold rows; they are safe in the broker."""
        self._memory.put(rows)
        return True

    def evict(self) -> Row | None:
        """Return None: the broker has room for what the worker has none for."""
        return None

    # `LeaseBuffer`

    @property
    def waiting(self) -> int:
        """The number of rows that can be leased."""
        return self._memory.waiting

    def lease(
        self,
        limit: int,
        but: AbstractSet[str] = frozenset(),
        *,
        most_bytes: int = ANY_BYTES,
    ) -> list[Row]:
        """Lease the oldest waiting rows."""
        return self._memory.lease(limit, but, most_bytes=most_bytes)

    def lease_of(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease waiting rows of one model."""
        return self._memory.lease_of(model_id, limit, most_bytes=most_bytes)

    def settle(self, rows: Iterable[Row]) -> None:
        """Forget leased rows; the broker forgets their packets soon after."""
        rows = list(rows)
        self._memory.settle(rows)
        for row in rows:
            held = self._held.pop(row, None)
            if held is not None:
                held.left -= 1
                self._look(held)

    def replace(self, old: Row, new: Row) -> None:
        """Put a smaller form of a leased row in its place."""
        self._memory.replace(old, new)
        held = self._held.pop(old, None)
        if held is not None:
            self._held[new] = held

    def release(self, rows: Iterable[Row]) -> None:
        """Make leased rows wait again."""
        self._memory.release(rows)

    def release_all(self) -> None:
        """Make every leased row wait again."""
        self._memory.release_all()

    # `DeliveryJournal`

    def retain(self, row: Row) -> object | None:
        """Have the broker keep a row's packet until `let_go`: its dead letter is not safe yet."""
        held = self._held.get(row)
        if held is not None:
            held.letters += 1
        return held

    def let_go(self, retained: Iterable[object]) -> None:
        """Count letters that are safe now."""
        for held in retained:
            assert isinstance(held, HeldPacket), "nobody else returns any"
            held.letters -= 1
            self._look(held)

    # `DurableBuffer`

    @property
    def kept(self) -> int:  # type: ignore[override]
        """The number of rows that the broker would give to others if this process ended now."""
        return self._memory.rows

    def close(self, out_of_time: Callable[[], bool] = bool) -> int:  # noqa: ARG002 - the protocol's
        """Return the number of rows that go back to the broker."""
        return self._memory.rows

    def _look(self, held: HeldPacket) -> None:
        if held.is_settled:
            self._settled.append(held)
            self.on_settled()
