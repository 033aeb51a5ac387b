"""Dead letters of a fleet: they are in the broker, in a stream of their own.

A letter is one message. Its subject says its product, its reason and its model, so that the broker
counts letters by reason without reading any; its body has the rest. A letter is safe once the
broker has acknowledged it, and no packet is acknowledged before the letters of its rows are safe.

The stream refuses what it has no room for. Then the worker that has a letter removes the oldest
ones, and counts them: so none is lost that nobody has counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import anyio
import msgspec

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError, BrokerFullError
from arthur_relay.broker.inbox import HeldPacket
from arthur_relay.broker.packets import MESSAGE_ID, PRODUCTS, VERSION, model_token
from arthur_relay.broker.stored import StoredStream
from arthur_relay.broker.topology import letters_stream
from arthur_relay.dead_letters import (
    DeadLetter,
    damaged,
    log_evicted,
    log_unwritten,
    read_letter,
)
from arthur_relay.errors import RelayError
from arthur_relay.system.log_once import LogOnce

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from arthur_relay.broker.link import Link
    from arthur_relay.broker.nats.connection import Connection
    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.encoding.product import Product

logger = logging.getLogger("arthur_relay.broker")

NO_PACKET: Final = "no packet"
"""The reason of a letter that has a message which is no packet of the product's."""

MOST_REASON_CHARACTERS: Final = 64
"""Reasons are a few words; of a longer one, the subject has so much."""

MOST_ID_CHARACTERS: Final = 1000
"""So much of an id is kept where the whole letter does not fit."""

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


# How letters travel. Pure.


def subject_of(letter: DeadLetter, stream: str, product: Product) -> str:
    """Return the subject of a letter's message."""
    token = model_token(letter.model_id)
    return f"{stream}.{PRODUCTS[product]}.{reason_token(letter.reason)}.{token}"


def reason_token(reason: str) -> str:
    """Return a reason as a part of a subject; `reason_of` reads it."""
    if len(reason) > MOST_REASON_CHARACTERS:
        reason = reason[: MOST_REASON_CHARACTERS - 1] + "…"
    return quote(reason or "?", safe="", errors="backslashreplace").replace(".", "%2E")


def reason_of(subject: str) -> str:
    """Return the reason that a subject has, or "?"."""
    parts = subject.split(".")
    return unquote(parts[-2]) if len(parts) > 2 else "?"


def count_by_reason(subjects: Mapping[str, int]) -> dict[str, int]:
    """Return how many letters there are of each reason, of those of each subject."""
    counts: Counter[str] = Counter()
    for subject, letters in subjects.items():
        counts[reason_of(subject)] += letters
    return dict(counts)


def letter_id(letter: DeadLetter, of: object | None) -> str:
    """Return what the broker recognises a letter by.

    It is the same when the row is rejected again because its packet was handed out again: that is
    the same letter. A row that a client sends again is another packet's, and so is its letter.

    Args:
        letter: The letter.
        of: The packet that its row came in, if there is one.
    """
    source = of.name if isinstance(of, HeldPacket) else uuid.uuid4().hex
    about = (source, letter.inference_id, letter.model_id, letter.kind.value, letter.reason)
    return hashlib.sha256(repr(about).encode() + letter.body).hexdigest()


def encode(letter: DeadLetter, name: str, *, most_bytes: int) -> bytes:
    """Return the body of a letter's message; without the row where that does not fit.

    Args:
        letter: The letter.
        name: What the broker recognises it by.
        most_bytes: The most bytes of the message's body.
    """
    if len(found := _encoded(letter, name)) <= most_bytes:
        return found
    short = replace(letter, body=b"", damage="too large")
    if len(found := _encoded(short, name)) <= most_bytes:
        return found
    texts = {
        each: getattr(short, each)[:MOST_ID_CHARACTERS]
        for each in ("inference_id", "model_id", "reason", "destination")
    }
    return _encoded(replace(short, **texts), name)


def _encoded(letter: DeadLetter, name: str) -> bytes:
    found: dict[str, Any] = {
        "id": name,
        "inference_id": _text(letter.inference_id),
        "model_id": _text(letter.model_id),
        "kind": letter.kind.value,
        "reason": _text(letter.reason),
        "status": letter.status,
        "attempts": letter.attempts,
        "rejected_at": letter.rejected_at.isoformat(),
        "destination": _text(letter.destination),
        "body": letter.body,
    }
    if letter.damage:
        found["damage"] = _text(letter.damage)
    return msgspec.msgpack.encode(found)


def _text(text: str) -> str:
    """Return a text without halves of surrogate pairs, which have no bytes."""
    return text.encode(errors="backslashreplace").decode()


def decode(body: bytes) -> tuple[str, DeadLetter]:
    """Return the letter of a message, and what the broker recognises it by. Never raises."""
    try:
        found = msgspec.msgpack.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        return "", damaged(f"{type(error).__name__} in what was written", body)
    row, damage = found.get("body"), found.get("damage")
    letter = read_letter(found, row if isinstance(row, bytes) else b"")
    if isinstance(damage, str) and not letter.damage:
        letter = replace(letter, damage=damage)
    name = found.get("id")
    return name if isinstance(name, str) else "", letter


def of_no_packet(why: str, body: bytes, stream: str) -> DeadLetter:
    """Return the letter of a message that is no packet of the product's.

    Args:
        why: What is wrong with it.
        body: The message's body.
        stream: The stream that it was in.
    """
    return replace(
        damaged(why, body), reason=NO_PACKET, rejected_at=datetime.now(UTC), destination=stream
    )


# On their way.


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

    async def run(self, connection: Connection, on_safe: Callable[[], object]) -> None:
        """Publish letters, as often as it takes, until cancelled.

        Args:
            connection: The connection to the broker.
            on_safe: Called when letters have become safe.
        """
        self._evicting = asyncio.Lock()
        async with anyio.create_task_group() as group:
            group.start_soon(self._count, connection)
            while True:
                self._news = anyio.Event()
                if not self._unwritten:
                    await self._news.wait()
                elif await self._publish_some(connection):
                    on_safe()
                else:
                    on_safe()
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


# Heard of.


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


def _first(unwritten: Iterable[_Unwritten]) -> Iterator[_Unwritten]:
    """Yield as many of the oldest letters as may be published at the same time."""
    size = 0
    for number, each in enumerate(unwritten):
        size += each.letter.size
        if number and (number == TOGETHER or size > TOGETHER_BYTES):
            return
        yield each
