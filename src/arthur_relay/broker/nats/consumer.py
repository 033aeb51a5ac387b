"""A consumer: has the broker hand out messages, without losing any to a cancellation."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from arthur_relay.broker.delivery import Carrier, Delivery
from arthur_relay.broker.errors import BrokerAwayError

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

BUSY_SECONDS: Final = 0.1
"""How long a question for several messages stays open; none is asked while there are none."""

ANSWER_SECONDS: Final = 2.0
"""How much longer than a question is open its answer may take."""

DRAIN_SECONDS: Final = 0.5
"""How long to wait for messages that were sent before we gave up asking."""

_NO_MESSAGES: Final = frozenset({"404", "408"})
"""The statuses of a question for messages when there are none, or not enough."""


class Resubscribes(Carrier, Protocol):
    """A connection that may be opened anew while a consumer is used."""

    async def resubscribe(self, consumer: Consumer) -> None:
        """Have a consumer listen on the connection as it is now. Raises `BrokerAwayError`."""
        ...


@dataclass(slots=True, eq=False)
class Consumer:
    """Hands out the messages of one consumer. A cancellation loses none of them.

    The library's own `fetch` waits for the whole batch once the first message has come, and forgets
    what has come when it is cancelled.

    Attributes:
        name: Its name.
    """

    name: str
    _connection: Resubscribes
    _stream: str
    _inbox: str
    _client: Client | None = field(default=None, init=False)
    _subscription: Subscription | None = field(default=None, init=False)
    _arrived: list[Delivery] = field(default_factory=list, init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _question: int = field(default=0, init=False)
    _left: int = field(default=0, init=False)
    """How many more messages the open question may bring; 0 when none is open."""
    _status: str = field(default="", init=False)
    _is_busy: bool = field(default=False, init=False)

    async def pull(self, most: int, *, seconds: float) -> list[Delivery]:
        """Wait for messages. Returns some, or none when there are none in time.

        Args:
            most: The most that are asked for at once. While none come, one at a time is.
            seconds: How long to wait.

        Raises:
            BrokerAwayError: The broker can't be asked now.
        """
        await self._connection.resubscribe(self)
        if not (self._arrived or self._left):
            await self._ask(most, seconds)
        try:
            async with asyncio.timeout(seconds + ANSWER_SECONDS):
                while not self._arrived and self._left:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            self._left = 0
            raise BrokerAwayError("it does not answer in time") from None
        self._is_busy = bool(self._arrived)
        if not self._arrived and self._status not in _NO_MESSAGES:
            raise BrokerAwayError(f"it has no leader now (status {self._status})")
        return self._take()

    async def open(self, client: Client) -> None:
        """Listen, unless it does. Raises the library's errors."""
        if client is self._client:
            return
        self._client, self._left = client, 0
        self._subscription = await client.subscribe(f"{self._inbox}.*", cb=self._on_message)

    async def close(self) -> list[Delivery]:
        """Ask for no more. Returns what came and was not fetched. Never raises."""
        if self._subscription is not None:
            draining = asyncio.create_task(self._drain(self._subscription))
            # Not cancelled: the library's reader dies of the answer to a question that was.
            await asyncio.wait({draining}, timeout=DRAIN_SECONDS)
        return self._take()

    async def _ask(self, most: int, seconds: float) -> None:
        self._question += 1
        self._status = ""
        self._left = most if self._is_busy else 1
        wait = min(seconds, BUSY_SECONDS) if self._is_busy else seconds
        what = {"batch": self._left, "expires": round(wait * 1e9)}
        await self._connection.send(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self.name}",
            json.dumps(what).encode(),
            reply=f"{self._inbox}.{self._question}",
        )

    @staticmethod
    async def _drain(subscription: Subscription) -> None:
        with suppress(Exception):
            await subscription.drain()  # type: ignore[no-untyped-call] # the library's has no types

    def _take(self) -> list[Delivery]:
        found, self._arrived = self._arrived, []
        return found

    async def _on_message(self, message: Msg) -> None:
        if message.reply:
            self._arrived.append(self._delivery(message))
            self._left = max(0, self._left - 1)
        elif message.subject == f"{self._inbox}.{self._question}":
            self._status = (message.headers or {}).get("Status", "")
            self._left = 0
        self._news.set()

    def _delivery(self, message: Msg) -> Delivery:
        about = message.metadata
        return Delivery(
            carrier=self._connection,
            headers=message.headers or {},
            body=message.data,
            sequence=about.sequence.stream,
            times=about.num_delivered,
            reply=message.reply,
        )
