"""Has packets wait apart whose model has to wait, so that they hold up no other model.

A bucket has the packets of many models, and a consumer hands out only so many before some are
acknowledged. Packets of a model that Arthur throttles or refuses, and ground truth whose inference
is not there, would fill that for as long as they wait: an hour, perhaps. So they travel once more,
to a consumer of their own; others wait for them for seconds, not for the hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Final

import anyio

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError, BrokerFullError
from arthur_relay.broker.in_hand import is_truth
from arthur_relay.broker.inbox import Fate

if TYPE_CHECKING:
    from arthur_relay.broker.in_hand import InHand
    from arthur_relay.broker.inbox import HeldPacket
    from arthur_relay.broker.packets import Packet
    from arthur_relay.broker.resending import Resender
    from arthur_relay.broker.returning import Returns
    from arthur_relay.worker.worker import Worker

HELD_SECONDS: Final = 3.0
"""How long a packet that has to wait stays among others: many a hold is over sooner."""

APART_SECONDS: Final = 60.0
"""After how long a packet that waits apart goes to the end of those that do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """Sets packets apart, for one run of the worker's loop.

    Attributes:
        hand: The packets in hand.
        worker: Knows which models have to wait.
        returns: Gives packets back whose rows the worker has.
        resender: Publishes packets anew.
    """

    hand: InHand
    worker: Worker
    returns: Returns
    resender: Resender

    async def run(self) -> None:
        """Set packets apart that wait for too long, until cancelled."""
        while True:
            await anyio.sleep(PAUSE_SECONDS)
            if self.worker.sender.is_down:
                continue  # all have to wait, and are given back as they are
            now = monotonic()
            waiting = [held for held in self.hand if self._waits_for_long(held, now)]
            await self.returns.give_back(waiting, apart=True)

    async def take(self, held: HeldPacket, packet: Packet) -> bool:
        """Set a packet apart that came just now. Returns False when its rows may be sent."""
        if held.is_apart or not self._has_to_wait(packet.model_id):
            return False
        # The same name whenever it comes: should we die in between, there are no two of them.
        copy = replace(packet, id=f"{packet.id}-apart", is_apart=True)
        try:
            await self.resender.publish(copy)
        except (BrokerAwayError, BrokerFullError):
            return False
        if held.fate is Fate.OPEN:
            self.hand.end(held, Fate.SETTLED)
        return True

    def _waits_for_long(self, held: HeldPacket, now: float) -> bool:
        if held.packet is None or held.fate is not Fate.OPEN or held.is_lost:
            return False
        limit = APART_SECONDS if held.is_apart else HELD_SECONDS
        if now - held.taken_at < limit or not held.is_offered:
            return False
        return is_truth(held) or self._has_to_wait(held.packet.model_id)

    def _has_to_wait(self, model_id: str) -> bool:
        sender = self.worker.sender
        throttled = sender.flow.model_health.throttling.waiting(anyio.current_time())
        return sender.is_held(model_id) or (model_id in throttled and not sender.is_down)
