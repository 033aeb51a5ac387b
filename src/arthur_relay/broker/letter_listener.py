"""Hears of the dead letters of all workers, also of those that were written while it was away."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError
from arthur_relay.broker.letters import decode
from arthur_relay.broker.link import end_if_cancelled
from arthur_relay.broker.packets import PRODUCTS
from arthur_relay.broker.stored import StoredStream
from arthur_relay.broker.topology import letters_stream
from arthur_relay.errors import RelayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay.broker.link import Link
    from arthur_relay.dead_letters import DeadLetter
    from arthur_relay.encoding.product import Product

LOOK_SECONDS: Final = 10.0
"""How often to look for letters that no announcement came of: the connection may have been lost."""


@dataclass(slots=True, eq=False)
class LetterListener:
    """Hears of the letters of all workers, in their order. On the link's loop.

    The broker announces each letter as it is written, and that only says that there is one: the
    letters are read from their stream, from the last one that was heard of.

    Attributes:
        link: The link to the broker.
        heard: Called with the letters of each product; may be added to.
        is_listening: Set once letters that are written are heard of.
    """

    link: Link
    heard: dict[Product, Callable[[DeadLetter], object]] = field(default_factory=dict)
    is_listening: asyncio.Event = field(default_factory=asyncio.Event)
    _created: str = field(default="", init=False)
    _places: dict[Product, int] = field(default_factory=dict, init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def run(self) -> None:
        """Listen to what is written from now on, until cancelled."""
        while True:
            await self.link.ready.wait()
            self._news.clear()
            seconds = LOOK_SECONDS
            try:
                await self._hear_news()
                self.is_listening.set()
            except RelayError:  # it is away, or does not let us
                seconds = PAUSE_SECONDS
            end_if_cancelled()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()

    async def _hear_news(self) -> None:
        """Hear of the letters that were written since the last time."""
        connection = self.link.connection
        stream = StoredStream(connection, letters_stream(connection.settings, 0).name)
        if not self.is_listening.is_set():
            await connection.listen(f"{stream.name}.>", lambda _body: self._news.set())
        about = await stream.describe()
        if about is None:
            raise BrokerAwayError(f"it has no stream {stream.name}")
        if not self._created:
            self._places = dict.fromkeys(self.link.products, about["state"]["last_seq"])
        elif about["created"] != self._created:  # it is another stream, all of it is new
            self._places = dict.fromkeys(self.link.products, 0)
        self._created = about["created"]
        for product in self.link.products:
            subjects = f"{stream.name}.{PRODUCTS[product]}.>"
            while (found := await stream.next(self._places[product] + 1, subjects)) is not None:
                self._places[product] = found.sequence
                if (on_letter := self.heard.get(product)) is not None:
                    on_letter(decode(found.body)[1])
