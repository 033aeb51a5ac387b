"""Keeps packets in hand alive, and leaves those to others that they may have by now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError
from arthur_relay.broker.inbox import Fate

if TYPE_CHECKING:
    from arthur_relay.broker.in_hand import InHand
    from arthur_relay.broker.inbox import HeldPacket
    from arthur_relay.worker.worker import Worker


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Says that we work on what is in hand, settled packets included.

    Attributes:
        hand: The packets in hand.
        worker: Has their rows.
    """

    hand: InHand
    worker: Worker

    async def run(self) -> None:
        """Say so again and again, until cancelled."""
        wait = self.hand.ack_wait_seconds
        while True:
            self.leave_lost()
            heard = await asyncio.gather(*map(self._keep, self.hand))
            self.hand.update_validity()
            self.worker.wake()
            await anyio.sleep(wait / 3 if all(heard) else min(PAUSE_SECONDS, wait / 6))

    def leave_lost(self) -> None:
        """Leave to others what the broker has not heard of for so long that they may have it.

        It is not acknowledged even when the rows that are on their way arrive: the others count on
        the broker to keep it until they have delivered the rest.
        """
        lost = self.hand.lost()
        if not lost:
            return
        for held in [held for held in lost if not held.is_offered]:
            lost.remove(held)
            self.hand.inbox.let_go_of(held)
            held.is_lost, held.fate = True, Fate.SETTLED
            self.hand.put_down(held)
        self.worker.batching.release_unsent()
        settlement = self.worker.settlement
        withdrawn = self.hand.inbox.withdraw(lost, settlement.ground_truth, in_parts=True)
        for held, rows in withdrawn.items():
            settlement.returned(rows)
            held.is_lost = True
            if not held.rows:
                self.hand.put_down(held)
                held.is_marked = False
        self.hand.update_validity()
        self.hand.changes.beat()

    async def _keep(self, held: HeldPacket) -> bool:
        """Return whether the broker heard that we work on a packet."""
        began = monotonic()
        delivery = self.hand.delivery(held)
        if delivery is None or held.is_lost:
            return True
        try:
            await delivery.keep()
        except BrokerAwayError:
            return held not in self.hand
        held.alive_at = began
        return True
