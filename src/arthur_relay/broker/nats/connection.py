"""The connection to the broker: made anew whenever it is lost, with all who listen."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import nats.errors
import nats.js.errors

from arthur_relay.broker.errors import BrokerAwayError, BrokerFullError
from arthur_relay.broker.nats.access import access_options
from arthur_relay.broker.nats.client import NatsClient
from arthur_relay.broker.nats.consumer import Consumer
from arthur_relay.broker.nats.reasons import is_forbidden, raise_of_opening, why
from arthur_relay.broker.packets import HEADER_BYTES
from arthur_relay.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nats.aio.msg import Msg

    from arthur_relay.broker.settings import BrokerSettings

logger = logging.getLogger("arthur_relay.broker")

OPEN_SECONDS: Final = 7.0
"""How long the first connection may take, all servers included."""

REQUEST_SECONDS: Final = 5.0
"""How long an answer may take."""

_FULL: Final = frozenset({10077, 10122})
"""The server's error codes for a stream, or the account's storage, that takes no more."""

_NOT_FOUND: Final = 404
_UNAVAILABLE: Final = 503

_NO_JETSTREAM: Final = frozenset({10039, 10076})
"""The same for a server, or an account, without JetStream."""

_FOR_NOW: Final = frozenset({10005, 10008, 10009, 10023})
"""The same for what is over once other servers of the cluster are there."""

NO_JETSTREAM: Final = (
    "JetStream is off at the broker, for its server or for our account: turn it on"
)


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
    _client: NatsClient | None = field(default=None, init=False)
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
        return "it is not connected yet" if self._last_error is None else why(self._last_error)

    @property
    def server_version(self) -> tuple[int, ...]:
        """The version of the server that we are connected to; () without one."""
        if self._client is None or not self._client.is_connected:
            return ()
        version = self._client.connected_server_version
        return version.major, version.minor, version.patch

    @property
    def server(self) -> str:
        """The same for people; "" without one."""
        return ".".join(map(str, self.server_version))

    @property
    def has_jetstream(self) -> bool:
        """Whether the server that we are connected to has JetStream itself."""
        return self._client is not None and self._client.has_jetstream

    @property
    def is_clustered(self) -> bool:
        """Whether the server that we are connected to belongs to a cluster."""
        return self._client is not None and self._client.is_clustered

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
        client = NatsClient()
        client.needs_tls = self.settings.uses_tls
        # The library tries for ever, because a connection that is lost should come back; the first
        # one is ours to give up, once each server was tried, and to say why.
        options = access_options(self.settings)
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
            raise_of_opening(connecting, self._last_error)
            for subject in self._listeners:
                await self._subscribe(client, subject)
        except BaseException:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await client.end()
            raise
        finally:
            giving_up.cancel()
        self._last_error = None
        self._changed.clear()
        self._client = client

    async def _connect(self, client: NatsClient, options: dict[str, Any]) -> None:
        await client.connect_as(
            self.settings.servers,
            self.name,
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
            await client.end()

    async def changed(self) -> None:
        """Wait until the connection was lost, made again, or given up, since the last call."""
        await self._changed.wait()
        self._changed.clear()

    def note_change(self) -> None:
        """Have `changed` return."""
        self._changed.set()

    async def listen(self, subject: str, on_message: Callable[[bytes], object]) -> None:
        """Have a function called with what is announced, from now on and in later connections.

        Raises:
            BrokerAwayError: The broker can't be asked now; it begins with the next connection.
        """
        self._listeners[subject] = on_message
        if self._client is not None:
            await self._subscribe(self._client, subject)

    async def publish(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        seconds: float = REQUEST_SECONDS,
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
            raise BrokerAwayError(why(error)) from None
        except nats.errors.Error as error:
            raise BrokerAwayError(why(error)) from None
        return bool(answer.duplicate)

    async def consumer(self, name: str) -> Consumer:
        """Return a consumer of rows, which has to exist.

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
            raise BrokerAwayError(why(error)) from None

    async def send(self, subject: str, body: bytes, *, reply: str = "") -> None:
        """Send a message and wait for nothing; while the connection is lost, it is sent later.

        Raises:
            BrokerAwayError: It can't be sent.
        """
        try:
            await self._connected().publish(subject, body, reply)
        except nats.errors.Error as error:
            raise BrokerAwayError(why(error)) from None

    async def ask(self, subject: str, body: bytes) -> bytes:
        """Send a message, and return the answer.

        Raises:
            BrokerAwayError: There is none in time.
        """
        try:
            answer = await self._connected().request(subject, body, timeout=REQUEST_SECONDS)
        except nats.errors.Error as error:
            raise BrokerAwayError(why(error)) from None
        return answer.data

    async def ask_api(
        self, question: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return JetStream's answer; None when there is no such stream, consumer or message.

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
            if self._errors > errors and last is not None and is_forbidden(last):
                raise ConfigurationError(
                    f"The broker's account does not let us do what we have to: {why(last)}."
                ) from None
            raise BrokerAwayError(why(error)) from None
        found: dict[str, Any] = json.loads(answer.data)
        refusal = found.get("error")
        if refusal is None:
            return found
        code, text = refusal.get("err_code"), str(refusal.get("description"))
        if code in _NO_JETSTREAM:
            raise ConfigurationError(f"{NO_JETSTREAM}.")
        if refusal.get("code") == _NOT_FOUND:
            return None
        if code in _FOR_NOW or refusal.get("code") == _UNAVAILABLE:
            raise BrokerAwayError(text)
        raise ConfigurationError(f"{text}.")

    async def _subscribe(self, client: NatsClient, subject: str) -> None:
        on_message = self._listeners[subject]

        async def on_announcement(message: Msg) -> None:
            on_message(message.data)

        try:
            await client.subscribe(subject, cb=on_announcement)
        except nats.errors.Error as error:
            raise BrokerAwayError(why(error)) from None

    def _connected(self) -> NatsClient:
        if self._client is None or self._client.is_closed:
            raise BrokerAwayError(self.trouble)
        return self._client

    async def _on_error(self, error: Exception) -> None:
        """Remember an error that the library meets in the background, and log a new one."""
        before, self._last_error = self._last_error, error
        self._errors += 1
        if self._client is None:
            # A server that refuses us closes the connection, and its refusal may be lost by that:
            # such an attempt says nothing, and the library makes another one.
            self._attempts += not isinstance(error, ConnectionResetError)
            if self._attempts >= len(self.settings.servers):
                self._gave_up.set()
        elif before is None or why(before) != why(error):
            logger.warning("the broker: %s", why(error))

    async def _on_change(self) -> None:
        self._changed.set()
