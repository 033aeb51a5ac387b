"""A server's monitoring port: whether it syncs each write, and what its own copies of rows are."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

from arthur_relay.broker.settings import BROKER_PREFIX
from arthur_relay.errors import ConfigurationError, RelayError

if TYPE_CHECKING:
    from collections.abc import Sequence

ANSWER_SECONDS: Final = 2.0

MOST_BYTES: Final = 8 << 20
"""More than a server says of itself, and of some thousands of streams."""


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What a server says of itself.

    Attributes:
        name: Its name.
        syncs_always: Whether it writes rows to its disk before it acknowledges them.
        packets: The packets in its own copy of the stream; None where it has no copy.
    """

    name: str
    syncs_always: bool
    packets: int | None


class NoMonitoringError(RelayError):
    """The monitoring port does not answer, or not as a server of NATS does."""


async def check_sync(urls: Sequence[str]) -> None:
    """Refuse servers that acknowledge rows before they are on their disks.

    Args:
        urls: The addresses of their monitoring ports.

    Raises:
        NoMonitoringError: One can't be asked, and none that can is to be refused.
        ConfigurationError: The `sync_interval` of one is not `always`.
    """
    found = await asyncio.gather(
        *(asyncio.to_thread(_syncs_always, urlsplit(each)) for each in urls),
        return_exceptions=True,
    )
    for url, each in zip(urls, found, strict=True):
        if each is False:
            raise ConfigurationError(
                "The broker acknowledges rows minutes before they are on its disks: set"
                f" `sync_interval: always` in the jetstream block of {_shown(urlsplit(url))}, and"
                " of the other servers."
            )
    for each in found:
        if isinstance(each, BaseException):
            raise each


async def read_servers(urls: Sequence[str], stream: str, created: str) -> list[ServerReport]:
    """Return what servers say of themselves; those that can't be asked are left out.

    Args:
        urls: The addresses of their monitoring ports.
        stream: The stream of rows.
        created: When it was made, as the broker says. Another account's may have the same name.
    """
    found = await asyncio.gather(
        *(asyncio.to_thread(_report, urlsplit(each), stream, created) for each in urls),
        return_exceptions=True,
    )
    return [each for each in found if isinstance(each, ServerReport)]


def _syncs_always(url: SplitResult) -> bool:
    """Return whether one does. Blocks.

    Raises:
        NoMonitoringError: It can't be asked.
    """
    try:
        with closing(_connect(url)) as connection:
            return _is_sync_always(_ask(connection, url, "varz"))
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        reason = "that is no server of NATS with JetStream"
    raise NoMonitoringError(
        f"{BROKER_PREFIX}MONITORING_URL ({_shown(url)}) can't be asked: {reason}"
    )


def _report(url: SplitResult, stream: str, created: str) -> ServerReport:
    """Return what one says of itself. Blocks; raises anything when it can't be asked."""
    with closing(_connect(url)) as connection:
        itself = _ask(connection, url, "varz")
        streams = _ask(connection, url, "jsz?accounts=true&streams=true")
    copies = (
        each["state"]["messages"]
        for account in streams.get("account_details") or ()
        for each in account.get("stream_detail") or ()
        if (each["name"], each["created"]) == (stream, created)
    )
    return ServerReport(
        name=itself["server_name"],
        syncs_always=_is_sync_always(itself),
        packets=next(copies, None),
    )


def _is_sync_always(itself: Any) -> bool:
    return bool(itself["jetstream"]["config"].get("sync_always"))


def _connect(url: SplitResult) -> http.client.HTTPConnection:
    host, port = url.hostname or "", url.port
    if url.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=ANSWER_SECONDS, context=context)
    return http.client.HTTPConnection(host, port or 8222, timeout=ANSWER_SECONDS)


def _ask(connection: http.client.HTTPConnection, url: SplitResult, question: str) -> Any:
    connection.request("GET", f"{url.path.rstrip('/')}/{question}")
    return json.loads(connection.getresponse().read(MOST_BYTES))


def _shown(url: SplitResult) -> str:
    """Return an address without what may be secret in it."""
    return f"{url.scheme}://{url.hostname}" + (f":{url.port}" if url.port else "")
