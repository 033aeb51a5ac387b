"""The sink's process: `python -m tests.benchmarks.sink.server DESCRIPTOR` serves until told.

Its owner talks to it over a socket pair, in lines of JSON; when that closes, the process ends.
Nothing of this goes through the port that is measured.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks.sink.answers import UNAVAILABLE, answer_question, find_intake
from tests.benchmarks.sink.records import Tally
from tests.benchmarks.sink.state import Counts, Mode
from tests.benchmarks.sink.wire import Connection

if TYPE_CHECKING:
    from tests.benchmarks.sink.wire import Request

_SLOW_SECONDS: Final = 0.5
_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 1024


class SinkServer:
    """The sink without its process; used on one loop.

    Ids are looked for in every body before it is answered, because Arthur's answer has a result
    for each row. The search passes 3 GB/s: several times what a client can post.
    """

    def __init__(self) -> None:
        self._mode = Mode.UP
        self._tally = Tally()
        self._requests = 0
        self._bytes = 0
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._bound = _bind(0)
        self.port: int = self._bound.getsockname()[1]

    async def change_mode(self, mode: Mode) -> None:
        """Put a mode in force; requests that are being read get the new one."""
        self._mode = mode
        if mode is Mode.REFUSING:
            self._refuse()
        elif self._listener is None:
            await self._listen()

    def counts(self) -> Counts:
        """What has arrived since the last reset."""
        return Counts(self._tally.records, self._tally.duplicates, self._requests, self._bytes)

    def reset(self) -> None:
        """Forget what has arrived, ids included."""
        self._tally = Tally()
        self._requests = self._bytes = 0

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        if self._mode is Mode.REFUSING:
            connection.cut()  # it was being accepted while the others were cut

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def take(self, request: Request, connection: Connection) -> None:
        intake = find_intake(request.head)
        if intake is None:
            connection.answer(answer_question(request.head))
            return
        self._requests += 1
        self._bytes += len(request.body)
        match self._mode:
            case Mode.UP:
                ids = intake.find_ids(request)
                self._store(ids, intake.answer(len(ids)), connection)
            case Mode.SLOW:
                ids = intake.find_ids(request)
                late = partial(self._store, ids, intake.answer(len(ids)), connection)
                asyncio.get_running_loop().call_later(_SLOW_SECONDS, late)
            case Mode.UNAVAILABLE:
                connection.answer(UNAVAILABLE)
            case Mode.HANGING | Mode.REFUSING:
                pass

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self), sock=self._bound, backlog=_BACKLOG
        )

    def _refuse(self) -> None:
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        for connection in self._connections:
            connection.cut()
        # Bound, but not listened on: connects are refused, and nobody else can get the port. Were
        # it free, a client could be given it as its own, and would be connected to itself.
        self._bound = _bind(self.port)

    def _store(self, ids: list[bytes], answer: bytes, connection: Connection) -> None:
        if connection.answer(answer):
            self._tally.add(ids)


def _bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((_HOST, port))
    return bound


async def obey(server: SinkServer, command: str, argument: Any) -> Any:
    """Do what the owner wants and return what it wants to know."""
    match command:
        case "mode":
            await server.change_mode(Mode(argument))
            return None
        case "counts":
            return server.counts()
        case "reset":
            return server.reset()
        case "cpu":
            return time.process_time()
        case _:
            raise ValueError(f"no such command: {command}")


async def serve(control: socket.socket) -> None:
    """Serve until the owner closes its end."""
    server = SinkServer()
    await server.change_mode(Mode.UP)
    reader, writer = await asyncio.open_connection(sock=control)
    writer.write(f"{server.port}\n".encode())
    while line := await reader.readline():
        command, argument = json.loads(line)
        result = await obey(server, command, argument)
        writer.write(json.dumps(result).encode() + b"\n")


def main() -> None:
    """Serve the owner whose descriptor is on the command line."""
    # Ids and buffers are in no cycles; a collection would only be a pause in what is measured.
    gc.disable()
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
