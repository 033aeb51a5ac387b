"""The puller: fetches packets while there is room, keeps them alive, acknowledges and returns them.

A task of the worker's loop, which ends with it: what is then not sent goes back to the broker.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import anyio

from arthur_relay.broker.connection import BrokerAwayError
from arthur_relay.broker.packets import NotAPacketError, filters, read
from arthur_relay.worker.ingest import IngestBatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from arthur_relay.broker.connection import Connection, Consumer, Delivery
    from arthur_relay.broker.inbox import HeldPacket, Inbox
    from arthur_relay.broker.link import Link
    from arthur_relay.row import Row
    from arthur_relay.worker.ingest import IngestAnswer
    from arthur_relay.worker.worker import Worker

logger = logging.getLogger("arthur_relay.broker")

PULL_SECONDS: Final = 5.0
"""How long one question for packets waits for some."""

TOGETHER: Final = 4
"""The packets that one question asks for."""

LAST_SECONDS: Final = 2.0
"""How long the end may take: to acknowledge what is settled, and to give back the rest."""

PAUSE_SECONDS: Final = 0.5
"""Before the broker is asked again after it did not answer, or Arthur looked at again."""

AWAY_SECONDS: Final = 5.0
"""How long packets wait in the broker that were given back because Arthur is away."""


@dataclass(slots=True, eq=False, kw_only=True)
class Puller:
    """Moves packets between the broker and the inbox. Worker's loop only.

    Attributes:
        inbox: Where the rows go.
        open_link: Makes the link on the loop that runs; a worker that died gets a new one.
        redelivered_rows: Rows of packets that the broker has handed out before.
        failed_acknowledgements: Packets that were settled, and will be handed out again.
    """

    inbox: Inbox
    open_link: Callable[[], Link]
    redelivered_rows: int = 0
    failed_acknowledgements: int = 0
    _is_stopping: bool = field(default=False, init=False)
    _link: Link | None = field(default=None, init=False)
    _in_hand: dict[HeldPacket, Delivery] = field(default_factory=dict, init=False)
    _changed: anyio.Event = field(default_factory=anyio.Event, init=False)

    @property
    def trouble(self) -> str:
        """Why no packet can be fetched, or "". Any thread."""
        return "it has not started yet" if self._link is None else self._link.trouble

    @property
    def packets(self) -> int:
        """The packets in hand. Any thread."""
        return len(self._in_hand)

    def stop(self) -> None:
        """Fetch no more, and give back what is not sent. Any thread."""
        self._is_stopping = True

    async def run(self, worker: Worker) -> None:
        """Work until cancelled; then acknowledge what is settled, and give back the rest."""
        self._changed = anyio.Event()
        self.inbox.on_settled = self._change
        # After a crash: the run before has given its packets back, and somebody may have them.
        for held in self.inbox.take_all():
            worker.settlement.returned(held.packet.rows)
        link = self._link = self.open_link()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(link.run)
                await link.ready.wait()
                group.start_soon(self._acknowledge)
                group.start_soon(self._keep_alive, link.connection.settings.ack_wait_seconds / 3)
                group.start_soon(self._stand_back, worker)
                (product,) = link.products
                for name in filters(link.connection.settings.stream, product):
                    group.start_soon(self._pull, worker, link.connection, name)
        finally:
            with anyio.move_on_after(LAST_SECONDS, shield=True):
                await self._end(link)

    def answered(self, answers: Sequence[IngestAnswer]) -> None:
        """Do nothing: the inbox has room for what was fetched."""

    def _change(self) -> None:
        self._changed.set()

    async def _pull(self, worker: Worker, connection: Connection, name: str) -> None:
        """Fetch packets of one consumer, one question after the other, while there is room.

        Each consumer has a task, and gets one question before the next one has its second, so that
        a model that floods its own takes no more room than its turn.
        """
        consumer: Consumer | None = None
        while True:
            if self.inbox.room <= 0:
                await self._changed.wait()
            elif self._is_stopping or worker.sender.is_down:
                await anyio.sleep(PAUSE_SECONDS)
            else:
                try:
                    consumer = consumer or await connection.consumer(name)
                    found = await consumer.pull(TOGETHER, seconds=PULL_SECONDS)
                except BrokerAwayError as error:
                    logger.debug("%s: %s", name, error)
                    await anyio.sleep(PAUSE_SECONDS)
                    continue
                for delivery in found:
                    self._take(worker, delivery)

    def _take(self, worker: Worker, delivery: Delivery) -> None:
        try:
            packet = read(delivery.headers, delivery.body)
        except NotAPacketError as error:
            logger.warning("message %d of the broker is no packet: %s", delivery.sequence, error)
            return
        if delivery.times > 1:
            self.redelivered_rows += len(packet.rows)
        self._in_hand[self.inbox.hold(packet)] = delivery
        worker.ingest.offer(IngestBatch.of(packet.rows, self))

    async def _acknowledge(self) -> None:
        """Have the broker forget packets as they are settled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            await _all(self._forget(held) for held in self.inbox.take_settled())

    async def _forget(self, held: HeldPacket) -> None:
        delivery = self._in_hand[held]
        try:
            await delivery.acknowledge()
        except BrokerAwayError:
            # Another worker gets it when its time is over, and delivers it once more.
            self.failed_acknowledgements += 1
        finally:
            self._in_hand.pop(held, None)

    async def _keep_alive(self, interval: float) -> None:
        while True:
            await anyio.sleep(interval)
            for delivery in list(self._in_hand.values()):
                try:
                    await delivery.keep()
                except BrokerAwayError:
                    break

    async def _stand_back(self, worker: Worker) -> None:
        """Give back what is not sent, while Arthur is away; it comes again with the next probe."""
        while True:
            await anyio.sleep(PAUSE_SECONDS)
            if worker.sender.is_down or self._is_stopping:
                packets = self.inbox.take_unsent()
                for held in packets:
                    worker.settlement.returned(held.packet.rows)
                delay = 0.0 if self._is_stopping else AWAY_SECONDS
                await _all(self._give_back(held, delay) for held in packets)

    async def _give_back(self, held: HeldPacket, delay_seconds: float) -> None:
        delivery = self._in_hand.pop(held)
        with suppress(BrokerAwayError):  # it is handed out again once its time is over
            await delivery.give_back(delay_seconds)

    async def _end(self, link: Link) -> None:
        """Acknowledge what is settled, give back the rest, and close the connection."""
        await _all(self._forget(held) for held in self.inbox.take_settled())
        await _all(self._part(link, held, rows) for held, rows in self.inbox.unsettled().items())
        await link.connection.close()

    async def _part(self, link: Link, held: HeldPacket, rows: Sequence[Row]) -> None:
        """Give back a packet of which some rows are settled: as a new one that has the others."""
        whole = held.packet
        if len(rows) == len(whole.rows):
            await self._give_back(held, 0.0)
            return
        rest = replace(whole, id=str(uuid.uuid4()), rows=tuple(rows))
        connection = link.connection
        try:
            await connection.publish(
                rest.subject(connection.settings.stream),
                rest.body(),
                rest.headers(),
                seconds=LAST_SECONDS,
            )
        except BrokerAwayError:
            await self._give_back(held, 0.0)
        else:
            await self._forget(held)


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Do pieces of work at the same time."""
    await asyncio.gather(*work)
