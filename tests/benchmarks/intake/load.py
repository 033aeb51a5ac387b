"""`python -m tests.benchmarks.intake.load SOCKETS ROWS BATCH CLIENTS FIRST [MODELS]`: clients.

All at once, each sends a request, waits until it is acknowledged, and sends the next. It costs as
little as can be, because it shares the machine with the daemon. Clients are spread over the sockets
(separated by commas) and over the models; with more than one model, texts are prose. Prints rows a
second and how long acknowledgements took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from tests.benchmarks.intake.rows import MODEL_ID, numbered, template
from tests.benchmarks.ratios import percentile


async def client(
    path: str, model_id: str, requests: range, given: bytes, took: list[float]
) -> None:
    """Send the requests of some numbers over one connection.

    Raises:
        ValueError: One was not acknowledged.
    """
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        for number in requests:
            body = numbered(given, number)
            head = (
                f"POST /api/v3/models/{model_id}/inferences HTTP/1.1\r\nHost: daemon\r\n"
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


async def load(
    paths: list[str], rows: int, batch: int, connections: int, first: int, models: int
) -> dict[str, float]:
    """Send rows over some connections at once; the requests are numbered from `first` on."""
    given = template(batch, prose=models > 1)
    requests = max(1, rows // batch // connections)
    took: list[float] = []
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            begin = first + number * requests
            model_id = MODEL_ID if models == 1 else f"{MODEL_ID}-{number % models}"
            path = paths[number % len(paths)]
            group.create_task(client(path, model_id, range(begin, begin + requests), given, took))
    seconds = time.perf_counter() - begun
    return {
        "rows": requests * connections * batch,
        "rows_per_second": requests * connections * batch / seconds,
        "p50_ms": percentile(took, 50) * 1000,
        "p99_ms": percentile(took, 99) * 1000,
    }


def main() -> None:
    """Measure."""
    paths, *numbers = sys.argv[1:]
    rows, batch, connections, first, models = map(int, [*numbers, "1"][:5])
    found = asyncio.run(load(paths.split(","), rows, batch, connections, first, models))
    print(json.dumps(found))  # noqa: T201 - its business


if __name__ == "__main__":
    main()
