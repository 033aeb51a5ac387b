"""The packets that a worker has in hand, with the deliveries that they came by.

They outlive the worker's loop: when that dies and is started again, the next run goes on with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from arthur_relay.broker.inbox import Fate
from arthur_relay.row import RowKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arthur_relay.broker.delivery import Delivery
    from arthur_relay.broker.inbox import HeldPacket, Inbox
    from arthur_relay.broker.pulse import Pulse


@dataclass(slots=True, eq=False)
class InHand:
    """Packets in hand. Worker's loop only, but for the numbers.

    Attributes:
        inbox: Has their rows.
        ack_wait_seconds: After how long the broker gives a packet of which it does not hear to
            others.
        redelivered_rows: Rows of packets that the broker had handed out before. Any thread.
        failed_acknowledgements: How often it was not known whether the broker has forgotten a
            packet. Any thread.
        newer_packets: How often a packet of a later version was left to newer workers. Any thread.
    """

    inbox: Inbox
    ack_wait_seconds: float
    redelivered_rows: int = 0
    failed_acknowledgements: int = 0
    newer_packets: int = 0
    _deliveries: dict[HeldPacket, Delivery] = field(default_factory=dict, init=False)
    _by_sequence: dict[int, HeldPacket] = field(default_factory=dict, init=False)
    _ended: list[HeldPacket] = field(default_factory=list, init=False)

    def __len__(self) -> int:
        """The number of packets. Any thread."""
        return len(self._deliveries)

    def __iter__(self) -> Iterator[HeldPacket]:
        """The packets as they are now, oldest first."""
        return iter(list(self._deliveries))

    def __contains__(self, held: object) -> bool:
        return held in self._deliveries

    @property
    def changes(self) -> Pulse:
        """Beats when rows were settled, or packets have come to an end."""
        return self.inbox.changes

    @property
    def deliveries(self) -> list[Delivery]:
        """What the packets came by."""
        return list(self._deliveries.values())

    def delivery(self, held: HeldPacket) -> Delivery | None:
        """Return what a packet came by; None when we have it no more."""
        return self._deliveries.get(held)

    def take(self, held: HeldPacket, delivery: Delivery) -> None:
        """Have a packet in hand."""
        if not self._deliveries:
            self.inbox.valid_until = held.alive_at + self.ack_wait_seconds
        self._deliveries[held] = delivery
        self._by_sequence[delivery.sequence] = held

    def renew(self, delivery: Delivery) -> bool:
        """Note that a packet in hand was handed out to us once more; False when it is none.

        Then the broker has forgotten that we have it: it was restarted, or has another leader.
        """
        held = self._by_sequence.get(delivery.sequence)
        if held is None or held.is_lost:
            return False
        held.alive_at = monotonic()
        delivery.body = b""
        self._deliveries[held] = delivery
        return True

    def put_down(self, held: HeldPacket) -> Delivery | None:
        """Have a packet in hand no more. Returns its delivery, or None when we had it no more."""
        delivery = self._deliveries.pop(held, None)
        if delivery is not None and self._by_sequence.get(delivery.sequence) is held:
            del self._by_sequence[delivery.sequence]
        held.gone.set()
        return delivery

    def end(self, held: HeldPacket, fate: Fate) -> None:
        """Decide what becomes of a packet whose rows the pipeline does not have."""
        self.inbox.let_go_of(held)
        held.fate = fate
        self._ended.append(held)
        self.changes.beat()

    def take_ended(self) -> list[HeldPacket]:
        """Return the packets whose fate was decided since the last call."""
        found, self._ended = self._ended, []
        return [*self.inbox.take_settled(), *found]

    def lost(self) -> list[HeldPacket]:
        """Return the packets that others may have: the broker has not heard of us for so long."""
        before = monotonic() - self.ack_wait_seconds
        return [held for held in self if held.alive_at <= before and held.rows]

    def update_validity(self) -> None:
        """Have no row sent once its packet may be somebody else's."""
        ours = (held.alive_at for held in self if not held.is_lost)
        self.inbox.valid_until = min(ours, default=float("inf")) + self.ack_wait_seconds


def is_truth(held: HeldPacket) -> bool:
    """Return whether a packet has ground truth."""
    return held.packet is not None and held.packet.kind is RowKind.GROUND_TRUTH
