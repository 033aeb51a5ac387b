"""Gives back packets of which no row is on its way to Arthur, and the rest of others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError, BrokerFullError
from arthur_relay.broker.in_hand import is_truth
from arthur_relay.broker.inbox import Fate

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from arthur_relay.broker.ending import Ending
    from arthur_relay.broker.in_hand import InHand
    from arthur_relay.broker.inbox import HeldPacket
    from arthur_relay.broker.resending import Resender
    from arthur_relay.row import Row
    from arthur_relay.worker.worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Returns:
    """Gives back what this worker does not deliver, for one run of its loop.

    Attributes:
        hand: The packets in hand.
        worker: Has their rows.
        ending: Tells the broker.
        resender: Publishes what is left of packets.
    """

    hand: InHand
    worker: Worker
    ending: Ending
    resender: Resender

    async def run(self) -> None:
        """Give back what is not sent while Arthur is away."""
        while True:
            await anyio.sleep(PAUSE_SECONDS)
            if self.worker.sender.is_down:
                await self.give_back_unsent(keep_one=True)

    async def give_back_unsent(self, *, keep_one: bool = False) -> None:
        """Give back packets of which no row is on its way to Arthur.

        Args:
            keep_one: Whether one is kept, with which to learn that Arthur is back.
        """
        packets = [held for held in self.hand if held.fate is Fate.OPEN and not held.is_lost]
        if keep_one and len(packets) <= 1:
            return
        self.worker.batching.release_unsent()
        if keep_one:
            packets.remove(self._probe(packets))
        await self.give_back(packets)

    async def give_back_all(self) -> None:
        """Settle all rows as returned, and give back their packets: for the end of the worker.

        By then no request is in flight: each has ended, or was cancelled.
        """
        parts: list[tuple[HeldPacket, Sequence[Row]]] = []
        for held, rows in self.hand.inbox.withdraw_all().items():
            if held.is_offered:
                self.worker.settlement.returned(rows)
            if held.is_lost:
                held.fate = Fate.SETTLED
            elif held.letters or len(rows) == held.total:
                held.fate = Fate.RETURNED
            else:
                parts.append((held, rows))
        for held in self.hand:
            if held.fate is Fate.OPEN and held.letters and not held.rows:
                held.fate = Fate.RETURNED  # its dead letters are not safe
        await asyncio.gather(
            *(self._end_part(held, rows) for held, rows in parts), *map(self.ending.end, self.hand)
        )

    def _probe(self, packets: Sequence[HeldPacket]) -> HeldPacket:
        """Return the packet to keep, with which to learn that Arthur is back.

        An inference, where there is one: ground truth may have to wait for its own.
        """
        on_their_way = self.worker.buffer.deferred.on_their_way
        inferences = [held for held in packets if not is_truth(held)]
        for held in inferences:
            if on_their_way({row.inference for row in held.rows}):
                return held
        return inferences[0] if inferences else packets[0]

    async def give_back(self, packets: Collection[HeldPacket], *, apart: bool = False) -> None:
        """Give back packets of which no row is on its way.

        Args:
            packets: The packets.
            apart: Whether they have to wait, and go to the end of those that wait apart, with what
                is known of their rows.
        """
        for held in packets:
            if not held.is_offered and held.rows:
                self.hand.end(held, Fate.RETURNED)
        settlement = self.worker.settlement
        offered = [held for held in packets if held.is_offered]
        free = self.hand.inbox.withdraw(offered, settlement.ground_truth)
        whole = [held for held in free if not apart and len(free[held]) == held.total]
        for held in whole:
            held.fate = Fate.RETURNED
            settlement.returned(free[held])
        parts = [held for held in free if held not in whole]
        await asyncio.gather(
            *map(self.ending.give_back, whole),
            *(self._give_back_part(held, free[held], apart=apart) for held in parts),
        )

    async def _give_back_part(self, held: HeldPacket, rows: Sequence[Row], *, apart: bool) -> None:
        """Give back rows as a new packet, and have the old one forgotten.

        When the broker does not take it, the rows are sent from here after all.
        """
        try:
            await self.resender.publish_rest(held, rows, apart=apart)
        except BaseException as error:
            self.hand.inbox.put_back(held, rows)
            self.worker.wake()
            if not isinstance(error, BrokerAwayError | BrokerFullError):
                raise
        else:
            held.fate = Fate.SETTLED
            self.worker.settlement.returned(rows)
            await self.ending.forget(held)

    async def _end_part(self, held: HeldPacket, rows: Sequence[Row]) -> None:
        try:
            await self.resender.publish_rest(held, rows)
        except (BrokerAwayError, BrokerFullError):
            held.fate = Fate.RETURNED
        else:
            held.fate = Fate.SETTLED
        await self.ending.end(held)
