"""Fetches packets from the broker's consumers while there is room for them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError
from arthur_relay.broker.letters import of_no_packet
from arthur_relay.broker.packets import NotAPacketError, Packet, filters, read
from arthur_relay.system.log_once import LogOnce

if TYPE_CHECKING:
    from arthur_relay.broker.delivery import Delivery
    from arthur_relay.broker.in_hand import InHand
    from arthur_relay.broker.inbox import HeldPacket
    from arthur_relay.broker.nats.connection import Connection
    from arthur_relay.broker.nats.consumer import Consumer
    from arthur_relay.broker.offers import Offers
    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.encoding.product import Product
    from arthur_relay.worker.worker import Worker

logger = logging.getLogger("arthur_relay.broker")

PULL_SECONDS: Final = 5.0
"""How long one question for packets waits for some."""

TOGETHER: Final = 4
"""The packets that one question asks for, at most."""


class TakesAgain(Protocol):
    """Decides what becomes of packets that come again: a worker may have died of them."""

    async def take_again(self, held: HeldPacket, packet: Packet) -> None:
        """Take a packet in hand that came again."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class Fetcher:
    """Fetches packets for one run of the worker's loop.

    Attributes:
        hand: Where the packets go.
        settings: The broker's settings.
        product: The product whose packets are fetched.
        worker: Delivers them.
        connection: The connection to the broker.
        offers: Gives their rows to the worker.
        deaths: Gets the packets that come again.
    """

    hand: InHand
    settings: BrokerSettings
    product: Product
    worker: Worker
    connection: Connection
    offers: Offers
    deaths: TakesAgain
    _consumers: dict[str, Consumer] = field(default_factory=dict, init=False)
    _probing: anyio.Lock = field(default_factory=anyio.Lock, init=False)
    _once: LogOnce = field(default_factory=LogOnce, init=False)

    async def run(self) -> None:
        """Fetch until cancelled.

        Each consumer has a task and a share of the room, so that a model that floods its own, or of
        which nothing goes through, takes no more than its share.
        """
        async with anyio.create_task_group() as group:
            for name in filters(self.settings.stream, self.product):
                group.start_soon(self._pull, name)

    async def return_late(self) -> None:
        """Give back what came after the last question for packets was given up."""
        consumers, self._consumers = list(self._consumers.values()), {}
        # Shielded: what came is ours to give back, also while we are cancelled.
        with anyio.CancelScope(shield=True):
            late = await asyncio.gather(*(each.close() for each in consumers))
            for delivery in [each for found in late for each in found]:
                with suppress(BrokerAwayError):
                    await delivery.give_back()

    async def _pull(self, name: str) -> None:
        """Fetch packets of one consumer, one question after the other, while there is room."""
        sender = self.worker.sender
        while True:
            changed = self.hand.changes.next
            most = min(TOGETHER, self.hand.inbox.room(name, self.settings.packet_bytes))
            if most <= 0:
                await changed.wait()
            elif sender.breaker.held(anyio.current_time()) > 0:
                await anyio.sleep(PAUSE_SECONDS)
            elif sender.is_down:
                # Something has to be sent to learn that Arthur is back: one packet is enough.
                async with self._probing:
                    if not len(self.hand) and sender.is_down:
                        await self._fetch(name, most=1, seconds=PAUSE_SECONDS)
                await anyio.sleep(PAUSE_SECONDS)
            else:
                await self._fetch(name, most=most, seconds=PULL_SECONDS)

    async def _fetch(self, name: str, *, most: int, seconds: float) -> None:
        try:
            if (consumer := self._consumers.get(name)) is None:
                consumer = self._consumers[name] = await self.connection.consumer(name)
            found = await consumer.pull(most, seconds=seconds)
        except BrokerAwayError as error:
            logger.debug("%s: %s", name, error)
            await anyio.sleep(PAUSE_SECONDS)
            return
        taken = [self._take(delivery, name) for delivery in found]
        for held, packet in [each for each in taken if each is not None]:
            await self.deaths.take_again(held, packet)

    def _take(self, delivery: Delivery, name: str) -> tuple[HeldPacket, Packet] | None:
        """Take a packet in hand. Returns it unless its rows may go at once."""
        if self.hand.renew(delivery):
            return None
        try:
            packet = read(delivery.headers, delivery.body)
            if packet.product is not self.product:
                raise NotAPacketError(f"it is for {packet.product}, not {self.product}")  # noqa: TRY301 - both are the same to us
        except NotAPacketError as error:
            self._set_aside(delivery, name, error)
            return None
        delivery.body = b""  # its rows have copies
        held = self.hand.inbox.hold(packet, name)
        self.hand.take(held, delivery)
        if delivery.times > 1:
            self.hand.redelivered_rows += len(packet.rows)
        if delivery.times > 1 or packet.deaths:
            return held, packet
        self.offers.offer(held)
        return None

    def _set_aside(self, delivery: Delivery, name: str, error: NotAPacketError) -> None:
        """Make a dead letter of a message that is no packet."""
        if self._once.is_first("no packet"):
            logger.warning(
                "message %d of the broker is no packet: %s (more of this kind are dead letters)",
                delivery.sequence,
                error,
            )
        stream, body = self.settings.stream, delivery.body
        held = self.hand.inbox.hold_letter(name, f"{stream} {delivery.sequence}", len(body))
        self.hand.take(held, delivery)
        self.worker.dead_letters.add(of_no_packet(str(error), body, stream), held)
        self.worker.wake()
