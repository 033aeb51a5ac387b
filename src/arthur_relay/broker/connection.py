"""The connection to the broker: the one place that knows its client library.

All of it belongs to one event loop. What the library raises leaves this module as one of three
errors: the broker is away, it is full, or something about it has to be changed by a person.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from arthur_relay.broker.packets import HEADER_BYTES
from arthur_relay.broker.settings import BROKER_PREFIX
from arthur_relay.broker.topology import (
    DUPLICATE_WINDOW_SECONDS,
    FOREVER,
    consumers,
    differences,
    letters_stream,
    rows_stream,
    shared_stream,
)
from arthur_relay.errors import ConfigurationError, RelayError, SettingsError
from arthur_relay.settings import RelaySettings

try:
    import nats.errors
    import nats.js.errors
    from nats.aio.client import Client
    from nats.js import api
except ImportError:
    raise ConfigurationError(
        "A gateway and a worker need the client of the broker: pip install 'arthur-relay[nats]'."
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.js import JetStreamContext

    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.broker.topology import ConsumerPlan, StreamPlan
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

_NOT_FOUND: Final = 404


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
        """Listen. Raises the library's errors."""
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
    _client: Client | None = field(default=None, init=False)
    _last_error: Exception | None = field(default=None, init=False)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None and self._client.is_connected

    @property
    def trouble(self) -> str:
        """Why there is no connection, or ""."""
        if self.is_connected:
            return ""
        return "it is not connected yet" if self._last_error is None else _why(self._last_error)

    @property
    def most_bytes(self) -> int:
        """The most bytes of a packet's body."""
        return self._connected().max_payload - HEADER_BYTES

    async def open(self) -> None:
        """Connect.

        Raises:
            BrokerAwayError: No server answers.
            ConfigurationError: A server refuses our credentials, or a file can't be used.
        """
        settings = self.settings
        client = Client()
        self._last_error = None
        try:
            # The library tries for ever, because a connection that is lost should come back; the
            # first one is ours to give up, and to say why.
            async with asyncio.timeout(OPEN_SECONDS):
                await client.connect(
                    settings.servers,
                    name=self.name,
                    tls=self._tls(),
                    **self._credentials(),
                    connect_timeout=CONNECT_SECONDS,
                    reconnect_time_wait=RECONNECT_SECONDS,
                    max_reconnect_attempts=-1,
                    allow_reconnect=True,
                    ping_interval=PING_SECONDS,
                    max_outstanding_pings=PINGS_OUTSTANDING,
                    error_cb=self._on_error,
                )
        except (nats.errors.Error, OSError) as error:
            await _close(client)
            last = self._why_not(error)
            if isinstance(last, nats.errors.AuthorizationError):
                raise ConfigurationError(
                    "The broker refuses our credentials: see"
                    f" {BROKER_PREFIX}CREDENTIALS_FILE and the broker's accounts."
                ) from None
            raise BrokerAwayError(_why(last)) from None
        self._client = client

    async def close(self) -> None:
        """Send what was written, and disconnect. Never raises."""
        client, self._client = self._client, None
        if client is not None:
            # It sends what was written. `flush` before it could hang, and once it is cancelled, the
            # library's reader dies of the answer.
            await _close(client)

    async def prepare(self, products: Sequence[Product]) -> None:
        """Make or compare the streams and consumers.

        Args:
            products: The products whose rows go through this fleet.

        Raises:
            BrokerAwayError: The broker can't be asked now.
            ConfigurationError: The server is too old, or something differs from what it should be.
        """
        client = self._connected()
        version = client.connected_server_version
        if (version.major, version.minor) < OLDEST_SERVER:
            wanted = ".".join(map(str, OLDEST_SERVER))
            raise ConfigurationError(
                f"The broker's version is {version.major}.{version.minor}.{version.patch}; it has"
                f" to be {wanted} or newer."
            )
        try:
            await self._prepare_stream(rows_stream(self.settings))
            await self._prepare_stream(shared_stream(self.settings))
            await self._prepare_stream(letters_stream(self.settings, self.dead_letter_bytes))
            for product in products:
                for plan in consumers(self.settings, product):
                    await self._prepare_consumer(plan)
        except TimeoutError:
            raise BrokerAwayError("it does not answer in time") from None
        except nats.js.errors.APIError as error:
            raise _of_api(error, "The broker refuses the stream or its consumers") from None
        except nats.errors.Error as error:
            raise BrokerAwayError(_why(error)) from None

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
        jetstream = self._connected().jetstream()
        try:
            answer = await jetstream.publish(
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
        client = self._connected()
        consumer = Consumer(name, self, self.settings.stream, client.new_inbox())
        try:
            await consumer.open(client)
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerAwayError(_why(error)) from None
        return consumer

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

    async def listen(self, subject: str, heard: Callable[[bytes], object]) -> None:
        """Have a function called with each message that is sent on a subject from now on.

        Raises:
            BrokerAwayError: The broker can't be asked now.
        """

        async def on_message(message: Msg) -> None:
            heard(message.data)

        try:
            await self._connected().subscribe(subject, cb=on_message)
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerAwayError(_why(error)) from None

    def _why_not(self, error: Exception) -> Exception:
        """Return what the last attempt met in the background, or else the error itself."""
        return error if self._last_error is None else self._last_error

    def _connected(self) -> Client:
        if self._client is None:
            raise BrokerAwayError(self.trouble)
        return self._client

    async def _on_error(self, error: Exception) -> None:
        """Remember an error that the library meets in the background, and log a new one."""
        before, self._last_error = self._last_error, error
        if self._client is not None and (before is None or _why(before) != _why(error)):
            logger.warning("the broker: %s", _why(error))

    def _tls(self) -> ssl.SSLContext | None:
        settings = self.settings
        if not any(each.startswith("tls://") for each in settings.servers):
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
        if path is None:
            return {}
        try:
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{BROKER_PREFIX}CREDENTIALS_FILE ({path}) can't be read: {_why(error)}."
            ) from None
        if "-----BEGIN" in text:
            return {"user_credentials": str(path)}
        return {"nkeys_seed": str(path)}

    async def _prepare_stream(self, plan: StreamPlan) -> None:
        wanted = api.StreamConfig(
            name=plan.name,
            subjects=list(plan.subjects),
            retention=(
                api.RetentionPolicy.WORK_QUEUE if plan.is_queue else api.RetentionPolicy.LIMITS
            ),
            discard=api.DiscardPolicy.NEW,
            storage=api.StorageType.FILE,
            num_replicas=plan.replicas,
            max_bytes=plan.max_bytes,
            max_age=plan.max_age_seconds,
            duplicate_window=DUPLICATE_WINDOW_SECONDS,
            deny_purge=plan.is_queue,
            max_msgs_per_subject=1 if plan.is_bucket else -1,
            allow_rollup_hdrs=plan.is_bucket,
            allow_msg_ttl=plan.is_bucket,
        )
        found = await self._ask("STREAM.INFO", plan.name)
        if found is None:
            self._must_create(f"stream {plan.name}")
            await self._manager().add_stream(wanted)
            return
        _compare(f"stream {plan.name}", wanted.as_dict(), found["config"])

    async def _prepare_consumer(self, plan: ConsumerPlan) -> None:
        stream = self.settings.stream
        wanted = api.ConsumerConfig(
            durable_name=plan.name,
            filter_subject=plan.subject,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=plan.ack_wait_seconds,
            max_deliver=FOREVER,
            max_ack_pending=plan.in_flight,
        )
        found = await self._ask("CONSUMER.INFO", stream, plan.name)
        if found is None:
            self._must_create(f"consumer {plan.name}")
            await self._manager().add_consumer(stream, wanted)
            return
        _compare(f"consumer {plan.name}", wanted.as_dict(), found["config"])

    def _must_create(self, what: str) -> None:
        if not self.settings.create:
            raise ConfigurationError(
                f"The broker has no {what}, and {BROKER_PREFIX}CREATE is false: make it, or let us."
            )

    def _manager(self) -> JetStreamContext:
        return self._connected().jetstream(timeout=REQUEST_SECONDS)

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last message of a subject, from the stream's leader; None when there is none.

        Raises:
            BrokerAwayError: The broker can't be asked now.
        """
        question = json.dumps({"last_by_subj": subject}).encode()
        found = await self._ask("STREAM.MSG.GET", stream, body=question)
        if found is None:
            return None
        message = found["message"]
        about = await self._ask("STREAM.INFO", stream) or {}
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
        found = await self._ask("STREAM.MSG.GET", stream, body=json.dumps(question).encode())
        if found is None:
            return None
        message = found["message"]
        return StoredMessage(message["seq"], _body(message), 0.0)

    async def remove_message(self, stream: str, sequence: int) -> bool:
        """Remove a message of a stream. Returns whether it was there; raises what `purge` does."""
        question = json.dumps({"seq": sequence}).encode()
        try:
            found = await self._ask("STREAM.MSG.DELETE", stream, body=question)
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
        question = json.dumps({"keep": keep}).encode()
        found = await self._ask("STREAM.PURGE", stream, body=question)
        return 0 if found is None else int(found["purged"])

    async def stream_state(self, stream: str, *, subjects: str = "") -> StreamState | None:
        """Return what a stream has, or None when there is no such stream.

        Args:
            stream: The stream.
            subjects: Have the messages of these counted by subject.

        Raises:
            BrokerAwayError: The broker can't be asked now.
        """
        question = json.dumps({"subjects_filter": subjects}).encode() if subjects else b""
        found = await self._ask("STREAM.INFO", stream, body=question)
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

    async def _ask(self, what: str, *names: str, body: bytes = b"") -> dict[str, Any] | None:
        """Return what the broker says of a stream or a consumer; None when there is none.

        Asked directly, because the library's own classes leave out what they do not know.
        """
        subject = ".".join(("$JS.API", what, *names))
        try:
            answer = await self._connected().request(subject, body, timeout=REQUEST_SECONDS)
        except nats.errors.NoRespondersError:
            raise BrokerAwayError("it has no JetStream, or no leader now") from None
        except nats.errors.Error as error:
            raise BrokerAwayError(_why(error)) from None
        found: dict[str, Any] = json.loads(answer.data)
        if refusal := found.get("error"):
            if refusal.get("code") == _NOT_FOUND:
                return None
            raise BrokerAwayError(str(refusal.get("description")))
        return found


def _moment(text: str) -> float:
    """Return one of the broker's times in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def _body(message: Mapping[str, Any]) -> bytes:
    return base64.b64decode(message.get("data") or "")


async def _close(client: Client) -> None:
    with suppress(Exception):
        await client.close()


def _compare(what: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse a stream or a consumer that is not as it should be.

    Raises:
        ConfigurationError: It is not; the sentence says in what.
    """
    plain = {name: getattr(value, "value", value) for name, value in wanted.items()}
    # The broker leaves out what is zero or false.
    given = {name: value for name, value in plain.items() if value not in (None, -1)}
    there = {name: found.get(name, type(value)()) for name, value in given.items()}
    if found_differences := differences(given, there):
        raise ConfigurationError(
            f"The broker's {what} is not as it should be: {'; '.join(found_differences)}. Correct"
            " it there, or the settings here."
        )


def _of_api(error: nats.js.errors.APIError, what: str) -> RelayError:
    """Return the error to raise for an answer of the broker."""
    if error.code is not None and error.code >= 500:
        return BrokerAwayError(_why(error))
    return ConfigurationError(f"{what}: {error.description}.")


def _why(error: BaseException) -> str:
    """Return an error's text, without what only the library's authors understand."""
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "it does not answer in time"
    if isinstance(error, nats.js.errors.NoStreamResponseError | nats.errors.NoRespondersError):
        return "it has no stream, or no leader now"
    description = getattr(error, "description", None) or str(error) or type(error).__name__
    return str(description).removeprefix("nats: ")
