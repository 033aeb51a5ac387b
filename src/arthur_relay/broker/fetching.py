"""Fetches packets from the broker's consumers while there is room for them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError
from arthur_relay.broker.inbox import Fate
from arthur_relay.broker.letters import of_no_packet
from arthur_relay.broker.packets import (
    NewerPacketError,
    NotAPacketError,
    Packet,
    apart_consumer,
    filters,
    read,
)
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


NEWER_SECONDS: Final = 5.0
"""How long a packet of a later version rests before it is handed out again."""

NEWER_TIMES: Final = 360
"""How often it is, at most: for half an hour, in which an upgrade should reach all workers."""


class TakesAgain(Protocol):
    """Decides what becomes of packets that come again: a worker may have died of them."""

    async def take_again(self, held: HeldPacket, packet: Packet) -> None:
        """Take a packet in hand that came again."""
        ...


class SetsApart(Protocol):
    """Has packets wait apart whose model has to wait."""

    async def take(self, held: HeldPacket, packet: Packet) -> bool:
        """Set a packet apart. Returns False when its rows may be sent."""
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
        apart: Gets those whose model has to wait.
    """

    hand: InHand
    settings: BrokerSettings
    product: Product
    worker: Worker
    connection: Connection
    offers: Offers
    deaths: TakesAgain
    apart: SetsApart
    _consumers: dict[str, Consumer] = field(default_factory=dict, init=False)
    _probing: anyio.Lock = field(default_factory=anyio.Lock, init=False)
    _newer: list[Delivery] = field(default_factory=list, init=False)
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
        taken = [(each, self._take(each, name)) for each in found]
        await self._give_back_newer()
        again: list[tuple[HeldPacket, Packet]] = []
        for delivery, new in taken:
            if new is None:
                continue
            held, packet = new
            if delivery.times > 1 or packet.deaths:
                again.append(new)
            elif not await self.apart.take(held, packet) and held.fate is Fate.OPEN:
                self.offers.offer(held)
        for held, packet in again:
            await self.deaths.take_again(held, packet)

    def _take(self, delivery: Delivery, name: str) -> tuple[HeldPacket, Packet] | None:
        """Take a packet in hand. Returns it unless there is nothing more to do with it."""
        if self.hand.renew(delivery):
            return None
        try:
            packet = read(delivery.headers, delivery.body)
            if packet.product is not self.product:
                raise NotAPacketError(f"it is for {packet.product}, not {self.product}")  # noqa: TRY301 - both are the same to us
        except NewerPacketError as error:
            self._leave_to_newer(delivery, name, error)
            return None
        except NotAPacketError as error:
            self._set_aside(delivery, name, error)
            return None
        delivery.body = b""  # its rows have copies
        held = self.hand.inbox.hold(packet, name)
        held.is_apart = name == apart_consumer(self.product)
        self.hand.take(held, delivery)
        if delivery.times > 1:
            self.hand.redelivered_rows += len(packet.rows)
        return held, packet

    def _leave_to_newer(self, delivery: Delivery, name: str, error: NewerPacketError) -> None:
        """Leave a packet of a later version to newer workers, for as long as an upgrade takes."""
        if delivery.times > NEWER_TIMES:
            self._set_aside(delivery, name, error)
            return
        self.hand.newer_packets += 1
        if self._once.is_first("newer"):
            logger.warning(
                "message %d of the broker is of a later version, and is left to newer workers: %s",
                delivery.sequence,
                error,
            )
        self._newer.append(delivery)

    async def _give_back_newer(self) -> None:
        newer, self._newer = self._newer, []
        for delivery in newer:
            with suppress(BrokerAwayError):  # it is handed out again once its time is over
                await delivery.give_back(NEWER_SECONDS)

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
