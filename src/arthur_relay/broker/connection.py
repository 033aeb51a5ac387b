"""The connection to the broker: the one place that knows its client library.

All of it belongs to one event loop. What the library raises leaves this module as one of three
errors: the broker is away, it is full, or something about it has to be changed by a person.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from arthur_relay.broker.packets import HEADER_BYTES
from arthur_relay.broker.settings import BROKER_PREFIX
from arthur_relay.broker.topology import (
    consumer_config,
    consumers,
    differences,
    letters_stream,
    rows_stream,
    shared_stream,
    stream_config,
)
from arthur_relay.errors import ConfigurationError, RelayError, SettingsError
from arthur_relay.settings import RelaySettings

try:
    import nats.errors
    import nats.js.errors
    from nats.aio.client import Client
except ImportError:
    raise ConfigurationError(
        "A gateway and a worker need the client of the broker: pip install 'arthur-relay[nats]'."
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.encoding.product import Product

logger = logging.getLogger("arthur_relay.broker")

DEAD_LETTER_BYTES: Final[int] = RelaySettings.model_fields["dead_letter_bytes"].default

OLDEST_SERVER: Final = (2, 14)

PING_SECONDS: Final = 2
PINGS_OUTSTANDING: Final = 2
"""A server that hangs is left after about six seconds; by the library's defaults, after minutes."""

CONNECT_SECONDS: Final = 5
OPEN_SECONDS: Final = 7.0
"""How long the first connection may take, all servers included."""

CLOSE_SECONDS: Final = 2.0
"""How long the end may take: the library waits for the other end without one."""

RECONNECT_SECONDS: Final = 1
REQUEST_SECONDS: Final = 5.0

BUSY_SECONDS: Final = 0.1
"""How long a question for several messages stays open; none is asked while there are none."""

ANSWER_SECONDS: Final = 2.0
"""How much longer than a question is open its answer may take."""

DRAIN_SECONDS: Final = 0.5
"""How long to wait for messages that were sent before we gave up asking."""

_NO_MESSAGES: Final = frozenset({"404", "408"})
"""The statuses of a question for messages when there are none, or not enough."""

_FULL: Final = frozenset({10077, 10122})
"""The server's error codes for a stream, or the account's storage, that takes no more."""

_SEED: Final = re.compile(r"\bSU[A-Z2-7]{56}\b")

_NOT_FOUND: Final = 404
_UNAVAILABLE: Final = 503

_NO_JETSTREAM: Final = frozenset({10039, 10076})
"""The same for a server, or an account, without JetStream."""

_FOR_NOW: Final = frozenset({10005, 10008, 10009, 10023})
"""The same for what is over once other servers of the cluster are there."""

_NOT_LEFT: Final = "JetStream is off at the broker, for its server or for our account: turn it on"


class BrokerAwayError(RelayError):
    """The broker did not answer, or has no leader now; trying again may work."""


class BrokerFullError(RelayError):
    """The broker takes no more rows until some are delivered."""


class StoredMessage(NamedTuple):
    """A message that the broker keeps."""

    sequence: int
    """Its place in the stream."""
    body: bytes
    age_seconds: float
    """How long ago it was stored, by the broker's clock."""


class StreamState(NamedTuple):
    """What a stream has."""

    messages: int
    bytes: int
    first: int
    """The sequence of the oldest message."""
    last: int
    """The sequence of the newest message that it ever had."""
    subjects: Mapping[str, int]
    """The messages by subject, where those were asked for."""


@dataclass(slots=True, eq=False, kw_only=True)
class Delivery:
    """A message that was handed out to us, until it is acknowledged or given back.

    Attributes:
        connection: Carries our answers; after the worker's loop died, the next loop's.
        headers: Its headers.
        body: Its body; may be forgotten once it is read.
        sequence: Its place in the stream.
        times: How often it was handed out, this time included.
    """

    connection: Connection
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    sequence: int
    times: int
    _reply: str

    @classmethod
    def of(cls, connection: Connection, message: Msg) -> Delivery:
        """Return what a message of the library is."""
        about = message.metadata
        return cls(
            connection=connection,
            headers=message.headers or {},
            body=message.data,
            sequence=about.sequence.stream,
            times=about.num_delivered,
            _reply=message.reply,
        )

    async def acknowledge(self) -> None:
        """Have the broker forget it, and wait until it has; a second time changes nothing.

        Raises:
            BrokerAwayError: It is not known whether it has.
        """
        await self.connection.ask(self._reply, b"+ACK")

    async def give_back(self, delay_seconds: float = 0.0) -> None:
        """Have it handed out again, to anyone. Raises what `acknowledge` does."""
        delay = json.dumps({"delay": round(delay_seconds * 1e9)}) if delay_seconds else ""
        await self.connection.send(self._reply, f"-NAK {delay}".strip().encode())

    async def keep(self) -> None:
        """Have the broker hear that we still work on it. Raises what `acknowledge` does."""
        await self.connection.ask(self._reply, b"+WPI")


@dataclass(slots=True, eq=False)
class Consumer:
    """Hands out the messages of one consumer. A cancellation loses none of them.

    The library's own `fetch` waits for the whole batch once the first message has come, and forgets
    what has come when it is cancelled.

    Attributes:
        name: Its name.
    """

    name: str
    _connection: Connection
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

    @staticmethod
    async def _drain(subscription: Subscription) -> None:
        with suppress(Exception):
            await subscription.drain()  # type: ignore[no-untyped-call]

    def _take(self) -> list[Delivery]:
        found, self._arrived = self._arrived, []
        return found

    async def _on_message(self, message: Msg) -> None:
        if message.reply:
            self._arrived.append(Delivery.of(self._connection, message))
            self._left = max(0, self._left - 1)
        elif message.subject == f"{self._inbox}.{self._question}":
            self._status = (message.headers or {}).get("Status", "")
            self._left = 0
        self._news.set()


@dataclass(frozen=True, slots=True)
class Missing:
    """A stream or a consumer that the broker should have.

    Attributes:
        what: It, for people.
        question: What asks the broker for it.
        config: What its configuration has to be.
    """

    what: str
    question: str
    config: dict[str, object]


@dataclass(frozen=True, slots=True)
class Review:
    """How the broker compares with what it should be.

    Attributes:
        missing: What it does not have.
        differences: In what the rest differs, for people.
    """

    missing: tuple[Missing, ...]
    differences: tuple[str, ...]


class _Client(Client):
    """The library's client, which would do without TLS where the server does not ask for it."""

    needs_tls = False

    @property
    def connected_server_has_jetstream(self) -> bool:
        return bool(self._server_info.get("jetstream"))

    @property
    def connected_server_is_clustered(self) -> bool:
        return bool(self._server_info.get("cluster"))

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's
        if initial_connection and self.needs_tls and not info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        await super()._process_info(info, initial_connection)


@dataclass(slots=True, eq=False)
class Connection:
    """A connection to the broker, made anew whenever it is lost.

    Args:
        settings: Where the broker is, and how rows are kept there.
        name: Says in the broker's own views who this is.
        dead_letter_bytes: The size of the stream of dead letters.

    Attributes:
        settings: As given.
        name: As given.
        dead_letter_bytes: As given.
    """

    settings: BrokerSettings
    name: str
    dead_letter_bytes: int = DEAD_LETTER_BYTES
    _client: _Client | None = field(default=None, init=False)
    _last_error: Exception | None = field(default=None, init=False)
    _errors: int = field(default=0, init=False)
    _attempts: int = field(default=0, init=False)
    _reconnects: int = field(default=0, init=False)
    _gave_up: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _listeners: dict[str, Callable[[bytes], object]] = field(default_factory=dict, init=False)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None and self._client.is_connected

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, or the library tries to make it again."""
        return self._client is not None and not self._client.is_closed

    @property
    def reconnects(self) -> int:
        """How often the connection was made again."""
        return self._reconnects + (0 if self._client is None else self._client.stats["reconnects"])

    @property
    def trouble(self) -> str:
        """Why there is no connection, or ""."""
        if self.is_connected:
            return ""
        return "it is not connected yet" if self._last_error is None else _why(self._last_error)

    @property
    def server(self) -> str:
        """The version of the server that we are connected to, for people; "" without one."""
        if self._client is None or not self._client.is_connected:
            return ""
        version = self._client.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    @property
    def is_clustered(self) -> bool:
        """Whether the server that we are connected to belongs to a cluster."""
        return self._client is not None and self._client.connected_server_is_clustered

    @property
    def most_bytes(self) -> int | None:
        """The most bytes of a packet's body; None before there was a connection."""
        return None if self._client is None else self._client.max_payload - HEADER_BYTES

    async def open(self) -> None:
        """Connect.

        Raises:
            BrokerAwayError: No server answers.
            ConfigurationError: A server refuses us, or can't be trusted, or a file can't be used.
        """
        self._last_error = None
        self._attempts = 0
        self._gave_up = asyncio.Event()
        client = _Client()
        client.needs_tls = self.settings.uses_tls
        # The library tries for ever, because a connection that is lost should come back; the first
        # one is ours to give up, once each server was tried, and to say why.
        options = {**self._credentials(), "tls": self._tls()}
        connecting = asyncio.create_task(self._connect(client, options))
        giving_up = asyncio.create_task(self._gave_up.wait())
        try:
            await asyncio.wait(
                (connecting, giving_up),
                timeout=OPEN_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not connecting.done():
                connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            _raise_of_opening(connecting, self._last_error)
            for subject in self._listeners:
                await self._subscribe(client, subject)
        except BaseException:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await _close(client)
            raise
        finally:
            giving_up.cancel()
        self._last_error = None
        self._changed.clear()
        self._client = client

    async def _connect(self, client: Client, options: dict[str, Any]) -> None:
        await client.connect(
            self.settings.servers,
            name=self.name,
            connect_timeout=CONNECT_SECONDS,
            reconnect_time_wait=RECONNECT_SECONDS,
            max_reconnect_attempts=-1,
            allow_reconnect=True,
            ping_interval=PING_SECONDS,
            max_outstanding_pings=PINGS_OUTSTANDING,
            error_cb=self._on_error,
            disconnected_cb=self._on_change,
            reconnected_cb=self._on_change,
            closed_cb=self._on_change,
            **options,
        )

    async def close(self) -> None:
        """Send what was written, and disconnect. Never raises."""
        client, self._client = self._client, None
        if client is not None:
            self._reconnects += client.stats["reconnects"]
            # It sends what was written. `flush` before it could hang, and once it is cancelled, the
            # library's reader dies of the answer.
            await _close(client)

    async def changed(self) -> None:
        """Wait until the connection was lost, made again, or given up, since the last call."""
        await self._changed.wait()
        self._changed.clear()

    async def prepare(self, products: Sequence[Product]) -> None:
        """Make or compare the streams and consumers.

        Args:
            products: The products whose rows go through this fleet.

        Raises:
            BrokerAwayError: The broker can't be asked now.
            ConfigurationError: The server is too old or has no JetStream, or something differs from
                what it should be, or is missing and must not be made.
        """
        review = await self.review(products)
        if review.differences:
            raise ConfigurationError(
                f"The broker is not as it should be: {'; '.join(review.differences)}. Correct it"
                " there, or the settings here."
            )
        if review.missing and not self.settings.create:
            raise ConfigurationError(
                f"The broker has no {review.missing[0].what}, and {BROKER_PREFIX}CREATE is false:"
                " make it, or let us."
            )
        for each in review.missing:
            await self._create(each)

    async def review(self, products: Sequence[Product]) -> Review:
        """Compare the server, the streams and the consumers with what they should be.

        Changes nothing. Raises what `prepare` does for the server itself.
        """
        client = self._connected()
        version = client.connected_server_version
        if (version.major, version.minor) < OLDEST_SERVER:
            wanted = ".".join(map(str, OLDEST_SERVER))
            raise ConfigurationError(
                f"The broker's version is {self.server}; it has to be {wanted} or newer."
            )
        await self._ask_account()
        missing: list[Missing] = []
        differs: dict[str, list[str]] = {}
        for each in self._wanted(products):
            found = await self._ask(each.question)
            if found is None:
                missing.append(each)
            elif text := "; ".join(differences(each.config, found["config"])):
                differs.setdefault(text, []).append(each.what)
        return Review(
            tuple(missing), tuple(f"{', '.join(whose)}: {text}" for text, whose in differs.items())
        )

    async def ask_stream(self, *, subjects: str = "") -> dict[str, Any]:
        """Return what the broker says of the stream of rows; {} when there is none.

        Args:
            subjects: Have the messages of these counted by subject.

        Raises:
            BrokerAwayError: It can't be asked now.
        """
        body = {"subjects_filter": subjects} if subjects else None
        return await self._ask(f"STREAM.INFO.{self.settings.stream}", body) or {}

    async def ask_consumers(self) -> list[dict[str, Any]]:
        """Return what the broker says of the consumers of rows. Raises what `ask_stream` does."""
        found = await self._ask(f"CONSUMER.LIST.{self.settings.stream}") or {}
        return found.get("consumers") or []

    async def listen(self, subject: str, on_message: Callable[[bytes], object]) -> None:
        """Have a function called with what is announced, from now on and in later connections.

        Raises what `ask_stream` does; then it begins with the next connection.
        """
        self._listeners[subject] = on_message
        if self._client is not None:
            await self._subscribe(self._client, subject)

    async def _subscribe(self, client: Client, subject: str) -> None:
        on_message = self._listeners[subject]

        async def on_announcement(message: Msg) -> None:
            on_message(message.data)

        try:
            await client.subscribe(subject, cb=on_announcement)
        except nats.errors.Error as error:
            raise BrokerAwayError(_why(error)) from None

    def note_change(self) -> None:
        """Have `changed` return."""
        self._changed.set()

    async def _ask_account(self) -> None:
        """Ask whether there is JetStream for us.

        Raises:
            BrokerAwayError: It can't be asked now.
            ConfigurationError: There is not.
        """
        try:
            await self._ask("INFO")
        except BrokerAwayError:
            # A server without JetStream may be part of a cluster that has it, and this one is not.
            if not self._connected().connected_server_has_jetstream:
                raise ConfigurationError(f"{_NOT_LEFT}.") from None
            raise

    def _wanted(self, products: Sequence[Product]) -> Iterator[Missing]:
        """Yield what the broker should have, in the order in which it is made."""
        for plan in (
            rows_stream(self.settings),
            shared_stream(self.settings),
            letters_stream(self.settings, self.dead_letter_bytes),
        ):
            config = stream_config(plan)
            yield Missing(f"stream {plan.name}", f"STREAM.INFO.{plan.name}", config)
        stream = self.settings.stream
        for product in products:
            for each in consumers(self.settings, product):
                question = f"CONSUMER.INFO.{stream}.{each.name}"
                yield Missing(f"consumer {each.name}", question, consumer_config(each))

    async def _create(self, missing: Missing) -> None:
        """Make a stream or a consumer.

        Raises:
            BrokerAwayError: It can't be made now.
            ConfigurationError: The broker refuses it.
        """
        config, stream = missing.config, self.settings.stream
        if "durable_name" in config:
            body: dict[str, Any] = {"stream_name": stream, "config": config, "action": "create"}
            question = (
                f"CONSUMER.CREATE.{stream}.{config['durable_name']}.{config['filter_subject']}"
            )
        else:
            body, question = config, f"STREAM.CREATE.{config['name']}"
        try:
            await self._ask(question, body)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"The broker refuses to make the {missing.what}: {error}"
            ) from None
        logger.info("made the %s", missing.what)

    async def publish(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        seconds: float,
        stream: str | None = None,
    ) -> bool:
        """Have the broker keep a message.

        Args:
            subject: Its subject.
            body: Its body.
            headers: Its headers.
            seconds: How long to wait for the answer.
            stream: The stream that has to take it; that of the rows when None.

        Returns:
            Whether it had the message already.

        Raises:
            BrokerAwayError: It is not known whether the broker keeps it; trying again, with the
                same id, may work.
            BrokerFullError: It takes no more.
        """
        client = self._connected()
        if not client.is_connected:
            # Else the library would keep it for later, and send it when nobody waits any more.
            raise BrokerAwayError(self.trouble)
        try:
            answer = await client.jetstream().publish(
                subject,
                body,
                timeout=seconds,
                stream=self.settings.stream if stream is None else stream,
                headers=dict(headers),
            )
        except TimeoutError:
            raise BrokerAwayError("it does not answer in time") from None
        except nats.js.errors.APIError as error:
            if error.err_code in _FULL:
                raise BrokerFullError("the broker is full") from None
            raise BrokerAwayError(_why(error)) from None
        except nats.errors.Error as error:
            raise BrokerAwayError(_why(error)) from None
        return bool(answer.duplicate)

    async def consumer(self, name: str) -> Consumer:
        """Return a consumer that `prepare` has made.

        Raises:
            BrokerAwayError: The broker can't be asked now.
        """
        consumer = Consumer(name, self, self.settings.stream, self._connected().new_inbox())
        await self.resubscribe(consumer)
        return consumer

    async def resubscribe(self, consumer: Consumer) -> None:
        """Have a consumer listen, also after the connection was opened anew. As `consumer`."""
        try:
            await consumer.open(self._connected())
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerAwayError(_why(error)) from None

    async def send(self, subject: str, body: bytes, *, reply: str = "") -> None:
        """Send a message and wait for nothing; while the connection is lost, it is sent later.

        Raises:
            BrokerAwayError: It can't be sent.
        """
        try:
            await self._connected().publish(subject, body, reply)
        except nats.errors.Error as error:
            raise BrokerAwayError(_why(error)) from None

    async def ask(self, subject: str, body: bytes) -> bytes:
        """Send a message, and return the answer.

        Raises:
            BrokerAwayError: There is none in time.
        """
        try:
            answer = await self._connected().request(subject, body, timeout=REQUEST_SECONDS)
        except nats.errors.Error as error:
            raise BrokerAwayError(_why(error)) from None
        return answer.data

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last message of a subject, from the stream's leader; None when there is none.

        Raises:
            BrokerAwayError: The broker can't be asked now.
        """
        question = {"last_by_subj": subject}
        found = await self._ask(f"STREAM.MSG.GET.{stream}", question)
        if found is None:
            return None
        message = found["message"]
        about = await self._ask(f"STREAM.INFO.{stream}") or {}
        # Both times are the broker's: no other machine's clock is compared with ours.
        age = _moment(about["ts"]) - _moment(message["time"]) if "ts" in about else 0.0
        return StoredMessage(message["seq"], _body(message), max(0.0, age))

    async def message_at(
        self, stream: str, sequence: int, *, or_later: bool = False
    ) -> StoredMessage | None:
        """Return a message of a stream, from its leader; None when there is none.

        Args:
            stream: The stream.
            sequence: The message's sequence.
            or_later: Whether the next one will do as well.

        Raises:
            BrokerAwayError: The broker can't be asked now.
        """
        question: dict[str, object] = {"seq": sequence}
        if or_later:
            question["next_by_subj"] = ">"
        found = await self._ask(f"STREAM.MSG.GET.{stream}", question)
        if found is None:
            return None
        message = found["message"]
        return StoredMessage(message["seq"], _body(message), 0.0)

    async def remove_message(self, stream: str, sequence: int) -> bool:
        """Remove a message of a stream. Returns whether it was there; raises what `purge` does."""
        try:
            found = await self._ask(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence})
        except RelayError:
            # What the broker answers when the message is not there depends on where it had been.
            if await self.message_at(stream, sequence) is not None:
                raise
            return False
        return found is not None

    async def purge(self, stream: str, *, keep: int) -> int:
        """Remove the oldest messages of a stream.

        Args:
            stream: The stream.
            keep: How many of the newest ones stay.

        Returns:
            How many were removed, by this call and no other one.

        Raises:
            BrokerAwayError: The broker can't be asked now.
        """
        found = await self._ask(f"STREAM.PURGE.{stream}", {"keep": keep})
        return 0 if found is None else int(found["purged"])

    async def stream_state(self, stream: str, *, subjects: str = "") -> StreamState | None:
        """Return what a stream has, or None when there is no such stream.

        Args:
            stream: The stream.
            subjects: Have the messages of these counted by subject.

        Raises:
            BrokerAwayError: The broker can't be asked now.
        """
        body = {"subjects_filter": subjects} if subjects else None
        found = await self._ask(f"STREAM.INFO.{stream}", body)
        if found is None:
            return None
        state = found["state"]
        return StreamState(
            state["messages"],
            state["bytes"],
            state["first_seq"],
            state["last_seq"],
            state.get("subjects") or {},
        )

    def _connected(self) -> _Client:
        if self._client is None or self._client.is_closed:
            raise BrokerAwayError(self.trouble)
        return self._client

    async def _on_error(self, error: Exception) -> None:
        """Remember an error that the library meets in the background, and log a new one."""
        before, self._last_error = self._last_error, error
        self._errors += 1
        if self._client is None:
            self._attempts += 1
            if self._attempts >= len(self.settings.servers):
                self._gave_up.set()
        elif before is None or _why(before) != _why(error):
            logger.warning("the broker: %s", _why(error))

    async def _on_change(self) -> None:
        self._changed.set()

    def _tls(self) -> ssl.SSLContext | None:
        settings = self.settings
        if not settings.uses_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
            if settings.certificate is not None:
                context.load_cert_chain(settings.certificate, settings.key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"{BROKER_PREFIX}CA_FILE, _CERTIFICATE or _KEY can't be used: {_why(error)}."
            ) from None
        return context

    def _credentials(self) -> dict[str, Any]:
        path = self.settings.credentials_file
        return {} if path is None else _credentials_of(path)

    async def _ask(
        self, question: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return the broker's answer; None when there is no such stream or consumer.

        Asked directly, because the library's own classes leave out what they do not know.

        Raises:
            BrokerAwayError: The broker can't be asked now.
            ConfigurationError: It refuses.
        """
        client = self._connected()
        content = b"" if body is None else json.dumps(body).encode()
        errors = self._errors
        try:
            answer = await client.request(f"$JS.API.{question}", content, timeout=REQUEST_SECONDS)
        except nats.errors.NoRespondersError:
            raise BrokerAwayError("it has no JetStream, or no leader now") from None
        except (nats.errors.Error, TimeoutError) as error:
            last = self._last_error
            # The server says so beside, and does not answer at all.
            if self._errors > errors and last is not None and _is_forbidden(last):
                raise ConfigurationError(
                    f"The broker's account does not let us do what we have to: {_why(last)}."
                ) from None
            raise BrokerAwayError(_why(error)) from None
        found: dict[str, Any] = json.loads(answer.data)
        refusal = found.get("error")
        if refusal is None:
            return found
        code, text = refusal.get("err_code"), str(refusal.get("description"))
        if code in _NO_JETSTREAM:
            raise ConfigurationError(f"{_NOT_LEFT}.")
        if refusal.get("code") == _NOT_FOUND:
            return None
        if code in _FOR_NOW or refusal.get("code") == _UNAVAILABLE:
            raise BrokerAwayError(text)
        raise ConfigurationError(f"{text}.")


def _credentials_of(path: Path) -> dict[str, Any]:
    """Return the client's options for a file with credentials.

    The file is read here, because the library never ends on one that has no token.

    Raises:
        SettingsError: It can't be used.
    """
    name = f"{BROKER_PREFIX}CREDENTIALS_FILE ({path})"
    try:
        text = path.read_text(encoding="ascii")
    except UnicodeDecodeError:
        raise SettingsError(f"{name} can't be used: it is not text.") from None
    except OSError as error:
        raise SettingsError(f"{name} can't be read: {error.strerror}.") from None
    found = _SEED.search(text)
    if found is None or ("-----BEGIN" in text and "BEGIN NATS USER JWT" not in text):
        raise SettingsError(f"{name} has neither a user's credentials nor the seed of an nkey.")
    try:
        import nkeys  # type: ignore[import-untyped] # noqa: PLC0415 - for credentials only

        nkeys.from_seed(bytearray(found[0].encode()))
    except ImportError:
        raise SettingsError(
            f"{BROKER_PREFIX}CREDENTIALS_FILE needs one more package: pip install"
            " 'arthur-relay[nats]'."
        ) from None
    except Exception:  # noqa: BLE001 - of the library, and of what it uses
        raise SettingsError(f"{name} has a seed that is damaged.") from None
    if "-----BEGIN" in text:
        return {"user_credentials": str(path)}
    return {"nkeys_seed_str": found[0]}


def _moment(text: str) -> float:
    """Return one of the broker's times in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def _body(message: Mapping[str, Any]) -> bytes:
    return base64.b64decode(message.get("data") or "")


async def _close(client: Client) -> None:
    # In a task, because the library passes over a cancellation while it reconnects, and goes on.
    closing = asyncio.create_task(client.close())
    for _ in range(2):
        await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
        if closing.done():
            break
        closing.cancel()
    if closing.done() and not closing.cancelled():
        closing.exception()  # which nobody needs


def _raise_of_opening(connecting: asyncio.Task[None], last: Exception | None) -> None:
    """Raise why there is no connection, if there is none.

    Args:
        connecting: The attempt, which has ended.
        last: The last error that the library met in the background.
    """
    if connecting.cancelled():
        raise _of_opening(last or TimeoutError())
    if (error := connecting.exception()) is not None:
        raise _of_opening(error)


def _of_opening(error: BaseException) -> RelayError:
    """Return the error to raise when there is no connection."""
    if isinstance(error, RelayError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"The broker's certificate can't be trusted: {error.verify_message}; see"
            f" {BROKER_PREFIX}CA_FILE."
        )
    if isinstance(error, ssl.SSLError):
        return ConfigurationError(
            f"There is no TLS with the broker: {_why(error)}; see {BROKER_PREFIX}URL and"
            f" {BROKER_PREFIX}CERTIFICATE."
        )
    if isinstance(error, nats.errors.SecureConnWantedError):
        return ConfigurationError(
            f"{BROKER_PREFIX}URL has tls://, and the broker has no TLS: turn it on there."
        )
    if _is_unauthorized(error):
        return ConfigurationError(
            f"The broker refuses our credentials: see {BROKER_PREFIX}CREDENTIALS_FILE and the"
            " broker's accounts."
        )
    return BrokerAwayError(_why(error))


def _is_unauthorized(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, nats.errors.AuthorizationError) or any(
        each in text for each in ("authorization", "authentication", "account authentication")
    )


def _is_forbidden(error: BaseException) -> bool:
    return "permissions violation" in str(error).lower()


def _why(error: BaseException) -> str:
    """Return an error's text, without what only the library's authors understand."""
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "it does not answer in time"
    if isinstance(error, nats.js.errors.NoStreamResponseError | nats.errors.NoRespondersError):
        return "it has no stream, or no leader now"
    if _is_unauthorized(error):
        return "it refuses our credentials"
    description = getattr(error, "description", None) or str(error) or type(error).__name__
    return str(description).removeprefix("nats: ")
