"""The one seam to the HTTP library: a pooled client, and its errors as one of our own."""

from __future__ import annotations

import platform
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Self

import httpx

from arthur_relay import native
from arthur_relay.destinations import wire_logs
from arthur_relay.row import Batch

if TYPE_CHECKING:
    import ssl
    from types import TracebackType


KEEP_ALIVE_SECONDS = 60.0
"""How long an idle connection is kept; load balancers commonly cut them after as long."""


class TransportError(Exception):
    """No answer came; the text says why, without any content."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said. `headers` has lower-case names.

    Only the status is in its `repr()`: the cookies of a login are credentials.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    cookies: Mapping[str, str] = field(repr=False)


class HttpClient:
    """One pooled keep-alive client for one address. A cancellation leaves it usable.

    Args:
        base_url: What every path is appended to.
        connections: Connections at once, at most.
        verify_ssl: Whether certificates are checked.
        use_proxies: Whether the proxies of the environment are used.
        connect_timeout_seconds: How long connecting may take; the caller bounds the whole.
        unix_socket: The path of a Unix socket to connect to, whatever the address says.
    """

    def __init__(
        self,
        base_url: str,
        *,
        connections: int,
        verify_ssl: bool,
        use_proxies: bool,
        connect_timeout_seconds: float,
        unix_socket: str | None = None,
    ) -> None:
        self._base_url = base_url
        self._connections = connections
        self._connect_timeout = connect_timeout_seconds
        self._verify = verify_ssl
        self._use_proxies = use_proxies and unix_socket is None
        self._unix_socket = unix_socket
        self._client: httpx.AsyncClient | None = None
        self._parents: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Self:
        wire_logs.install()
        if self._client is not None:
            # It is that of the process which forked this one. Kept, so that nothing here ever
            # finds its connections unused and closes them.
            self._parents.append(self._client)
        limits = httpx.Limits(
            max_connections=self._connections,
            max_keepalive_connections=self._connections,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
        )
        transport = None
        if self._unix_socket is not None:
            transport = httpx.AsyncHTTPTransport(uds=self._unix_socket, limits=limits)
        self._client = httpx.AsyncClient(
            transport=transport,
            limits=limits,
            timeout=httpx.Timeout(None, connect=self._connect_timeout),
            verify=self._trust(),
            trust_env=self._use_proxies,
            headers={"User-Agent": user_agent(), "Accept": "application/json"},
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            with wire_logs.unlogged():
                await client.aclose()

    def _trust(self) -> ssl.SSLContext | bool:
        """Return which certificates are trusted: those of the environment, proxies or none."""
        if not self._base_url.startswith("https://"):
            return self._verify
        return httpx.create_ssl_context(verify=self._verify, trust_env=True)

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | Batch | None = None,
    ) -> Answer:
        """Make one request; redirects are answers.

        Raises:
            TransportError: No whole answer came.
        """
        assert self._client is not None, "the client is used outside of its context"
        sent = dict(headers or {})
        if content is not None:
            sent["Content-Type"] = "application/json"
        if isinstance(content, Batch):
            # With its length httpx sends the parts as they are, not in the chunked encoding.
            sent["Content-Length"] = str(content.size)
        body = _parts_of(content) if isinstance(content, Batch) else content
        try:
            with wire_logs.unlogged():
                response = await self._client.request(
                    method, self._base_url + path, headers=sent, content=body
                )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TransportError(_explain(error)) from error
        finally:
            # Arthur sends the token as a cookie too; we say who we are by header only.
            self._client.cookies.clear()
        return Answer(
            response.status_code,
            {name.lower(): value for name, value in response.headers.items()},
            response.content,
            {cookie.name: cookie.value or "" for cookie in response.cookies.jar},
        )


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
        # Trio wants of sockets what those of eventlet have not. Without it httpcore does.
        sys.modules["trio"] = None  # type: ignore[assignment] # the documented way to forbid it
        try:
            import httpcore  # noqa: F401, PLC0415 - see above
        finally:
            del sys.modules["trio"]
    # It looks whether an idle connection was closed, without a wait, which the library makes one.
    sys.modules["httpcore._utils"].__dict__["select"] = native.select


def user_agent() -> str:
    """Return how we name ourselves, in the form that Arthur's SDK uses."""
    try:
        number = version("arthur-relay")
    except PackageNotFoundError:  # run from a source tree that is not installed
        number = "0"
    return f"arthur-relay/{number} (system={platform.system()})"


def _explain(error: Exception) -> str:
    match error:
        case httpx.ConnectTimeout():
            return "connecting took too long"
        case httpx.ConnectError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return (
                f"its certificate is not trusted ({error}); SSL_CERT_FILE names a file with those"
                " of your authorities, and VERIFY_SSL=false trusts any"
            )
        case httpx.ConnectError():
            return f"can't connect ({error})" if str(error) else "can't connect"
        case httpx.RemoteProtocolError() | httpx.ReadError():
            return "the connection was cut"
        case _:
            return f"transport error ({type(error).__name__})"
