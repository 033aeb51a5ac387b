"""One run of the server: a thread, from the socket it listens on to its last request."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import TYPE_CHECKING, Final

from arthur_relay.http_server.admission import AdmitAll
from arthur_relay.http_server.options import ServerOptions
from arthur_relay.http_server.server import HttpServer
from arthur_relay.sandbox.app import build_app
from arthur_relay.sandbox.ticks import Ticks

if TYPE_CHECKING:
    from arthur_relay.sandbox.core import Core

# How long requests that are being answered may take to end when the server stops.
_GRACE_SECONDS: Final = 1.0
_START_SECONDS: Final = 30.0
_BACKLOG: Final = 2048  # uvicorn's

_OPTIONS: Final = ServerOptions(
    logger=logging.getLogger("arthur_relay.sandbox.connections"),
    keep_alive_seconds=5,  # uvicorn's
    # A client that gives up is seen at once, so that the wait for it in a fault ends.
    answers_half_closed=False,
    access_log=True,
    date_header=True,
)


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
        self._core = core
        self._stopping = Ticks()
        self._listener = listener
        self._up = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="arthur-sandbox", daemon=True)

    def start(self) -> None:
        """Start the thread and return when it listens.

        Raises:
            RuntimeError: it does not come up.
        """
        self._thread.start()
        if not self._up.wait(_START_SECONDS) or self._failure is not None:
            self.stop()
            raise RuntimeError("the sandbox's server did not come up") from self._failure

    def stop(self) -> None:
        """End what runs, within three times the grace, and return when the thread is done."""
        self._stopping.advance()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._failure = error
        finally:
            self._up.set()
            self.ended.set()

    async def _serve(self) -> None:
        app = build_app(self._core, self._stopping)
        server = HttpServer(app, [self._listener], options=_OPTIONS, admission=AdmitAll())
        self._listener.listen(_BACKLOG)
        server.start()
        self._up.set()
        await self._stopping.wait_past(0)
        server.stop_accepting()
        await server.finish(_GRACE_SECONDS, after_cut_seconds=_GRACE_SECONDS)
