"""The publisher: has the broker keep a gateway's rows, and says when they are safe."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from arthur_relay.broker.connection import BrokerAwayError, BrokerFullError
from arthur_relay.broker.packets import Packet, cut
from arthur_relay.worker.ingest import IngestRefusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arthur_relay.broker.link import Link
    from arthur_relay.encoding.product import Product
    from arthur_relay.row import Row

ATTEMPT_SECONDS: Final = 5.0
"""How long one attempt waits for the broker's answer: a server that hangs is left after six."""

PAUSE_SECONDS: Final = 0.25
"""Between two attempts: an election takes seconds, and the broker answers at once that it has no
leader."""


@dataclass(slots=True, eq=False)
class Publisher:
    """Publishes the rows of requests. For the daemon's loop only.

    Attributes:
        link: The way to the broker.
        product: The product that the rows are for.
        repeated: Packets that the broker had already: an answer was lost, and nothing else.
    """

    link: Link
    product: Product
    repeated: int = 0
    _failed_at: float | None = field(default=None, init=False)

    async def hand_over(
        self, rows: Sequence[Row], *, timeout_seconds: float
    ) -> IngestRefusal | None:
        """Return None when the broker has the rows on most of its disks, else why it has not.

        After a refusal it may have some of them nevertheless, and delivers those.
        """
        settings = self.link.connection.settings
        now = time.time()
        packets = [
            Packet(str(uuid.uuid4()), self.product, each[0].model_id, each[0].kind, each, now)
            for each in cut(rows, settings.packet_bytes)
        ]
        try:
            async with asyncio.timeout(min(timeout_seconds, settings.publish_seconds)):
                found = await asyncio.gather(*[self._publish(packet) for packet in packets])
        except TimeoutError:
            self._failed_at = time.monotonic()
            return IngestRefusal.BROKER_AWAY
        self._failed_at = None
        return next((refusal for refusal in found if refusal is not None), None)

    def fails_for(self) -> float | None:
        """Return how many seconds ago rows could not be published, or None if the last could."""
        return None if self._failed_at is None else time.monotonic() - self._failed_at

    async def _publish(self, packet: Packet) -> IngestRefusal | None:
        """Publish a packet, as often as it takes, always by the same id."""
        connection = self.link.connection
        subject, body = packet.subject(connection.settings.stream), packet.body()
        while True:
            try:
                await self.link.ready.wait()
                self.repeated += await connection.publish(
                    subject, body, packet.headers(), seconds=ATTEMPT_SECONDS
                )
            except BrokerFullError:
                return IngestRefusal.BROKER_FULL
            except BrokerAwayError:
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return None
