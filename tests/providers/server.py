"""One server for all wire formats, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from .wire import Wire


class Server:
    """Serves wire formats while inside of the `with` block, each at `/<its name>/…`.

    Args:
        wires: The formats.
    """

    def __init__(self, wires: Iterable[Wire]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        routes = [Mount(f"/{wire.name}", routes=wire.routes()) for wire in wires]
        self._up = threading.Event()
        self._server = uvicorn.Server(
            uvicorn.Config(
                Starlette(routes=routes),
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                log_level=None,
                access_log=False,
                # A connection that was kept would outlive the loop of the test that opened it.
                headers=[("connection", "close")],
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._run, name="providers", daemon=True)

    def url(self, wire: Wire) -> str:
        """Return where a format is spoken, without a slash at the end."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/{wire.name}"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._up.wait(30):
            raise TimeoutError("the providers' server has not started")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._listener.close()

    def _run(self) -> None:
        async def main() -> None:
            asyncio.get_running_loop().call_soon(self._up.set)
            await self._server.serve(sockets=[self._listener])

        asyncio.run(main())
