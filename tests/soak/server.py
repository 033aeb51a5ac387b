"""The server's process: `python -m tests.soak.server DESCRIPTOR RECORDS SEED`, until told.

Writes down what arrives, byte for byte by its digest, what it stored of that, and what it answered.
Its owner has faults come and go; see `tests.benchmarks.sink.control`.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.sink.answers import answer_question
from tests.benchmarks.sink.control import obey_owner
from tests.benchmarks.sink.door import Door
from tests.soak.faults import Kind, Treatment, treat
from tests.soak.inferences import digest, number_of
from tests.soak.records import ANSWERED, ARRIVED, UNREAD, Records
from tests.soak.sabotage import Sabotage

if TYPE_CHECKING:
    from tests.benchmarks.sink.wire import Connection, Request


class SoakServer:
    """The server without its process; used on one loop.

    Args:
        records: Where it writes things down.
        draw: Randomness, for what a fault does.
    """

    def __init__(self, records: Records, draw: random.Random) -> None:
        self._records = records
        self._draw = draw
        self._kind = Kind.NONE
        self._met = 0
        self._requests = 0
        self._door = Door(self)
        self.port = self._door.port
        self._names: dict[Connection, int] = {}
        self._told_last: dict[Connection, int] = {}
        self._silent: set[Connection] = set()
        self._sabotage: Sabotage | None = None
        self._rejects_every = 0

    async def obey(self, command: str, argument: Any) -> Any:
        """Do what the owner wants."""
        match command:
            case "fault":
                await self._change(Kind(argument))
                return None
            case "met":
                return self._met
            case "reject":
                self._rejects_every = int(argument)
                return None
            case "sabotage":
                self._sabotage = Sabotage(argument)
                return None
            case "sabotaged":
                return self._sabotage.done if self._sabotage is not None else {}
            case _:
                raise ValueError(f"no such command: {command}")

    def opened(self, connection: Connection) -> None:
        self._names[connection] = len(self._names)
        self._door.entered(connection)

    def closed(self, connection: Connection) -> None:
        self._door.left(connection)
        self._silent.discard(connection)
        if (last := self._told_last.pop(connection, None)) is not None:
            self._records.add(UNREAD, last, time.monotonic())

    def take(self, request: Request, connection: Connection) -> None:
        self._told_last.pop(connection, None)
        if request.head.method != "POST":
            connection.answer(answer_question(request.head))
            return
        rows = split_rows(bytes(request.body))
        arrived = [[json.loads(row)["partner_inference_id"], digest(row)] for row in rows]
        rejected = [self._rejects(row_id) for row_id, _ in arrived]
        treatment = treat(self._kind, len(rows), self._draw, rejected)
        self._met += self._kind in (treatment.kind, Kind.MIXED)
        self._requests += 1
        stored = treatment.stored
        if self._sabotage is not None and treatment.tells:
            arrived, stored = self._sabotage.spoil(arrived, stored)
        name = self._names[connection]
        self._records.add(
            ARRIVED, self._requests, name, treatment.kind, arrived, stored, time.monotonic()
        )
        if treatment.seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(treatment.seconds, self._answer, treatment, self._requests, connection)
        else:
            self._answer(treatment, self._requests, connection)

    def _rejects(self, row_id: str) -> bool:
        return bool(self._rejects_every) and number_of(row_id) % self._rejects_every == 0

    def _answer(self, treatment: Treatment, request: int, connection: Connection) -> None:
        if not treatment.answer and not treatment.cut:
            self._silent.add(connection)
        if treatment.answer and connection.answer(treatment.answer) and treatment.tells:
            self._told_last[connection] = request
            self._records.add(ANSWERED, request, time.monotonic())
        if treatment.cut:
            connection.cut()

    async def _change(self, kind: Kind) -> None:
        self._kind, self._met = kind, 0
        if kind is Kind.REFUSING:
            self._door.shut()
        else:
            await self._door.open()
        for connection in list(self._silent):
            connection.cut()


def split_rows(body: bytes) -> list[bytes]:
    """The bytes of each row in the body of a request, as they are in it.

    Raises:
        ValueError: it is no array of objects without space between them.
    """
    text = body.decode()
    decoder = json.JSONDecoder()
    if not text.startswith("["):
        raise ValueError("the body is no array")
    rows, place = [], 1
    while True:
        _, end = decoder.raw_decode(text, place)
        rows.append(text[place:end].encode())
        if text[end] == "]" and end == len(text) - 1:
            return rows
        if text[end] != ",":
            raise ValueError(f"the rows of the body are divided by {text[end]!r}")
        place = end + 1


async def serve(control: socket.socket, records: Records, seed: str) -> None:
    """Serve until the owner closes its end."""
    server = SoakServer(records, random.Random(seed))
    await server.obey("fault", Kind.NONE)
    await obey_owner(control, port=server.port, obey=server.obey)


def main() -> None:
    """Serve the owner whose descriptor is on the command line."""
    descriptor, path, seed = sys.argv[1:]
    asyncio.run(serve(socket.socket(fileno=int(descriptor)), Records(Path(path)), seed))


if __name__ == "__main__":
    main()
