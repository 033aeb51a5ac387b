"""Publishes rows of packets in hand anew, as packets of their own."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arthur_relay.broker.inbox import HeldPacket
    from arthur_relay.broker.nats.connection import Connection
    from arthur_relay.broker.packets import Packet
    from arthur_relay.row import Row

RESEND_SECONDS: Final = 2.0
"""How long the broker may take; the end of a worker waits for it."""


@dataclass(frozen=True, slots=True)
class Resender:
    """Publishes packets. Both methods raise what `Connection.publish` does.

    Attributes:
        connection: The connection to the broker.
    """

    connection: Connection

    async def publish(self, packet: Packet) -> None:
        """Have the broker keep a packet."""
        await self.connection.publish(
            packet.subject(self.connection.settings.stream),
            packet.body(),
            packet.headers(),
            seconds=RESEND_SECONDS,
        )

    async def publish_rest(
        self, held: HeldPacket, rows: Sequence[Row], *, apart: bool = False
    ) -> None:
        """Have the broker keep some rows of a packet, with what is known of them.

        Args:
            held: The packet.
            rows: Its rows.
            apart: Whether they have to wait, and should not hold up others.
        """
        assert held.packet is not None, "what is no packet has no rows"
        deaths = held.packet.deaths + held.deaths
        rest = replace(
            held.packet,
            id=str(uuid.uuid4()),
            rows=tuple(rows),
            deaths=deaths,
            is_apart=apart or held.is_apart,
        )
        await self.publish(rest)
