"""The link to the broker: opened and prepared in the background, for as long as it takes."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from arthur_relay.broker.connection import BrokerAwayError, Connection
from arthur_relay.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arthur_relay.encoding.product import Product

logger = logging.getLogger("arthur_relay.broker")

RETRY_SECONDS: Final = 1.0
"""How long to wait before the broker is tried again when it is away."""

REFUSED_SECONDS: Final = 10.0
"""The same when a person has to change something."""


@dataclass(slots=True, eq=False)
class Link:
    """Opens a connection and sees that the broker is as it should be. One event loop.

    Attributes:
        connection: The connection; to be used once `ready` is set.
        products: The products whose rows go through this fleet.
        ready: Set once the broker is as it should be.
    """

    connection: Connection
    products: Sequence[Product]
    ready: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _refusal: ConfigurationError | None = field(default=None, init=False)
    _looked: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    @property
    def trouble(self) -> str:
        """Why the broker can't be used now, or ""."""
        if self._refusal is not None:
            return str(self._refusal).rstrip(".")
        if not self.connection.is_connected:
            return f"the broker can't be reached ({self.connection.trouble})"
        return "" if self.ready.is_set() else "the broker is looked at"

    async def run(self) -> None:
        """Open the connection, and prepare what is behind it; return once that is done."""
        while True:
            try:
                await self.connection.open()
                await self.connection.prepare(self.products)
            except BrokerAwayError as error:
                logger.warning("the broker can't be reached: %s; it is tried again", error)
                pause = RETRY_SECONDS
            except ConfigurationError as error:
                if self._refusal is None or str(self._refusal) != str(error):
                    logger.error("the broker can't be used: %s", error)  # noqa: TRY400 - the message says why
                self._refusal = error
                pause = REFUSED_SECONDS
            else:
                self._refusal = None
                self.ready.set()
                self._looked.set()
                return
            self._looked.set()
            await self.connection.close()
            await asyncio.sleep(pause)

    async def look(self) -> None:
        """Wait until the broker was tried once.

        Raises:
            ConfigurationError: It can't be used, and a person has to change something.
        """
        await self._looked.wait()
        if self._refusal is not None:
            raise self._refusal
