"""An event loop that looks up host names without asyncio's thread pool, and uses real sockets.

The pool takes no work once the interpreter shuts down, so a relay that has to connect while the
process exits would lose everything. A thread that was started earlier looks the names up instead.

gevent and eventlet run a loop of their own in each thread, and their sockets belong to it. In our
thread it never runs, so such a socket would not even be closed. This loop opens real sockets.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from arthur_relay.runtime.daemon_thread_executor import DaemonThreadExecutor
from arthur_relay.system import native
from arthur_relay.system.clocks import monotonic
from arthur_relay.system.operating_system import AF_UNIX

AddressInfo = list[tuple[Any, ...]]


class RelayEventLoop(asyncio.SelectorEventLoop):
    """An event loop that looks host names up in one of our threads.

    Args:
        thread: The thread; started.
        lookup: The function that looks a name up.
    """

    def __init__(
        self, thread: DaemonThreadExecutor, lookup: Callable[..., AddressInfo] = native.getaddrinfo
    ) -> None:
        super().__init__(native.DefaultSelector())
        self._arthur_relay_thread = thread
        self._arthur_relay_lookup = lookup

    def time(self) -> float:
        """Return the loop's time, which goes on while an application's test has frozen time."""
        return monotonic()

    # A private method of the base class, unknown to mypy; a test checks that it is overridden.
    if not TYPE_CHECKING:

        def _make_self_pipe(self) -> None:
            """Make the sockets that wake the loop, as the base class does, but real ones."""
            if not native.is_patched():
                super()._make_self_pipe()
                return
            self._ssock, self._csock = native.socketpair()
            self._ssock.settimeout(0.0)
            self._csock.settimeout(0.0)
            self._internal_fds += 1
            self._add_reader(self._ssock.fileno(), self._read_from_self)

    async def create_connection(self, *arguments: Any, **options: Any) -> Any:
        """Connect by TCP as the base class does, but by a real socket."""
        if not native.is_patched() or options.get("sock") is not None:
            return await super().create_connection(*arguments, **options)
        factory, host, port = (*arguments, None, None)[:3]
        host, port = options.pop("host", host), options.pop("port", port)
        sock = await self._connected(host, port, options.pop("local_addr", None))
        try:
            return await super().create_connection(factory, sock=sock, **options)
        except BaseException:
            sock.close()
            raise

    async def create_unix_connection(self, *arguments: Any, **options: Any) -> Any:
        """Connect by a Unix socket as the base class does, but by a real one."""
        if not native.is_patched() or options.get("sock") is not None:
            return await super().create_unix_connection(*arguments, **options)
        factory, path = (*arguments, None)[:2]
        path = options.pop("path", path)
        sock = await self._opened(AF_UNIX, socket.SOCK_STREAM, 0, path)
        try:
            return await super().create_unix_connection(factory, sock=sock, **options)
        except BaseException:
            sock.close()
            raise

    async def _connected(self, host: Any, port: Any, local: Any) -> Any:
        error = OSError("the name has no address")
        for family, kind, protocol, _, address in await self.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            try:
                return await self._opened(family, kind, protocol, address, local)
            except OSError as found:
                error = found
        raise error

    async def _opened(
        self, family: int, kind: int, protocol: int, address: Any, local: Any = None
    ) -> Any:
        sock = native.socket(family, kind, protocol)
        try:
            sock.settimeout(0.0)
            if local is not None:
                sock.bind(local)
            await self.sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock

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
        """Look a name up without the loop's thread pool; raises what `socket.getaddrinfo` does."""
        return await self._arthur_relay_thread.call(
            self._arthur_relay_lookup, host, port, family, type, proto, flags
        )
