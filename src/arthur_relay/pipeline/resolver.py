"""An event loop that looks up host names without asyncio's thread pool.

The pool takes no work once the interpreter shuts down: a relay that has to connect while the
process exits would lose everything. So names are looked up by a thread that was started before.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from arthur_relay.pipeline.side_thread import SideThread

AddressInfo = list[tuple[Any, ...]]


class RelayLoop(asyncio.SelectorEventLoop):
    """An event loop that has names looked up by a thread of ours.

    Args:
        thread: What looks them up.
        lookup: How.
    """

    def __init__(
        self, thread: SideThread, lookup: Callable[..., AddressInfo] = socket.getaddrinfo
    ) -> None:
        super().__init__()
        self._arthur_relay_thread = thread
        self._arthur_relay_lookup = lookup

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the base class's name
        proto: int = 0,
        flags: int = 0,
    ) -> AddressInfo:
        """Look up a name, without the loop's thread pool; raises what `socket.getaddrinfo` does."""
        return await self._arthur_relay_thread.call(
            self._arthur_relay_lookup, host, port, family, type, proto, flags
        )
