"""The publisher: has the broker keep a gateway's rows, and says when they are safe."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Final

from arthur_relay.broker.errors import BrokerAwayError, BrokerFullError
from arthur_relay.broker.link import GRACE_SECONDS
from arthur_relay.broker.packets import Packet, cut, model_token, most_row_bytes
from arthur_relay.broker.window import Window
from arthur_relay.worker.ingest import IngestRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arthur_relay.broker.link import Link
    from arthur_relay.broker.shares import Shares
    from arthur_relay.encoding.product import Product
    from arthur_relay.row import Row

logger = logging.getLogger("arthur_relay.broker")

ATTEMPT_SECONDS: Final = 5.0
"""How long one attempt waits for the broker's answer: a server that hangs is left after six."""

PAUSE_SECONDS: Final = 0.25
"""Between two attempts: an election takes seconds, and the broker answers at once that it has no
leader."""

LULL_SECONDS: Final = 5.0
"""For how long the last failed attempt counts when there was none since: a load balancer that sends
nothing here any more would never see that it works again."""

WINDOW_BYTES: Final = 16 << 20
"""Bytes of packets on their way at once. Each takes its rows' memory once more, and what waits for
its turn does not."""


class PublishError(StrEnum):
    """The reasons why an attempt to publish failed."""

    AWAY = "away"
    FULL = "full"
    OVER_SHARE = "over_share"
    TOO_LATE = "too_late"


@dataclass(slots=True, eq=False)
class Publisher:
    """Publishes the rows of requests. For the daemon's loop only.

    While the broker does not answer, a single packet at a time is tried, and all else waits for it.

    Attributes:
        link: The way to the broker.
        product: The product that the rows are for.
        shares: Knows which models have too much in the broker.
        repeated: Packets that the broker had already: an answer was lost, and nothing else.
        errors: Failed attempts, and refused requests, by reason.
        observe: Functions that get the seconds that each successful attempt took.
    """

    link: Link
    product: Product
    shares: Shares
    repeated: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    observe: list[Callable[[float], None]] = field(default_factory=list)
    _failing_since: float | None = field(default=None, init=False)
    _failed_at: float = field(default=0.0, init=False)
    _attempts: dict[int, float] = field(default_factory=dict, init=False)
    _numbers: count[int] = field(default_factory=count, init=False)
    _window: Window = field(default_factory=lambda: Window(WINDOW_BYTES), init=False)

    @property
    def most_row_bytes(self) -> int | None:
        """The most bytes of a row that fits into a packet; None while it is not known."""
        most = self.link.connection.most_bytes
        return None if most is None else most_row_bytes(most)

    @property
    def trouble(self) -> str:
        """Why no rows can be published now, or "". Any thread."""
        now = time.monotonic()
        # Attempts in their order, so the first one has waited longest.
        oldest = next(iter(self._attempts.copy().values()), now)
        since = self._failing_since
        is_failing = since is not None and now - since >= GRACE_SECONDS
        if (is_failing and now - self._failed_at < LULL_SECONDS) or now - oldest >= GRACE_SECONDS:
            return "the broker can't keep rows"
        return ""

    async def hand_over(
        self,
        rows: Sequence[Row],
        *,
        timeout_seconds: float,
        is_gone: Callable[[], bool] = bool,
    ) -> IngestRefusal | None:
        """Return None when the broker has the rows on most of its disks, else why it has not.

        After a refusal it may have some of them nevertheless, and delivers those.

        Args:
            rows: The rows, one or more.
            timeout_seconds: How long to try.
            is_gone: Says whether nobody waits for the answer any more.
        """
        connection = self.link.connection
        settings = connection.settings
        if self._has_too_much(rows):
            self.errors[PublishError.OVER_SHARE] += 1
            return IngestRefusal.OVER_SHARE
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(min(timeout_seconds, settings.publish_seconds)):
                await self.link.ready.wait()
                most = connection.most_bytes or settings.packet_bytes
                packets = self._packets(rows, min(settings.packet_bytes, most))
                if any(packet.size > most for packet in packets):
                    # The broker took larger ones when the row came; next time it is refused.
                    return IngestRefusal.TOO_LARGE
                return await self._publish_all(packets, is_gone)
        except TimeoutError:
            self.errors[PublishError.TOO_LATE] += 1
            self._note_failure("it does not answer in time", since=began_at)
            return IngestRefusal.BROKER_AWAY

    def _has_too_much(self, rows: Sequence[Row]) -> bool:
        if not self.shares.matter:
            return False
        models = dict.fromkeys(row.model_id for row in rows)
        return any(self.shares.is_over(model_token(each)) for each in models)

    def _packets(self, rows: Sequence[Row], most: int) -> list[Packet]:
        now = time.time()
        return [
            Packet(str(uuid.uuid4()), self.product, each[0].model_id, each[0].kind, each, now)
            for each in cut(rows, most)
        ]

    async def _publish_all(
        self, packets: Sequence[Packet], is_gone: Callable[[], bool]
    ) -> IngestRefusal | None:
        """Publish packets at the same time; once one is refused, the others are left."""
        if len(packets) == 1:
            return await self._publish(packets[0], is_gone)
        tasks = [asyncio.create_task(self._publish(packet, is_gone)) for packet in packets]
        try:
            for task in asyncio.as_completed(tasks):
                if (refusal := await task) is not None:
                    return refusal
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return None

    async def _publish(self, packet: Packet, is_gone: Callable[[], bool]) -> IngestRefusal | None:
        """Publish a packet, as often as it takes, always by the same id."""
        while True:
            await self.link.ready.wait()
            async with self._window.turn(packet.size):
                if is_gone():
                    return IngestRefusal.CLIENT_GONE
                began_at = time.monotonic()
                try:
                    await self._attempt(packet)
                except BrokerFullError:
                    self.errors[PublishError.FULL] += 1
                    return IngestRefusal.BROKER_FULL
                except BrokerAwayError as error:
                    self.errors[PublishError.AWAY] += 1
                    self._note_failure(str(error), since=began_at)
                    # Within its turn, so that the next one is not tried at once.
                    await asyncio.sleep(PAUSE_SECONDS)
                else:
                    return None

    async def _attempt(self, packet: Packet) -> None:
        """Publish a packet once. Raises what `Connection.publish` does."""
        connection = self.link.connection
        number, began_at = next(self._numbers), time.monotonic()
        self._attempts[number] = began_at
        try:
            self.repeated += await connection.publish(
                packet.subject(connection.settings.stream),
                packet.body(),
                packet.headers(),
                seconds=ATTEMPT_SECONDS,
            )
        finally:
            del self._attempts[number]
        self._note_success()
        self.shares.published(model_token(packet.model_id), packet.size)
        for observe in self.observe:
            observe(time.monotonic() - began_at)

    def _note_failure(self, reason: str, *, since: float) -> None:
        self._failed_at = time.monotonic()
        if self._failing_since is None:
            self._failing_since = since
            self._window.is_narrow = True
            logger.warning("the broker can't keep rows: %s; it is tried again", reason)

    def _note_success(self) -> None:
        if self._failing_since is not None:
            self._failing_since = None
            self._window.is_narrow = False
            self._window.let_in()
            logger.info("the broker keeps rows again")
