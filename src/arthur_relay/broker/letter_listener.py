"""Hears of the dead letters of all workers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError
from arthur_relay.broker.letters import decode
from arthur_relay.broker.packets import PRODUCTS
from arthur_relay.broker.topology import letters_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay.broker.link import Link
    from arthur_relay.dead_letters import DeadLetter
    from arthur_relay.encoding.product import Product


@dataclass(frozen=True, slots=True)
class LetterListener:
    """Hears of the letters of all workers. On the link's loop.

    What is written while the connection is lost is not heard of.

    Attributes:
        link: The link to the broker.
        heard: Called with the letters of each product; may be added to.
    """

    link: Link
    heard: dict[Product, Callable[[DeadLetter], object]] = field(default_factory=dict)

    async def run(self) -> None:
        """Begin to listen once the broker can be used."""
        await self.link.ready.wait()
        connection = self.link.connection
        stream = letters_stream(connection.settings, 0).name
        for product in self.link.products:
            subjects = f"{stream}.{PRODUCTS[product]}.>"
            while True:
                try:
                    await connection.listen(subjects, partial(self._hear, product))
                except BrokerAwayError:
                    await asyncio.sleep(PAUSE_SECONDS)
                else:
                    break

    def _hear(self, product: Product, body: bytes) -> None:
        if (on_letter := self.heard.get(product)) is not None:
            on_letter(decode(body)[1])
