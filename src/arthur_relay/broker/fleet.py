"""The fleet, as one of its daemons sees it: what waits in the broker, and who is there."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from arthur_relay.broker.errors import BrokerAwayError
from arthur_relay.broker.link import end_if_cancelled
from arthur_relay.broker.monitoring import read_servers
from arthur_relay.broker.stored import StoredStream
from arthur_relay.errors import ConfigurationError
from arthur_relay.system.log_once import LogOnce

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arthur_relay.broker.link import Link
    from arthur_relay.broker.monitoring import ServerReport
    from arthur_relay.broker.shares import Shares

logger = logging.getLogger("arthur_relay.broker")

ASK_SECONDS: Final = 2.0
"""How often the broker is asked."""

ASK_SOON_SECONDS: Final = 1.0
"""The same while models' shares matter."""

STALE_SECONDS: Final = 10.0
"""How long an empty stream has to be reported empty before that is believed, as long as nothing is
known of it: a server that has just started may not have caught up with the others, and says so of
nothing."""

UNCLAIMED_READS: Final = 6
"""How often in a row there have to be messages without a consumer: the stream and its consumers
are asked one after the other, so that a few often seem to be, and more after a restart."""

SUBJECTS_SHOWN: Final = 5
"""The subjects that a line names, at most."""

OLD_SECONDS: Final = 10.0
"""How old an answer may be. Older ones say nothing of now."""

WATCH_SECONDS: Final = 15.0
"""How often the servers' monitoring ports are asked."""

PRESENT_SECONDS: Final = 3 * ASK_SECONDS
"""How long after its last announcement a daemon counts as there."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in the broker. Unknown values are None.

    Attributes:
        waiting_packets: Packets that nobody has in hand.
        in_flight_packets: Packets that workers have in hand.
        unclaimed_packets: Those that no worker gets, as no consumer is for their subjects.
        bytes: What all of them take.
        oldest_age_seconds: How long the oldest has waited; 0 when there is none.
    """

    waiting_packets: int | None = None
    in_flight_packets: int | None = None
    unclaimed_packets: int | None = None
    bytes: int | None = None
    oldest_age_seconds: float | None = None


@dataclass(slots=True, eq=False)
class BacklogReader:
    """Reads the broker's answers. Pure; for one loop.

    For seconds after a server was started, it may answer without what it has missed. Such an answer
    ends with an earlier message than one before, and is passed over. The first answer of all has
    none before it: an empty stream is then believed after a while only.
    """

    _created: str = field(default="", init=False)
    _last: int = field(default=-1, init=False)
    _empty_since: float | None = field(default=None, init=False)
    _was_filled: bool = field(default=False, init=False)
    _left_over: deque[int] = field(
        default_factory=lambda: deque(maxlen=UNCLAIMED_READS), init=False
    )

    @property
    def created(self) -> str:
        """When the stream was made, as the broker says; "" as long as nothing is known of it."""
        return self._created

    def read(
        self, stream: Mapping[str, Any], consumers: Sequence[Mapping[str, Any]] | None, now: float
    ) -> Backlog | None:
        """Return what waits; None when the answer can't be relied on.

        Args:
            stream: What the broker says of the stream.
            consumers: The same of its consumers; None when it says nothing.
            now: The time in seconds, of any scale.
        """
        state = stream["state"]
        messages, last = state["messages"], state["last_seq"]
        if stream.get("created") != self._created:  # the first answer, or another stream
            self._created, self._last = stream.get("created", ""), -1
            self._empty_since, self._was_filled = None, False
        if last < self._last:
            return None
        self._last = last
        if messages:
            self._was_filled, self._empty_since = True, None
        elif not self._was_filled:
            self._empty_since = now if self._empty_since is None else self._empty_since
            if now - self._empty_since < STALE_SECONDS:
                return None
        in_hand = None if consumers is None else sum(each["num_ack_pending"] for each in consumers)
        return Backlog(
            waiting_packets=None if in_hand is None else max(0, messages - in_hand),
            in_flight_packets=in_hand,
            unclaimed_packets=self._unclaimed(messages, consumers),
            bytes=state["bytes"],
            oldest_age_seconds=_age(stream) if messages else 0.0,
        )

    def _unclaimed(
        self, messages: int, consumers: Sequence[Mapping[str, Any]] | None
    ) -> int | None:
        """Return how many messages no consumer has, or will hand out."""
        if consumers is None:
            return None
        claimed = sum(each["num_ack_pending"] + each["num_pending"] for each in consumers)
        self._left_over.append(max(0, messages - claimed))
        return min(self._left_over) if len(self._left_over) == UNCLAIMED_READS else 0


def unclaimed(subjects: Iterable[str], consumers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the subjects that no consumer is for."""
    ours = tuple(each["config"]["filter_subject"].removesuffix(">") for each in consumers)
    return sorted(each for each in subjects if not each.startswith(ours))


def _age(stream: Mapping[str, Any]) -> float:
    """Return the age of the oldest message, by the broker's own clock."""
    asked, first = (_moment(each) for each in (stream["ts"], stream["state"]["first_ts"]))
    return max(0.0, (asked - first).total_seconds())


def _moment(text: str) -> datetime:
    """Return a time of the broker, which has nanoseconds."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00")


@dataclass(frozen=True, slots=True)
class FleetState:
    """What a daemon knows of its fleet.

    Attributes:
        connected: Whether it is connected to the broker.
        server: The version of the server that it is connected to; "" while it is not.
        reconnects: How often the connection was made again.
        backlog: What waits in the broker.
        limit_bytes: What may wait there.
        gateways: The gateways that are there; None while it is not connected.
        workers: The same of workers.
        servers: What the servers say of themselves at their monitoring ports; empty where none is
            named.
    """

    connected: bool
    server: str
    reconnects: int
    backlog: Backlog
    limit_bytes: int
    gateways: int | None
    workers: int | None
    servers: Sequence[ServerReport]


@dataclass(slots=True, eq=False)
class Fleet:
    """Asks the broker now and then. On the loop of the link; `state` may be read by any thread.

    Attributes:
        link: The way to the broker; it hears whether the broker answers.
        role: What this daemon is, as the others see it.
        shares: Hears how much each model takes; None where nobody wants to know.
    """

    link: Link
    role: str
    shares: Shares | None = None
    _reader: BacklogReader = field(default_factory=BacklogReader, init=False)
    _backlog: Backlog = field(default_factory=Backlog, init=False)
    _read_at: float = field(default=float("-inf"), init=False)
    _id: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)
    _once: LogOnce = field(default_factory=LogOnce, init=False)
    _present: dict[str, tuple[str, float]] = field(default_factory=dict, init=False)
    _servers: Sequence[ServerReport] = field(default=(), init=False)

    @property
    def state(self) -> FleetState:
        """What is known now."""
        connection = self.link.connection
        is_connected, now = connection.is_connected, time.monotonic()
        roles = [role for role, at in self._present.copy().values() if now - at <= PRESENT_SECONDS]
        return FleetState(
            connected=is_connected,
            server=connection.server,
            reconnects=connection.reconnects,
            backlog=self._backlog if now - self._read_at <= OLD_SECONDS else Backlog(),
            limit_bytes=connection.settings.bytes,
            gateways=roles.count("gateway") if is_connected else None,
            workers=roles.count("worker") if is_connected else None,
            servers=self._servers,
        )

    async def run(self) -> None:
        """Ask, and announce this daemon, until cancelled."""
        await self.link.connection.listen(self._subject, self._hear)
        while True:
            await self.link.ready.wait()
            self.link.note_question()
            try:
                await self._announce()
                await self._ask()
            except BrokerAwayError as error:
                self.link.note_away(str(error))
            except ConfigurationError as error:
                self.link.note_answer()
                logger.warning("the broker does not say what waits: %s", error)
            end_if_cancelled()
            soon = self.shares is not None and self.shares.matter
            await asyncio.sleep(ASK_SOON_SECONDS if soon else ASK_SECONDS)

    async def watch_servers(self) -> None:
        """Ask the servers' monitoring ports, where they are named, until cancelled."""
        settings = self.link.connection.settings
        while settings.monitoring_urls:
            self._servers = await read_servers(
                settings.monitoring_urls, settings.stream, self._reader.created
            )
            # Which stream is ours is known once the broker has answered.
            await asyncio.sleep(WATCH_SECONDS if self._reader.created else ASK_SECONDS)

    async def _announce(self) -> None:
        body = json.dumps({"id": self._id, "role": self.role}).encode()
        await self.link.connection.send(self._subject, body)

    async def _ask(self) -> None:
        connection = self.link.connection
        matter = self.shares is not None and self.shares.matter
        subjects = f"{connection.settings.stream}.>" if matter else ""
        rows = StoredStream(connection, connection.settings.stream)
        stream = await rows.describe(subjects=subjects)
        if stream is None:
            self.link.look_again()
            raise BrokerAwayError("its stream is gone")
        self.link.note_answer()
        try:
            consumers = await rows.describe_consumers()
        except BrokerAwayError:
            consumers = None
        now = time.monotonic()
        backlog = self._reader.read(stream, consumers, now)
        if backlog is None:
            return
        if consumers is None:
            # The numbers of a moment ago are better than none.
            backlog = replace(
                backlog,
                waiting_packets=self._backlog.waiting_packets,
                in_flight_packets=self._backlog.in_flight_packets,
                unclaimed_packets=self._backlog.unclaimed_packets,
            )
        self._backlog, self._read_at = backlog, now
        await self._tell_unclaimed(rows, consumers or ())
        if self.shares is not None:
            state = stream["state"]
            self.shares.take(state["bytes"], state.get("subjects") or {})

    async def _tell_unclaimed(
        self, rows: StoredStream, consumers: Sequence[Mapping[str, Any]]
    ) -> None:
        """Log which messages nobody gets, once for each time that there begin to be some."""
        if not self._backlog.unclaimed_packets:
            self._once.reset("unclaimed")
        elif consumers and self._once.is_first("unclaimed"):
            found = await rows.state(subjects=">")
            subjects = unclaimed([] if found is None else found.subjects, consumers)
            logger.warning(
                "%d messages of the broker take room and go to no worker, as no consumer is for"
                " their subjects: %s",
                self._backlog.unclaimed_packets,
                ", ".join(subjects[:SUBJECTS_SHOWN]) or "they are gone by now",
            )

    def _hear(self, body: bytes) -> None:
        """Note who is there. Whatever else is announced there is passed over."""
        try:
            found = json.loads(body)
            name, role = str(found["id"]), str(found["role"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        now = time.monotonic()
        self._present = {
            each: (whose, at)
            for each, (whose, at) in self._present.items()
            if now - at <= PRESENT_SECONDS
        }
        self._present[name] = role, now

    @property
    def _subject(self) -> str:
        return f"{self.link.connection.settings.stream}_FLEET.present"
