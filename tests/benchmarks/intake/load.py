"""`python -m tests.benchmarks.intake.load SOCKET ROWS BATCH CLIENTS FIRST`: clients, all at once.

Each sends a request, waits until it is acknowledged, and sends the next; it costs as little as can
be, because it shares the machine with the daemon. Prints rows a second and how long
acknowledgements took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from tests.benchmarks.intake.rows import MODEL_ID, numbered, template
from tests.benchmarks.ratios import percentile


async def client(path: str, requests: range, given: bytes, took: list[float]) -> None:
    """Send the requests of some numbers over one connection.

    Raises:
        ValueError: One was not acknowledged.
    """
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        for number in requests:
            body = numbered(given, number)
            head = (
                f"POST /api/v3/models/{MODEL_ID}/inferences HTTP/1.1\r\nHost: daemon\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            begun = time.perf_counter()
            writer.write(head.encode())
            writer.write(body)
            await writer.drain()
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            content = await reader.readexactly(length)
            took.append(time.perf_counter() - begun)
            if not answer.startswith(b"http/1.1 207 "):
                raise ValueError(f"not acknowledged: {answer!r} {content[:200]!r}")
    finally:
        writer.close()


async def load(path: str, rows: int, batch: int, connections: int, first: int) -> dict[str, float]:
    """Send rows over some connections at once; the requests are numbered from `first` on."""
    given = template(batch)
    requests = max(1, rows // batch // connections)
    took: list[float] = []
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            begin = first + number * requests
            group.create_task(client(path, range(begin, begin + requests), given, took))
    seconds = time.perf_counter() - begun
    return {
        "rows": requests * connections * batch,
        "rows_per_second": requests * connections * batch / seconds,
        "p50_ms": percentile(took, 50) * 1000,
        "p99_ms": percentile(took, 99) * 1000,
    }


def main() -> None:
    """Measure."""
    path, *numbers = sys.argv[1:]
    rows, batch, connections, first = map(int, numbers)
    found = asyncio.run(load(path, rows, batch, connections, first))
    print(json.dumps(found))  # noqa: T201 - its business


if __name__ == "__main__":
    main()
