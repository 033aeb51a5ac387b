"""The one seam to the HTTP library: a pooled client, whose errors become one of our own."""

from __future__ import annotations

import asyncio
import platform
import random
import re
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import anyio
import httpx

from arthur_relay.credentials import is_loopback, socket_path
from arthur_relay.destinations import http_logging, pools
from arthur_relay.destinations.bodies import UnreadableError, decode, read
from arthur_relay.destinations.proxies import route_to
from arthur_relay.destinations.trust import ClientCertificate, Trust
from arthur_relay.row import Batch
from arthur_relay.sentences import named, no_answer_within
from arthur_relay.settings import MOST_HANGING, RelaySettings
from arthur_relay.system import native
from arthur_relay.system.log_once import LogOnce
from arthur_relay.system.worker_logs import WorkerLogger

if TYPE_CHECKING:
    from types import TracebackType


logger = WorkerLogger("arthur_relay.delivery")


class TransportError(Exception):
    """No answer came; the text says why, without any content.

    Attributes:
        may_have_arrived: Whether the request may have been carried out all the same.
    """

    def __init__(self, message: str, *, may_have_arrived: bool) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server returned. `headers` has lower-case names.

    `repr()` shows only the status: the cookies of a login are credentials.

    Attributes:
        problem: Why the body could not be read, in a few words, or "". `body` is empty then.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    cookies: Mapping[str, str] = field(repr=False)
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """How a destination is connected to, and waited for.

    Attributes:
        connections: Connections at once, at most.
        timeout_seconds: How long one request may take, from connecting to the answer's end.
        max_age_seconds: For how long new requests are made with a connection.
        retry_after_max_seconds: The longest `Retry-After` that is believed.
        certificate: What we show where TLS asks for a certificate of ours, or None.
    """

    connections: int
    timeout_seconds: float
    max_age_seconds: float
    retry_after_max_seconds: float
    certificate: ClientCertificate | None = None

    @classmethod
    def of(cls, settings: RelaySettings) -> Self:
        """Return what the settings ask for.

        Raises:
            SettingsError: The settings name the key of a client certificate, and not the
                certificate.
        """
        return cls(
            connections=settings.max_in_flight + MOST_HANGING + 1,
            timeout_seconds=settings.request_timeout_seconds,
            max_age_seconds=settings.connection_max_age_seconds,
            retry_after_max_seconds=settings.retry_after_max_seconds,
            certificate=ClientCertificate.of(settings),
        )


class HttpClient:
    """Keep-alive connections to one address. A cancellation leaves it usable.

    Args:
        url: The address, checked, which may be a Unix socket's; see `credentials.check_url`.
        path: The path of its API, to which the path of every request is appended.
        verify_ssl: Whether certificates are checked.
        options: How it is connected to.
    """

    def __init__(self, url: str, *, path: str = "", verify_ssl: bool, options: HttpOptions) -> None:
        self._unix_socket = socket_path(url)
        self._base_url = (url if self._unix_socket is None else "http://localhost") + path
        self._connections = options.connections
        self._timeout = options.timeout_seconds
        has_tls = self._base_url.startswith("https://")
        self._trust = Trust(verify=verify_ssl, ours=options.certificate) if has_tls else None
        # A proxy can't reach what is on this machine.
        is_local = self._unix_socket is not None or is_loopback(urlsplit(url).hostname or "")
        self._use_proxies = not is_local
        self._once = LogOnce()
        self._pools = pools.Pools(
            self,
            max_age_seconds=options.max_age_seconds,
            random=random,
            clock=pools.AwakeAndAsleep(),
        )

    async def __aenter__(self) -> Self:
        http_logging.install()
        self._pools.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._pools.leave()

    def renew(self) -> None:
        """Use new connections from the next request on. Loop's thread only."""
        self._pools.give_up()

    def make_client(self) -> httpx.AsyncClient:
        """Make a client.

        Raises:
            ConfigurationError: The trusted authorities, or our certificate, can't be loaded.
        """
        limits = httpx.Limits(
            max_connections=self._connections,
            max_keepalive_connections=self._connections,
            keepalive_expiry=pools.KEEP_ALIVE_SECONDS,
        )
        transport = proxy = None
        if self._unix_socket is not None:
            transport = httpx.AsyncHTTPTransport(uds=self._unix_socket, limits=limits)
        elif self._use_proxies:
            route = route_to(self._base_url)
            proxy = route.proxy
            self._warn(route.problems)
        return httpx.AsyncClient(
            transport=transport,
            proxy=proxy,
            limits=limits,
            timeout=httpx.Timeout(None, connect=self._timeout),
            verify=self._trust.context() if self._trust is not None else False,
            trust_env=False,
            headers={
                "User-Agent": user_agent(),
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
        )

    def _warn(self, problems: Iterable[str]) -> None:
        for problem in problems:
            if self._once.is_first(problem):
                logger.warning("arthur-relay: %s", problem)

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | Batch | None = None,
    ) -> Answer:
        """Make one request. A redirect is returned like any other answer.

        Content is JSON unless the headers name another type.

        Whatever is raised in it counts as a failed attempt, unknown errors too: the libraries below
        do not map all errors of a broken connection or of TLS, and an application's tests may put
        something of their own in place of the network.

        Raises:
            TransportError: No complete answer came.
        """
        sent = dict(headers or {})
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        if isinstance(content, Batch):
            # With its length httpx sends the parts as they are, not in the chunked encoding.
            sent["Content-Length"] = str(content.size)
        body = _parts_of(content) if isinstance(content, Batch) else content
        try:
            await self._pools.tidy()
            pool = self._pools.take()
            try:
                answer = await self._exchange(pool.client, method, path, headers=sent, content=body)
            except BaseException as error:
                self._look_after(pool, error)
                raise
            else:
                pool.answers += 1
                if 400 <= answer.status < 500:  # it may mean that another certificate is wanted
                    self._look_at_trust(pool)
                return answer
            finally:
                self._pools.put_back(pool)
                # Arthur sends the token as a cookie too; we send it in a header only.
                pool.client.cookies.clear()
        except (GeneratorExit, anyio.get_cancelled_exc_class()) as error:
            if _is_cancelled(error):
                raise
            raise _transport_error(error) from error
        except TransportError:
            raise
        except BaseException as error:
            raise _transport_error(error) from error

    async def _exchange(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        content: bytes | AsyncIterator[bytes] | None,
    ) -> Answer:
        """Make a request.

        Raises:
            TransportError: It took too long.
            BaseException: Whatever the libraries raise.
        """
        with anyio.move_on_after(self._timeout), http_logging.unlogged():
            request = client.build_request(
                method, self._base_url + path, headers=headers, content=content
            )
            response = await client.send(request, stream=True, follow_redirects=False)
            try:
                return await _answer(response)
            finally:
                await response.aclose()
        raise TransportError(no_answer_within(self._timeout), may_have_arrived=True)

    def _look_after(self, pool: pools.Pool, error: BaseException) -> None:
        """Give up a pool after an error that means that its idle connections may be dead."""
        has_connected = not (isinstance(error, httpx.ConnectError) or _is_untrusted(error))
        if has_connected and pool.answers:
            self._pools.give_up(pool)
        else:
            self._look_at_trust(pool)

    def _look_at_trust(self, pool: pools.Pool) -> None:
        """Give up a pool if there are newer certificates than those that it was made with."""
        if self._trust is not None and self._trust.has_changed:
            self._pools.give_up(pool)


async def _answer(response: httpx.Response) -> Answer:
    """Read an answer.

    Raises:
        BaseException: It breaks off.
    """
    problem = ""
    body = b""
    try:
        try:
            body = response.content  # a mock library made the answer as a whole
        except httpx.ResponseNotRead:
            encodings = response.headers.get("content-encoding", "").split(",")
            body = decode(await read(response.aiter_raw()), encodings)
    except UnreadableError as error:
        problem = str(error)
    if not isinstance(body, bytes):
        raise TypeError("an answer of something that is no server")
    return Answer(
        int(response.status_code),
        {name.lower(): value for name, value in response.headers.items()},
        body,
        {cookie.name: cookie.value or "" for cookie in response.cookies.jar},
        problem,
    )


def _is_cancelled(error: BaseException) -> bool:
    """Return whether this task is cancelled; the request may also have ended in a cancellation.

    If that were raised, it would end the worker: a task group takes it for its own.
    """
    if isinstance(error, GeneratorExit) or anyio.current_effective_deadline() == float("-inf"):
        return True
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no asyncio: there a cancellation is always the task's
        return True
    return task is None or task.cancelling() > 0


async def _parts_of(batch: Batch) -> AsyncIterator[bytes]:
    for part in batch.chunks():
        yield part


def import_client() -> None:
    """Import what a client imports when it is first used.

    Under gevent and eventlet not every module can be imported by a thread of our own: trio, which
    httpcore imports where it is installed, starts a process, and with eventlet it fails.
    """
    try:
        import httpcore  # noqa: PLC0415 - see above
    except AttributeError:
        # Trio needs features that eventlet's sockets do not have; httpcore works without trio.
        sys.modules["trio"] = None  # type: ignore[assignment] # the documented way to forbid it
        try:
            import httpcore  # noqa: F401, PLC0415 - see above
        finally:
            del sys.modules["trio"]
    # httpcore polls idle connections with a select that does not wait; a patched one may.
    sys.modules["httpcore._utils"].__dict__["select"] = native.select


def user_agent() -> str:
    """Return our `User-Agent`, in the form that Arthur's SDK uses."""
    try:
        number = version("arthur-relay")
    except PackageNotFoundError:  # run from a source tree that is not installed
        number = "0"
    return f"arthur-relay/{number} (system={platform.system()})"


def retry_after_seconds(header: str | None, *, now: datetime, maximum: float) -> float | None:
    """Read a `Retry-After` header (RFC 9110, 10.2.3): seconds, or an HTTP date.

    Args:
        header: The header's value, or None when there was none.
        now: The wall clock, timezone-aware.
        maximum: Longer waits are cut to this: an absurd header must not stop delivery forever.

    Returns:
        Seconds to wait, 0..maximum, or None when there is no header or it is not valid.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        # A number of any length is allowed; a float takes it without an error up to 308 digits.
        return min(float(text[:300]), maximum)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), maximum)


def _transport_error(error: BaseException) -> TransportError:
    kinds = httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError
    has_connected = not (isinstance(error, kinds) or _is_untrusted(error))
    return TransportError(_explain(error), may_have_arrived=has_connected)


def _is_untrusted(error: BaseException) -> bool:
    """Return whether the server's certificate is the reason; httpcore 1.0.0 raises `ssl` errors."""
    kinds = httpx.ConnectError | ssl.SSLError
    return isinstance(error, kinds) and "CERTIFICATE_VERIFY_FAILED" in str(error)


_CERTIFICATE_REFUSED = re.compile(
    r"\[SSL: \w+_ALERT_((?:NO|BAD|UNSUPPORTED)_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA)\]"
)
"""The alerts (RFC 8446, 6.2) with which a server refuses our certificate, as OpenSSL names them."""


def _explain(error: BaseException) -> str:  # noqa: PLR0911 - one for each kind
    match error:
        case httpx.ConnectTimeout():
            return f"connecting took longer than {named('request_timeout_seconds')} allows"
        case _ if _is_untrusted(error):
            return (
                f"its certificate is not trusted ({error}); SSL_CERT_FILE names a file with those"
                " of your authorities, and VERIFY_SSL=false trusts any"
            )
        case _ if refusal := _CERTIFICATE_REFUSED.search(str(error)):
            return (
                f"it did not take a client certificate ({refusal[1]});"
                " ARTHUR_RELAY_CLIENT_CERT_FILE names a file with ours"
            )
        case httpx.ConnectError():
            return _not_connected(error)
        case httpx.ProxyError():
            status = re.match(r"\d{3}\b", str(error))
            return f"the proxy refused to connect{f' ({status[0]})' if status else ''}"
        case httpx.RemoteProtocolError() | httpx.ReadError() | httpx.WriteError():
            return "the connection was cut"
        case ssl.SSLError():
            return _tls_failed(error)
        case OSError() | anyio.BrokenResourceError() | anyio.ClosedResourceError():
            return f"the connection was cut ({type(error).__name__})"
        case _:
            return f"transport error ({type(error).__name__})"


def _not_connected(error: httpx.ConnectError) -> str:
    """Say why there is no connection, from the first error of the system that it was made of."""
    for cause in _causes(error):
        match cause:
            case ssl.SSLError():
                return _tls_failed(cause)
            case socket.gaierror():
                return f"its name can't be resolved: {cause.strerror or cause}"
            case ConnectionRefusedError():
                return "the connection was refused"
            case FileNotFoundError():
                return "there is no such socket"
            case OSError() if cause.strerror:
                return f"can't connect: {cause.strerror}"
    return f"can't connect: {error}" if str(error) else "can't connect"


def _tls_failed(error: ssl.SSLError) -> str:
    return f"TLS failed: {getattr(error, 'reason', '') or type(error).__name__}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what led to an error, its own kind first; several attempts failed in a group."""
    waiting: list[BaseException | None] = [error.__cause__ or error.__context__]
    seen = {id(error)}  # causes can form a circle
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting.append(found.__cause__ or found.__context__)
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions
