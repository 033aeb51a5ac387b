"""The inbox: the rows of the packets that a worker has in hand, as the pipeline's buffer.

The rows themselves wait in a buffer in memory, as without a broker. The inbox remembers which
packet each came in, and so knows when a packet is settled: when all its rows are, and the dead
letters among them are safe. Until then the broker has it, and gives it to another worker when this
one dies.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import anyio

from arthur_relay.broker.pulse import Pulse
from arthur_relay.buffers import ANY_BYTES, Buffer, NothingKept
from arthur_relay.buffers.memory import ROW_OVERHEAD_BYTES, MemoryBuffer, memory_size

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from arthur_relay.broker.packets import Packet
    from arthur_relay.row import Row

_NO_ROWS = 1 << 40
"""More rows than fit into memory: bytes are the inbox's one limit."""


class Fate(Enum):
    """What is to become of a packet in hand."""

    OPEN = "open"
    """Its rows are on their way, or wait."""
    SETTLED = "settled"
    """The broker may forget it."""
    RETURNED = "returned"
    """The broker is to hand it out again."""


@dataclass(slots=True, eq=False, kw_only=True)
class HeldPacket:
    """A packet that this worker has in hand.

    Attributes:
        packet: What it is, without its rows; None for a message that is no packet.
        consumer: Which consumer handed it out.
        total: How many rows came in it.
        rows: Those of them that are not settled, as they are now.
        size: Their bytes.
        name: What the broker knows it by, also when it is handed out again.
        letters: How many dead letters of its rows are not safe yet.
        letter_size: Their bytes, and of those that have become safe meanwhile.
        taken_at: Since when we have it, on `time.monotonic()`'s scale.
        alive_at: When the broker last heard that we work on it, on the same scale.
        is_offered: Whether its rows were handed to the pipeline, and count as taken.
        deaths: How often workers died while they worked on it, as far as they counted that.
        is_marked: Whether a death of ours would count against it.
        waits_alone: Whether its rows wait until nothing else is worked on that may kill workers.
        is_apart: Whether it waits apart from others, because its model has to wait.
        is_lost: Whether somebody else has it by now, and some of its rows were left to them.
        fate: What is to become of it.
        gone: Set once it is out of our hands.
    """

    packet: Packet | None
    consumer: str
    total: int
    rows: dict[Row, None]
    size: int
    name: str
    letters: int = 0
    letter_size: int = 0
    taken_at: float = field(default_factory=monotonic)
    alive_at: float = field(default_factory=monotonic)
    deaths: int = 0
    is_marked: bool = False
    waits_alone: bool = False
    is_offered: bool = False
    is_apart: bool = False
    is_lost: bool = False
    fate: Fate = Fate.OPEN
    gone: anyio.Event = field(default_factory=anyio.Event)


class KeepsTruth(Protocol):
    """Keeps ground truth until it may be sent: `delivery.ground_truth`."""

    def kept(self) -> AbstractSet[Row]:
        """Return the rows that are kept there."""
        ...

    def withdraw(self, rows: AbstractSet[Row]) -> None:
        """Forget rows that are kept there."""
        ...


class Inbox(MemoryBuffer, NothingKept):
    """Holds the rows of packets. Worker's thread only; see the protocols of `buffers`.

    Args:
        max_bytes: The bytes of rows that it should hold; a packet of each consumer may exceed it.

    Attributes:
        changes: Beats when rows were settled.
        valid_until: From when on no row is leased, on `time.monotonic()`'s scale: the broker has
            not heard of us for so long that it may have given the rows to somebody else.
    """

    keeper = "the broker"

    def __init__(self, *, max_bytes: int) -> None:
        super().__init__(max_rows=_NO_ROWS, max_bytes=max_bytes)
        self._held: dict[Row, HeldPacket] = {}
        self._settled: list[HeldPacket] = []
        self._bytes: Counter[str] = Counter()
        self.changes = Pulse()
        self.valid_until = float("inf")

    def as_buffer(self) -> Buffer:
        """Return its interfaces."""
        return Buffer(leases=self, deferred=self, intake=self, durable=self, journal=self)

    # What the puller asks.

    def hold(self, packet: Packet, consumer: str) -> HeldPacket:
        """Remember whose the rows are that `store` is about to get."""
        size = sum(map(memory_size, packet.rows))
        held = HeldPacket(
            packet=replace(packet, rows=()),
            consumer=consumer,
            total=len(packet.rows),
            rows=dict.fromkeys(packet.rows),
            size=size,
            name=packet.id,
        )
        self._held.update(dict.fromkeys(packet.rows, held))
        self._bytes[consumer] += size
        return held

    def hold_letter(self, consumer: str, name: str, size: int) -> HeldPacket:
        """Return what stands for a message that is no packet, until its dead letter is safe."""
        held = HeldPacket(packet=None, consumer=consumer, total=0, rows={}, size=0, name=name)
        self._hold_letter_of(held, size + ROW_OVERHEAD_BYTES)
        return held

    def take_settled(self) -> list[HeldPacket]:
        """Return the packets that were settled since the last call."""
        found, self._settled = self._settled, []
        return found

    def withdraw(
        self, packets: Collection[HeldPacket], truths: KeepsTruth, *, in_parts: bool = False
    ) -> dict[HeldPacket, list[Row]]:
        """Take rows of packets out that are in nobody's hands: they are not on their way to Arthur.

        They stay leased, and settling them has no effect on their packets; `put_back` undoes that.

        Args:
            packets: The packets.
            truths: Keeps ground truth, which it forgets.
            in_parts: Whether to take rows of packets of which others are on their way.

        Returns:
            The rows by packet; only packets of which there are any, and no dead letters wait.
        """
        if not packets:
            return {}
        waiting = super().lease(_NO_ROWS)
        models = {held.packet.model_id for held in packets if held.packet is not None}
        put_off = [row for m in models for row in self.lease_put_off(m, _NO_ROWS)]
        kept = truths.kept()
        free = {*waiting, *put_off, *kept}
        found: dict[HeldPacket, list[Row]] = {}
        for held in packets:
            rows = [row for row in held.rows if row in free]
            if rows and not held.letters and (in_parts or len(rows) == len(held.rows)):
                found[held] = rows
        taken = {row for rows in found.values() for row in rows}
        truths.withdraw(kept & taken)
        for held, rows in found.items():
            self._detach(held, rows)
        self.release([row for row in waiting if row not in taken])
        self.put_off([row for row in put_off if row not in taken])
        return found

    def put_back(self, held: HeldPacket, rows: Sequence[Row]) -> None:
        """Have rows sent after all that were withdrawn."""
        held.rows.update(dict.fromkeys(rows))
        self._held.update(dict.fromkeys(rows, held))
        self._resize(held, sum(map(memory_size, rows)))
        self.release(rows)

    def let_go_of(self, held: HeldPacket) -> None:
        """Forget a packet whose rows were not stored."""
        self._detach(held, list(held.rows))

    def withdraw_all(self) -> dict[HeldPacket, list[Row]]:
        """Take all rows out, for the end: nothing is on its way any more. As `withdraw`."""
        self.release_all()
        super().lease(_NO_ROWS)
        found: dict[HeldPacket, list[Row]] = {}
        for row, held in self._held.items():
            found.setdefault(held, []).append(row)
        for held, rows in found.items():
            self._detach(held, rows)
        return found

    def room(self, consumer: str, packet_bytes: int) -> int:
        """Return how many more packets of a consumer there is room for.

        A consumer has room as long as it holds less than what is free. So one that is stuck takes
        half of the room, a second one half of the rest, and there always is some for the others.
        Each may have one packet in any case.

        Args:
            consumer: The consumer's name.
            packet_bytes: The usual size of a packet.
        """
        own, free = self._bytes[consumer], self._max_bytes - self._bytes.total()
        if own and own >= free:
            return 0
        return max(1, (free - own) // packet_bytes)

    # `IntakeBuffer`

    def has_room(self, *, rows: int, size: int) -> bool:  # noqa: ARG002 - the protocol's
        """Return True: the puller fetches no more than there is room for."""
        return True

    def evict(self) -> Row | None:
        """Return None: the broker has room for what the worker has none for."""
        return None

    # `LeaseBuffer`

    def lease(
        self,
        limit: int,
        but: AbstractSet[str] = frozenset(),
        *,
        most_bytes: int = ANY_BYTES,
    ) -> list[Row]:
        """Lease the oldest waiting rows."""
        if monotonic() >= self.valid_until:
            return []
        return super().lease(limit, but, most_bytes=most_bytes)

    def lease_of(self, model_id: str, limit: int, *, most_bytes: int = ANY_BYTES) -> list[Row]:
        """Lease waiting rows of one model."""
        if monotonic() >= self.valid_until:
            return []
        return super().lease_of(model_id, limit, most_bytes=most_bytes)

    def settle(self, rows: Iterable[Row]) -> None:
        """Forget leased rows; the broker forgets their packets soon after."""
        rows = list(rows)
        super().settle(rows)
        packets = dict.fromkeys(held for row in rows if (held := self._held.get(row)) is not None)
        for row in rows:
            if (held := self._held.get(row)) is not None:
                self._detach(held, [row])
        for held in packets:
            self._look(held)
        self.changes.beat()

    def replace(self, old: Row, new: Row) -> None:
        """Put another form of a leased row in its place."""
        super().replace(old, new)
        held = self._held.get(old)
        if held is not None:
            self._detach(held, [old])
            held.rows[new] = None
            self._held[new] = held
            self._resize(held, memory_size(new))

    # `DeliveryJournal`

    def retain(self, row: Row) -> object | None:
        """Have the broker keep a row's packet until `let_go`: its dead letter is not safe yet."""
        held = self._held.get(row)
        if held is not None:
            self._hold_letter_of(held, memory_size(row))
        return held

    def let_go(self, retained: Iterable[object]) -> None:
        """Count letters that are safe now."""
        for held in retained:
            assert isinstance(held, HeldPacket), "nobody else returns any"
            held.letters -= 1
            if not held.letters:
                self._bytes[held.consumer] -= held.letter_size
                held.letter_size = 0
            self._look(held)
        self.changes.beat()

    # `DurableBuffer`

    @property
    def kept(self) -> int:
        """The number of rows that the broker would give to others if this process ended now."""
        return self.rows

    def close(self, out_of_time: Callable[[], bool] = bool) -> int:  # noqa: ARG002 - the protocol's
        """Return the number of rows that go back to the broker."""
        return self.rows

    def _hold_letter_of(self, held: HeldPacket, size: int) -> None:
        """Keep room for a letter: while none can be written, no more packets are fetched."""
        held.letters += 1
        held.letter_size += size
        self._bytes[held.consumer] += size

    def _detach(self, held: HeldPacket, rows: Iterable[Row]) -> None:
        for row in rows:
            del self._held[row], held.rows[row]
            self._resize(held, -memory_size(row))

    def _resize(self, held: HeldPacket, size: int) -> None:
        held.size += size
        self._bytes[held.consumer] += size

    def _look(self, held: HeldPacket) -> None:
        if not held.rows and not held.letters and held.fate is Fate.OPEN:
            held.fate = Fate.SETTLED
            self._settled.append(held)
