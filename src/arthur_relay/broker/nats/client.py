"""The library's client, with what it lacks: all that it does ends, when it is to."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import nats.errors
from nats.aio.client import Client

PING_SECONDS: Final = 2
PINGS_OUTSTANDING: Final = 2
"""A server that hangs is left after about six seconds; by the library's defaults, after minutes."""

CONNECT_SECONDS: Final = 5

CLOSE_SECONDS: Final = 2.0
"""How long the end may take: the library waits for the other end without one."""

RECONNECT_SECONDS: Final = 1


class NatsClient(Client):
    """The library's client, which would do without TLS where the server does not ask for it."""

    needs_tls = False

    @property
    def has_jetstream(self) -> bool:
        """Whether the server that we are connected to has JetStream."""
        return bool(self._server_info.get("jetstream"))

    @property
    def is_clustered(self) -> bool:
        """Whether the server that we are connected to belongs to a cluster."""
        return bool(self._server_info.get("cluster"))

    async def connect_as(self, servers: list[str], name: str, **options: Any) -> None:
        """Connect, and connect again for ever. Raises the library's errors."""
        await self.connect(
            servers,
            name=name,
            connect_timeout=CONNECT_SECONDS,
            reconnect_time_wait=RECONNECT_SECONDS,
            max_reconnect_attempts=-1,
            allow_reconnect=True,
            ping_interval=PING_SECONDS,
            max_outstanding_pings=PINGS_OUTSTANDING,
            **options,
        )

    async def end(self) -> None:
        """Send what was written, and disconnect. Never raises."""
        # In a task, because the library passes over a cancellation while it reconnects, and goes
        # on. `close` sends what was written: `flush` before it could hang, and once it is
        # cancelled, the library's reader dies of the answer.
        closing = asyncio.create_task(self.close())
        for _ in range(2):
            await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
            if closing.done():
                break
            closing.cancel()
        if closing.done() and not closing.cancelled():
            closing.exception()  # which nobody needs

    async def _flush_pending(self, force_flush: bool = False) -> Any:  # noqa: FBT001, FBT002 - the library's
        # The library passes over a cancellation while it waits to be able to write: a request to a
        # server that hangs would miss the end of its time. Its own end does well to go on.
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        found = await super()._flush_pending(force_flush)
        if task is not None and task.cancelling() > before and not self.is_closed:
            raise asyncio.CancelledError
        return found

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's
        if initial_connection and self.needs_tls and not info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        await super()._process_info(info, initial_connection)
