"""The connection to the broker: the one place that knows its client library.

All of it belongs to one event loop. What the library raises leaves this module as one of three
errors: the broker is away, it is full, or something about it has to be changed by a person.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from arthur_relay.broker.packets import HEADER_BYTES
from arthur_relay.broker.settings import BROKER_PREFIX
from arthur_relay.broker.topology import (
    DUPLICATE_WINDOW_SECONDS,
    FOREVER,
    consumers,
    differences,
    rows_stream,
    shared_bucket,
    shared_stream,
)
from arthur_relay.errors import ConfigurationError, RelayError, SettingsError

try:
    import nats.errors
    import nats.js.errors
    from nats.aio.client import Client
    from nats.js import api
    from nats.js.kv import KV_DEL, KV_OP, KV_PURGE, KeyValue
except ImportError:
    raise ConfigurationError(
        "A gateway and a worker need the client of the broker: pip install 'arthur-relay[nats]'."
    ) from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.broker.topology import ConsumerPlan, StreamPlan
    from arthur_relay.encoding.product import Product

logger = logging.getLogger("arthur_relay.broker")

OLDEST_SERVER: Final = (2, 14)

PING_SECONDS: Final = 2
PINGS_OUTSTANDING: Final = 2
"""A server that hangs is left after about six seconds; by the library's defaults, after minutes."""

CONNECT_SECONDS: Final = 5
OPEN_SECONDS: Final = 7.0
"""How long the first connection may take, all servers included."""

RECONNECT_SECONDS: Final = 1
REQUEST_SECONDS: Final = 5.0

WATCH_SECONDS: Final = 30.0
"""How often a watch reads all keys anew, in case a message about one was lost."""

_FULL: Final = frozenset({10077, 10122})
"""The server's error codes for a stream, or the account's storage, that takes no more."""

_NOT_FOUND: Final = 404


class BrokerAwayError(RelayError):
    """The broker did not answer, or has no leader now; trying again may work."""


class BrokerFullError(RelayError):
    """The broker takes no more rows until some are delivered."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a key of the fleet's bucket has.

    Attributes:
        key: The key.
        value: Its value; None when it was removed.
    """

    key: str
    value: bytes | None


@dataclass(slots=True, eq=False)
class Delivery:
    """A message that was handed out to us, until it is acknowledged or given back."""

    _message: Msg

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""
        return self._message.headers or {}

    @property
    def body(self) -> bytes:
        """Its body."""
        return self._message.data

    @property
    def sequence(self) -> int:
        """Its place in the stream."""
        return self._message.metadata.sequence.stream

    @property
    def times(self) -> int:
        """How often it was handed out, this time included."""
        return self._message.metadata.num_delivered

    async def acknowledge(self) -> None:
        """Have the broker forget it, and wait until it has.

        Raises:
            BrokerAwayError: It is not known whether it has.
        """
        try:
            await self._message.ack_sync(timeout=REQUEST_SECONDS)
        except nats.errors.Error as error:
            raise BrokerAwayError(_why(error)) from None

    async def give_back(self, delay_seconds: float = 0.0) -> None:
        """Have it handed out again, to anyone. Raises what `acknowledge` does."""
        try:
            await self._message.nak(delay_seconds or None)
        except nats.errors.Error as error:
            raise BrokerAwayError(_why(error)) from None

    async def keep(self) -> None:
        """Say that we still work on it. Raises what `acknowledge` does."""
        try:
            await self._message.in_progress()
        except nats.errors.Error as error:
            raise BrokerAwayError(_why(error)) from None


@dataclass(slots=True, eq=False)
class Consumer:
    """Hands out the messages of one consumer.

    Attributes:
        name: Its name.
    """

    name: str
    _subscription: JetStreamContext.PullSubscription

    async def pull(self, most: int, *, seconds: float) -> list[Delivery]:
        """Wait for messages. Returns some, or none when there are none in time.

        Raises:
            BrokerAwayError: The broker can't be asked now.
        """
        try:
            return [Delivery(each) for each in await self._subscription.fetch(most, seconds)]
        except TimeoutError:
            return []
        except nats.errors.Error as error:
            raise BrokerAwayError(_why(error)) from None


@dataclass(slots=True, eq=False)
class Connection:
    """A connection to the broker, made anew whenever it is lost.

    Args:
        settings: Where the broker is, and how rows are kept there.
        name: Says in the broker's own views who this is.

    Attributes:
        settings: As given.
        name: As given.
    """

    settings: BrokerSettings
    name: str
    _client: Client | None = field(default=None, init=False)
    _last_error: Exception | None = field(default=None, init=False)
    _watches: list[asyncio.Queue[Entry | None]] = field(default_factory=list, init=False)

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
                    disconnected_cb=self._on_change,
                    reconnected_cb=self._on_change,
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
            with suppress(Exception):
                await client.flush(1)
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
        self, subject: str, body: bytes, headers: Mapping[str, str], *, seconds: float
    ) -> bool:
        """Have the broker keep a message.

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
                subject, body, timeout=seconds, stream=self.settings.stream, headers=dict(headers)
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
        try:
            found = (
                await self._connected().jetstream().pull_subscribe_bind(name, self.settings.stream)
            )
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerAwayError(_why(error)) from None
        return Consumer(name, found)

    async def get(self, key: str) -> bytes | None:
        """Return the value of a key of the fleet's bucket, or None when it has none.

        Args:
            key: Letters, digits and `-`, `_`, `=`, `/`; parts are separated by dots.

        Raises:
            BrokerAwayError: The broker can't be asked now.
        """
        try:
            return (await self._bucket().get(key)).value
        except nats.js.errors.KeyNotFoundError:
            return None
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerAwayError(_why(error)) from None

    async def put(self, key: str, value: bytes) -> None:
        """Give a key of the fleet's bucket a value. As `get`."""
        try:
            await self._bucket().put(key, value)
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerAwayError(_why(error)) from None

    async def remove(self, key: str) -> None:
        """Take a key out of the fleet's bucket. As `get`."""
        try:
            await self._bucket().delete(key)
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerAwayError(_why(error)) from None

    async def watch(self, keys: str) -> AsyncIterator[Entry]:
        """Yield keys of the fleet's bucket with their values, then each change, without an end.

        A value may come more than once, and an older one after a newer one; the newest is the last.
        To be closed by its user (`contextlib.aclosing`).

        Args:
            keys: A key, or several: `*` stands for a part, `>` for the rest.

        Raises:
            BrokerAwayError: The connection is lost. A new watch begins with all values.
        """
        client = self._connected()
        prefix = f"$KV.{shared_bucket(self.settings.stream)}."
        changes: asyncio.Queue[Entry | None] = asyncio.Queue()

        async def on_message(message: Msg) -> None:
            operation = (message.headers or {}).get(KV_OP)
            value = None if operation in (KV_DEL, KV_PURGE) else message.data
            changes.put_nowait(Entry(message.subject.removeprefix(prefix), value))

        try:
            # Not by a consumer, which has to be made anew after this and that: what is published
            # to the stream of a bucket is published to all who listen.
            subscription = await client.subscribe(f"{prefix}{keys}", cb=on_message)
        except nats.errors.Error as error:
            raise BrokerAwayError(_why(error)) from None
        self._watches.append(changes)
        try:
            while True:
                for key in await self._keys(f"{prefix}{keys}", prefix):
                    yield Entry(key, await self.get(key))
                with suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_SECONDS):
                        while (entry := await changes.get()) is not None:
                            yield entry
                if not self.is_connected:
                    raise BrokerAwayError(self.trouble)
        finally:
            self._watches.remove(changes)
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _keys(self, subjects: str, prefix: str) -> list[str]:
        stream = shared_stream(self.settings).name
        found = await self._ask("STREAM.INFO", stream, body={"subjects_filter": subjects})
        subjects_found = (found or {}).get("state", {}).get("subjects") or {}
        return [each.removeprefix(prefix) for each in subjects_found]

    def _bucket(self) -> KeyValue:
        bucket = shared_bucket(self.settings.stream)
        return KeyValue(
            name=bucket,
            stream=shared_stream(self.settings).name,
            pre=f"$KV.{bucket}.",
            js=self._manager(),
            direct=False,
        )

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

    async def _on_change(self) -> None:
        """Have watches read everything anew: they may have missed something."""
        for changes in self._watches:
            changes.put_nowait(None)

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
            max_msgs_per_subject=plan.max_of_subject,
            allow_rollup_hdrs=not plan.is_queue,
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

    async def _ask(
        self, what: str, *names: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return what the broker says of a stream or a consumer; None when there is none.

        Asked directly, because the library's own classes leave out what they do not know.
        """
        subject = ".".join(("$JS.API", what, *names))
        try:
            question = b"" if body is None else json.dumps(body).encode()
            answer = await self._connected().request(subject, question, timeout=REQUEST_SECONDS)
        except nats.errors.NoRespondersError:
            raise BrokerAwayError("it has no JetStream, or no leader now") from None
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerAwayError(_why(error)) from None
        found: dict[str, Any] = json.loads(answer.data)
        if refusal := found.get("error"):
            if refusal.get("code") == _NOT_FOUND:
                return None
            raise BrokerAwayError(str(refusal.get("description")))
        return found


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
