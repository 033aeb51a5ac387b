"""One run of the server: uvicorn in a thread, from the socket it listens on to its last request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Final

import uvicorn

from arthur_relay.sandbox.app import build_app
from arthur_relay.sandbox.gate import CuttableProtocol
from arthur_relay.sandbox.ticks import Ticks

if TYPE_CHECKING:
    from arthur_relay.sandbox.core import Core

# How long requests that are being answered may take to end when the server stops.
_GRACE_SECONDS: Final = 1.0
_START_SECONDS: Final = 30.0


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds an address, and refuses connections until it is listened on."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"can't listen on {host}:{port}: {error.strerror}") from error
    return bound


class Running:
    """A server in its own thread and loop.

    Args:
        core: What it serves.
        listener: The bound socket that it listens on, and closes.

    Attributes:
        ended: Set when the thread is done, or when somebody wants `ArthurSandbox.wait` to return.
    """

    def __init__(self, core: Core, listener: socket.socket) -> None:
        self.ended = threading.Event()
        self._stopping = Ticks()
        self._listener = listener
        # Without log_config and log_level uvicorn leaves the process's logging alone.
        config = uvicorn.Config(
            build_app(core, self._stopping),
            http=CuttableProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level=None,
            proxy_headers=False,
            server_header=False,
        )
        self._server = _Server(config, self._stopping)
        self._thread = threading.Thread(target=self._run, name="arthur-sandbox", daemon=True)

    def start(self) -> None:
        """Start the thread and return when it listens.

        Raises:
            RuntimeError: it does not come up.
        """
        self._thread.start()
        up = self._server.up.wait(_START_SECONDS)
        if not up or not self._server.started:
            self.stop()
            raise RuntimeError("the sandbox's server did not come up")

    def stop(self) -> None:
        """End what runs, within twice the grace, and return when the thread is done."""
        self._stopping.advance()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._server.serve(sockets=[self._listener]))
        finally:
            self._server.up.set()
            self.ended.set()


class _Server(uvicorn.Server):
    """uvicorn's server, which stops at once when told to, and lets nobody keep it from it."""

    def __init__(self, config: uvicorn.Config, stopping: Ticks) -> None:
        super().__init__(config)
        self.up = threading.Event()
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def main_loop(self) -> None:
        while not self._stopping.count and not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait_past(0), 1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        for listener in sockets or ():
            loop.remove_reader(listener)
        # What was accepted a moment ago is not among the connections yet: its task makes it so, but
        # not once the server is closed (`Server._attach`), when asyncio leaves its socket open.
        if others := asyncio.all_tasks() - {asyncio.current_task()} - self.server_state.tasks:
            await asyncio.wait(others, timeout=_GRACE_SECONDS)
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=_GRACE_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=_GRACE_SECONDS)
        for server in self.servers:
            await server.wait_closed()
        await asyncio.sleep(0)  # a transport closes its socket in the next turn of the loop
