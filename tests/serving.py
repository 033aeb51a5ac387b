"""An ASGI application, served on loopback by a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

import uvicorn

from arthur_relay.system.clocks import monotonic

if TYPE_CHECKING:
    from types import TracebackType

SECONDS = 30.0
"""How long the start and the end may take."""


class _Loop(asyncio.SelectorEventLoop):
    """A loop for the whole run, with a clock that no test can freeze.

    A timer that is set while time is frozen at a later date would never be due again: the server
    would not see that it has to end.
    """

    def time(self) -> float:
        return monotonic()


class Serving:
    """Serves an application while inside of the `with` block.

    Args:
        application: The application.
        name: The thread's name.

    Attributes:
        loop: What it runs on, once it does.
    """

    def __init__(self, application: Any, name: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._up = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
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
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(SECONDS), f"{self._thread.name} has not started"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(SECONDS)
        self._listener.close()
        assert not self._thread.is_alive(), f"{self._thread.name} has not ended"

    def _run(self) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            self.loop.call_soon(self._up.set)
            await self._server.serve(sockets=[self._listener])

        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(main())
