"""Packets that come again: a worker may have died of them.

What may have killed one is worked on alone, so that the next death shows which packet it was. A
packet that has killed enough is split into its rows, and such a row becomes a dead letter.
"""

from __future__ import annotations

import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import anyio

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError, BrokerFullError
from arthur_relay.broker.inbox import Fate
from arthur_relay.delivery.batching import MAX_DEATHS

if TYPE_CHECKING:
    from arthur_relay.broker.in_hand import InHand
    from arthur_relay.broker.inbox import HeldPacket
    from arthur_relay.broker.offers import Offers
    from arthur_relay.broker.packets import Packet
    from arthur_relay.broker.resending import Resender
    from arthur_relay.broker.shared import Shared

logger = logging.getLogger("arthur_relay.broker")

ALONE_SECONDS: Final = 30.0
"""How long a packet that workers died with is worked on before the next one is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deaths:
    """Knows of which packets workers died, for one run of the worker's loop.

    Attributes:
        hand: The packets in hand.
        shared: Where the workers count deaths.
        offers: Gives rows to the worker.
        resender: Publishes rows anew.
    """

    hand: InHand
    shared: Shared
    offers: Offers
    resender: Resender

    async def take_again(self, held: HeldPacket, packet: Packet) -> None:
        """Take a packet in hand that came again."""
        held.deaths = await self._deaths_of(held)
        deaths = packet.deaths + held.deaths
        if held.fate is not Fate.OPEN:
            return
        if deaths >= MAX_DEATHS and len(packet.rows) > 1:
            await self._split(held, packet)
            return
        for row in packet.rows:
            row.history = replace(row.history, deaths=deaths, is_repeated=True)
        if deaths and deaths < MAX_DEATHS:
            held.waits_alone = True
            self.hand.changes.beat()
            return
        if not deaths:
            await self._mark(held)
        # With enough deaths it becomes a dead letter, and nothing of it is sent.
        self.offers.offer(held)

    async def run(self) -> None:
        """Work on packets that a worker died with one after the other."""
        while True:
            changed = self.hand.changes.next
            held = next((each for each in self.hand if each.waits_alone), None)
            if held is None:
                await changed.wait()
                continue
            if held.fate is Fate.OPEN:
                await self._mark(held)
                held.waits_alone = False
                self.offers.offer(held)
                with anyio.move_on_after(ALONE_SECONDS):
                    await held.gone.wait()
            held.waits_alone = False

    async def unmark(self, held: HeldPacket, sequence: int, *, settled: bool) -> None:
        """Have a death of ours not count against a packet any more."""
        if held.is_marked:
            held.is_marked = False
            # Without it, the entry ends by itself.
            with suppress(BrokerAwayError, BrokerFullError):
                await self.shared.set_deaths(sequence, 0 if settled else held.deaths)

    async def _deaths_of(self, held: HeldPacket) -> int:
        while (delivery := self.hand.delivery(held)) is not None:
            try:
                return await self.shared.deaths(delivery.sequence)
            except BrokerAwayError:
                await anyio.sleep(PAUSE_SECONDS)
        return 0

    async def _mark(self, held: HeldPacket) -> None:
        """Have a death of ours count against a packet, from now until it is out of our hands."""
        held.is_marked = True
        while (delivery := self.hand.delivery(held)) is not None:
            try:
                await self.shared.set_deaths(delivery.sequence, held.deaths + 1)
            except (BrokerAwayError, BrokerFullError):
                await anyio.sleep(PAUSE_SECONDS)
            else:
                return

    async def _split(self, held: HeldPacket, packet: Packet) -> None:
        """Have each row travel alone: one of them kills workers."""
        logger.warning(
            "workers died while they had a packet of %d rows: each travels alone now",
            len(packet.rows),
        )
        for row in packet.rows:
            alone = replace(packet, id=str(uuid.uuid4()), rows=(row,), deaths=MAX_DEATHS - 1)
            while held in self.hand:
                try:
                    await self.resender.publish(alone)
                except (BrokerAwayError, BrokerFullError):
                    await anyio.sleep(PAUSE_SECONDS)
                else:
                    break
        if held.fate is Fate.OPEN:
            self.hand.end(held, Fate.SETTLED)
