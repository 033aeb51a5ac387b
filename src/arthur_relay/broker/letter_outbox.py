"""Dead letters on their way to the broker.

The stream refuses what it has no room for. Then the worker that has a letter removes the oldest
ones, and counts them: so none is lost that nobody has counted.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError, BrokerFullError
from arthur_relay.broker.letters import count_by_reason, encode, letter_id, subject_of
from arthur_relay.broker.packets import MESSAGE_ID, PRODUCTS, VERSION
from arthur_relay.broker.stored import StoredStream
from arthur_relay.broker.topology import letters_stream
from arthur_relay.dead_letters import log_evicted, log_unwritten
from arthur_relay.errors import RelayError
from arthur_relay.system.log_once import LogOnce

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from arthur_relay.broker.nats.connection import Connection
    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.dead_letters import DeadLetter
    from arthur_relay.encoding.product import Product

logger = logging.getLogger("arthur_relay.broker")

TOGETHER: Final = 32
"""The letters that are published at the same time, at most."""

TOGETHER_BYTES: Final = 1024 * 1024
"""Their bytes, at most, unless one has more."""

ATTEMPTS: Final = 3
"""How often one turn tries to get a letter into a stream that is full."""

EVICTED_SHARE: Final = 16
"""Old letters are removed until one part in so many is free: each removal is a question."""

MESSAGE_BYTES: Final = 1024
"""More than a letter takes in the stream beside its body."""

COUNT_SECONDS: Final = 5.0
"""How often the broker is asked for the number of letters."""


class Wakes(Protocol):
    """Is to act when letters have become safe."""

    def wake(self) -> None:
        """Have the loop take another turn."""
        ...


@dataclass(slots=True, eq=False)
class _Unwritten:
    letter: DeadLetter
    of: object | None
    name: str


@dataclass(slots=True, eq=False, kw_only=True)
class LetterOutbox:
    """Dead letters on their way to the broker. See `LetterWriter` for the methods of that.

    They wait in memory for as long as the broker does not take them. There are never too many: each
    keeps its room in the inbox, so that no more packets are fetched in the end.

    Worker's loop, but for `evicted` and `count`.

    Attributes:
        settings: The broker's settings.
        product: The product that the rows were for.
        max_bytes: The size of the stream.
        evicted: The number of old letters that were removed for newer ones.
    """

    settings: BrokerSettings
    product: Product
    max_bytes: int
    evicted: int = 0
    _unwritten: dict[_Unwritten, None] = field(default_factory=dict, init=False)
    _safe: list[object] = field(default_factory=list, init=False)
    _news: anyio.Event = field(default_factory=anyio.Event, init=False)
    _evicting: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _counts: Mapping[str, int] | None = field(default=None, init=False)
    _once: LogOnce = field(default_factory=LogOnce, init=False)

    def add(self, letter: DeadLetter, of: object | None) -> None:
        """Add a letter; `run` publishes it."""
        self._unwritten[_Unwritten(letter, of, letter_id(letter, of))] = None
        self._news.set()

    def commit(self) -> list[object]:
        """Return the `of` of each letter that has become safe."""
        safe, self._safe = self._safe, []
        return safe

    def count(self) -> Mapping[str, int] | None:
        """Return how many letters of the whole fleet there were lately, by reason."""
        return self._counts

    async def run(self, connection: Connection, worker: Wakes) -> None:
        """Publish letters, as often as it takes, until cancelled.

        Args:
            connection: The connection to the broker.
            worker: Is woken when letters have become safe.
        """
        self._evicting = asyncio.Lock()
        async with anyio.create_task_group() as group:
            group.start_soon(self._count, connection)
            while True:
                self._news = anyio.Event()
                if not self._unwritten:
                    await self._news.wait()
                elif await self._publish_some(connection):
                    worker.wake()
                else:
                    worker.wake()
                    await anyio.sleep(PAUSE_SECONDS)

    async def flush(self, connection: Connection) -> None:
        """Publish what waits, and stop at the first that the broker does not take. For the end."""
        while self._unwritten and await self._publish_some(connection):
            pass

    async def _publish_some(self, connection: Connection) -> bool:
        """Publish the oldest letters at the same time. Returns whether the broker has them all."""
        found = await asyncio.gather(
            *(self._publish(connection, each) for each in _first(self._unwritten))
        )
        if all(found):
            self._once.reset("unwritten")
        return all(found)

    async def _publish(self, connection: Connection, unwritten: _Unwritten) -> bool:
        stream, letter = self._stream(connection), unwritten.letter
        headers = {MESSAGE_ID: unwritten.name, "Relay-Version": VERSION}
        why = "it is full"
        try:
            most_bytes = connection.most_bytes
            if most_bytes is None:
                raise BrokerAwayError(connection.trouble)
            most = min(most_bytes, self.max_bytes // 2)
            body = encode(letter, unwritten.name, most_bytes=most)
            subject = subject_of(letter, stream.name, self.product)
            for _ in range(ATTEMPTS):
                try:
                    await connection.publish(subject, body, headers, stream=stream.name)
                except BrokerFullError:
                    await self._evict(stream, len(body) + MESSAGE_BYTES)
                else:
                    self._unwritten.pop(unwritten, None)
                    if unwritten.of is not None:
                        self._safe.append(unwritten.of)
                    return True
        except RelayError as error:  # it is away, or does not let us; the letter waits
            why = str(error)
        log_unwritten(self._once, f"the broker: {why}")
        return False

    async def _evict(self, stream: StoredStream, size: int) -> None:
        """Remove the oldest letters, unless somebody else has made room meanwhile.

        Raises:
            BrokerAwayError: They can't be removed now.
        """
        async with self._evicting:
            state = await stream.state()
            if state is None or state.messages == 0 or state.bytes + size <= self.max_bytes:
                return
            free = max(size, self.max_bytes // EVICTED_SHARE)
            average = state.bytes / state.messages
            keep = max(0, min(state.messages - 1, int((self.max_bytes - free) / average)))
            if evicted := await stream.purge(keep=keep):
                self.evicted += evicted
                log_evicted(self._once)

    def _stream(self, connection: Connection) -> StoredStream:
        return StoredStream(connection, letters_stream(self.settings, self.max_bytes).name)

    async def _count(self, connection: Connection) -> None:
        stream = self._stream(connection)
        subjects = f"{stream.name}.{PRODUCTS[self.product]}.>"
        while True:
            try:
                state = await stream.state(subjects=subjects)
            except RelayError as error:  # the last count is better than none
                logger.debug("%s: %s", stream.name, error)
            else:
                self._counts = {} if state is None else count_by_reason(state.subjects)
            await anyio.sleep(COUNT_SECONDS)


def _first(unwritten: Iterable[_Unwritten]) -> Iterator[_Unwritten]:
    """Yield as many of the oldest letters as may be published at the same time."""
    size = 0
    for number, each in enumerate(unwritten):
        size += each.letter.size
        if number and (number == TOGETHER or size > TOGETHER_BYTES):
            return
        yield each
