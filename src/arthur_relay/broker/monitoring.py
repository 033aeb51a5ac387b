"""A server's monitoring port: whether it writes rows to its disk before it acknowledges them."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

from arthur_relay.broker.settings import BROKER_PREFIX
from arthur_relay.errors import ConfigurationError, RelayError

if TYPE_CHECKING:
    from collections.abc import Sequence

ANSWER_SECONDS: Final = 2.0

MOST_BYTES: Final = 1 << 20
"""More than a server says of itself."""


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


def _syncs_always(url: SplitResult) -> bool:
    """Return whether one does. Blocks."""
    try:
        answer = _varz(url)
        return bool(answer["jetstream"]["config"].get("sync_always"))
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        reason = "that is no server of NATS with JetStream"
    raise NoMonitoringError(
        f"{BROKER_PREFIX}MONITORING_URL ({_shown(url)}) can't be asked: {reason}"
    )


def _varz(url: SplitResult) -> Any:
    host, port = url.hostname or "", url.port
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            host, port, timeout=ANSWER_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, port or 8222, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", f"{url.path.rstrip('/')}/varz")
        return json.loads(connection.getresponse().read(MOST_BYTES))
    finally:
        connection.close()


def _shown(url: SplitResult) -> str:
    """Return an address without what may be secret in it."""
    return f"{url.scheme}://{url.hostname}" + (f":{url.port}" if url.port else "")
