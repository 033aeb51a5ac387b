"""The sink's process: `python -m tests.benchmarks.sink.server DESCRIPTOR` serves until told.

What its owner wants does not go through the port that is measured; see `control`.
"""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks.sink.answers import THROTTLED, UNAVAILABLE, answer_question, find_intake
from tests.benchmarks.sink.capacity import Capacity, Step, varied
from tests.benchmarks.sink.control import obey_owner
from tests.benchmarks.sink.door import Door
from tests.benchmarks.sink.records import Tally
from tests.benchmarks.sink.state import Counts, Mode

if TYPE_CHECKING:
    from tests.benchmarks.sink.wire import Connection, Request

_SLOW_SECONDS: Final = 0.5


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
        self._capacity: Capacity | None = None
        self._door = Door(self)
        self.port = self._door.port

    async def change_mode(self, mode: Mode) -> None:
        """Put a mode in force; requests that are being read get the new one."""
        self._mode = mode
        if mode is Mode.REFUSING:
            self._door.shut()
        else:
            await self._door.open()

    def limit(self, steps: list[list[float]] | None) -> None:
        """Have a capacity, beginning with the next request that carries records; None for none."""
        if steps is None:
            self._capacity = None
            return
        self._capacity = Capacity(
            [Step(int(at_once), seconds) for at_once, seconds in steps],
            now=time.monotonic,
            call_later=asyncio.get_running_loop().call_later,
            service_seconds=partial(varied, random.Random(0)),  # the same ones for everyone
        )

    def tallies(self) -> list[dict[str, Any]]:
        """What came in each step of the capacity."""
        return [tally.to_json() for tally in self._capacity.tallies] if self._capacity else []

    def counts(self) -> Counts:
        """What has arrived since the last reset."""
        return Counts(self._tally.records, self._tally.duplicates, self._requests, self._bytes)

    def reset(self) -> None:
        """Forget what has arrived, ids included."""
        self._tally = Tally()
        self._requests = self._bytes = 0

    def opened(self, connection: Connection) -> None:
        self._door.entered(connection)

    def closed(self, connection: Connection) -> None:
        self._door.left(connection)

    def take(self, request: Request, connection: Connection) -> None:
        intake = find_intake(request.head)
        if intake is None:
            connection.answer(answer_question(request.head))
            return
        self._requests += 1
        self._bytes += len(request.body)
        match self._mode:
            case Mode.UP if self._capacity is not None:
                ids = intake.find_ids(request)
                self._capacity.take(
                    len(ids),
                    serve=partial(self._store, ids, intake.answer(len(ids)), connection),
                    refuse=partial(connection.answer, THROTTLED),
                )
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

    def _store(self, ids: list[bytes], answer: bytes, connection: Connection) -> None:
        if connection.answer(answer):
            self._tally.add(ids)


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
        case "limit":
            return server.limit(argument)
        case "tallies":
            return server.tallies()
        case "cpu":
            return time.process_time()
        case _:
            raise ValueError(f"no such command: {command}")


async def serve(control: socket.socket) -> None:
    """Serve until the owner closes its end."""
    server = SinkServer()
    await server.change_mode(Mode.UP)
    await obey_owner(control, port=server.port, obey=partial(obey, server))


def main() -> None:
    """Serve the owner whose descriptor is on the command line."""
    # Ids and buffers are in no cycles; a collection would only be a pause in what is measured.
    gc.disable()
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
