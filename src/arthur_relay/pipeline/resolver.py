"""Host names without asyncio's thread pool, which takes no work once the interpreter shuts down.

`threading._shutdown` makes every `ThreadPoolExecutor.submit` raise before `atexit` callbacks run,
and asyncio resolves names in such a pool. A relay that has to connect while the process exits
would lose everything. So names are resolved by a thread of our own, started beforehand.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

AddressInfo = list[tuple[Any, ...]]
_Question = tuple[asyncio.AbstractEventLoop, "asyncio.Future[AddressInfo]", tuple[Any, ...]]


class Resolver:
    """A thread that calls `socket.getaddrinfo`.

    Args:
        lookup: What it calls.
    """

    def __init__(self, lookup: Callable[..., AddressInfo] = socket.getaddrinfo) -> None:
        self._lookup = lookup
        self._questions: SimpleQueue[_Question | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="arthur-relay-resolver", daemon=True)

    def start(self) -> None:
        """Start the thread; it has to be there before the interpreter shuts down."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after the look-up it is in; does not wait for it."""
        self._questions.put(None)

    async def resolve(self, *question: Any) -> AddressInfo:
        """Answer like `socket.getaddrinfo`; a cancellation leaves the look-up to itself.

        Raises:
            OSError: As `socket.getaddrinfo` does.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[AddressInfo] = loop.create_future()
        self._questions.put((loop, answer, question))
        return await answer

    def _run(self) -> None:
        while (item := self._questions.get()) is not None:
            loop, answer, question = item
            try:
                found = self._lookup(*question)
            except (OSError, UnicodeError) as error:
                self._tell(loop, _set_exception, answer, error)
            else:
                self._tell(loop, _set_result, answer, found)

    @staticmethod
    def _tell(
        loop: asyncio.AbstractEventLoop, how: Callable[..., None], *arguments: object
    ) -> None:
        try:
            loop.call_soon_threadsafe(how, *arguments)
        except RuntimeError:
            return  # the loop was closed meanwhile: no one waits for the answer


def _set_result(answer: "asyncio.Future[AddressInfo]", found: AddressInfo) -> None:
    if not answer.done():
        answer.set_result(found)


def _set_exception(answer: "asyncio.Future[AddressInfo]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


class RelayLoop(asyncio.SelectorEventLoop):
    """An event loop that asks a `Resolver` for addresses."""

    def __init__(self, resolver: Resolver) -> None:
        super().__init__()
        self._arthur_relay_resolver = resolver

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
        """Resolve a name, without the loop's thread pool."""
        return await self._arthur_relay_resolver.resolve(host, port, family, type, proto, flags)
