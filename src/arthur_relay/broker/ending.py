"""Ends what is in hand: has the broker forget packets that are settled, and gives back others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import anyio

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError
from arthur_relay.broker.inbox import Fate

if TYPE_CHECKING:
    from arthur_relay.broker.in_hand import InHand
    from arthur_relay.broker.inbox import HeldPacket


class Unmarks(Protocol):
    """Knows against which packets a death of ours counts."""

    async def unmark(self, held: HeldPacket, sequence: int, *, settled: bool) -> None:
        """Have a death of ours not count against a packet any more. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """Tells the broker what became of packets, for one run of the worker's loop.

    Attributes:
        hand: The packets in hand.
        deaths: Hears of those that are out of our hands.
    """

    hand: InHand
    deaths: Unmarks

    async def run(self) -> None:
        """End packets as their fates are decided, until cancelled."""
        async with anyio.create_task_group() as group:
            for held in self.hand:  # of an earlier run
                group.start_soon(self.end, held)
            while True:
                changed = self.hand.changes.next
                for held in self.hand.take_ended():
                    group.start_soon(self.end, held)
                await changed.wait()

    async def end(self, held: HeldPacket) -> None:
        """Do with a packet what was decided; nothing while that is open."""
        match held.fate:
            case Fate.SETTLED:
                await self.forget(held)
            case Fate.RETURNED:
                await self.give_back(held)
            case Fate.OPEN:
                pass

    async def end_decided(self) -> None:
        """End all packets whose fate is decided, for the end of the run."""
        await asyncio.gather(*map(self.end, self.hand))

    async def forget(self, held: HeldPacket) -> None:
        """Have the broker forget a packet; ask until that is certain."""
        while (delivery := self.hand.delivery(held)) is not None and not held.is_lost:
            try:
                await delivery.acknowledge()
            except BrokerAwayError:
                self.hand.failed_acknowledgements += 1
                await anyio.sleep(PAUSE_SECONDS)
            else:
                break
        await self._put_down(held, settled=True)

    async def give_back(self, held: HeldPacket) -> None:
        """Have the broker hand a packet out again."""
        delivery = self.hand.delivery(held)
        if delivery is not None:
            await self.deaths.unmark(held, delivery.sequence, settled=False)
            with suppress(BrokerAwayError):  # it is handed out again once its time is over
                await delivery.give_back()
            await self._put_down(held, settled=False)

    async def _put_down(self, held: HeldPacket, *, settled: bool) -> None:
        delivery = self.hand.put_down(held)
        self.hand.changes.beat()
        if delivery is not None:
            await self.deaths.unmark(held, delivery.sequence, settled=settled)
