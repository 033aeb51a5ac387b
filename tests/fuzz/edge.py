"""Requests on a connection: whatever is sent, and however it is cut.

Invariants:

- what is sent as whole requests gets as many answers, in order, and no other but a last one that
  refuses what follows
- no answer is a 5xx but 503, nothing unexpected is logged
- no body is taken for a request: its rows never arrive
- what was acknowledged was handed over, and nothing else
- nothing is kept: no connection, no byte of a body
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
from typing import TYPE_CHECKING

from arthur_relay.daemon.auth import Endpoint
from tests.daemon.edge import MODEL, PATH, Edge
from tests.fuzz.intake import mutated
from tests.fuzz.outcome import Broken, Outcome

if TYPE_CHECKING:
    from random import Random

MOST_MEBIBYTES = 200
"""How much more memory the process may take for it all."""


class Errors(logging.Handler):
    """Collects what should never be logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def fuzz_edge(random: Random, cases: int, outcome: Outcome) -> None:
    """Try some connections.

    Raises:
        Broken: One breaks an invariant.
    """
    errors, root = Errors(), logging.getLogger()
    root.addHandler(errors)
    try:
        asyncio.run(_fuzz(random, cases, outcome, errors))
    finally:
        root.removeHandler(errors)


async def _fuzz(random: Random, cases: int, outcome: Outcome, errors: Errors) -> None:
    async with Edge(
        random.choice([Endpoint.SOCKET, Endpoint.TCP]), max_body_bytes=100_000, max_rows=100
    ) as edge:
        before = _mebibytes()
        for _ in range(cases):
            await _one(random, edge, outcome, errors)
            outcome.counts["connections"] += 1
        if _mebibytes() - before > MOST_MEBIBYTES:
            raise Broken("memory is bounded", _mebibytes() - before)


def _mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def _one(  # noqa: PLR0912 - one for each invariant
    random: Random, edge: Edge, outcome: Outcome, errors: Errors
) -> None:
    requests = [_request(random, number) for number in range(random.randrange(1, 6))]
    stream, whole = b"".join(requests), len(requests)
    is_exact = random.random() < 0.6
    tail = b""
    if is_exact:
        tail = random.choice([b"", b"", _request(random, 99)[:-1], b"POST / HT", b"\r\n", b"\0\0"])
        stream += tail
    else:
        stream = mutated(random, stream)
    pieces = _cut(random, stream)
    given = (is_exact, pieces)
    edge.taken.rows.clear()
    try:
        answer = await edge.exchange(*pieces)
    except TimeoutError:
        raise Broken("a connection ends", given) from None
    found = _answers(answer, given)
    outcome.counts["answers"] += len(found)
    if is_exact:
        may_refuse = 1 if tail.strip() else 0
        if not whole <= len(found) <= whole + may_refuse:
            statuses = [status for status, _ in found]
            raise Broken(f"{whole} whole requests got {statuses}", given)
        if any(row.id == "smuggled" for row in edge.taken.rows):
            raise Broken("no body is taken for a request", given)
    acknowledged = 0
    for status, body in found:
        if status >= 500 and status != 503:
            raise Broken(f"an answer is a {status}", given)
        if status == 207:
            acknowledged += json.loads(body)["counts"]["success"]
    taken = len(edge.taken.rows)
    # A client that breaks off, or is refused while its rows are handed over, hears of fewer.
    if acknowledged != taken:
        raise Broken(f"{acknowledged} rows are acknowledged, {taken} handed over", given)
    outcome.counts["rows"] += taken
    for _ in range(1000):
        if not edge.counts.connections[_door(edge)] and not edge.front._state.tasks:
            break
        await asyncio.sleep(0)
    if edge.counts.body_bytes or edge.counts.connections.total():
        raise Broken("nothing is kept", given)
    if errors.lines:
        raise Broken(f"nothing unexpected is logged: {errors.lines}", given)


def _door(edge: Edge) -> str:
    endpoint = Endpoint.SOCKET if isinstance(edge.address, str) else Endpoint.TCP
    return str(endpoint.value)


def _answers(answer: bytes, given: object) -> list[tuple[int, bytes]]:
    """Return the status and the body of each answer."""
    found = []
    while answer:
        head, separator, rest = answer.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        lengths = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
        if not separator or not head.startswith(b"HTTP/1.1 ") or not head[9:12].isdigit():
            raise Broken("what comes back is answers", given)
        status = int(head[9:12])
        if status == 100:
            answer = rest
            continue
        if len(lengths) != 1 or lengths[0] > len(rest):
            raise Broken("an answer is whole", given)
        found.append((status, rest[: lengths[0]]))
        answer = rest[lengths[0] :]
    return found


SMUGGLED = b'[{"partner_inference_id":"smuggled","inference_data":{}}]'
INNER = (
    f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(SMUGGLED)}\r\n\r\n"
).encode() + SMUGGLED


def _request(random: Random, number: int) -> bytes:
    """Return a whole request that any server reads in one way."""
    row = b'{"partner_inference_id":"%d","inference_data":{}}' % number
    rows = b"[%b]" % b",".join([row] * random.randrange(4))
    method, body = random.choice(
        [
            *[(b"GET", None), (b"POST", rows), (b"POST", rows), (b"PATCH", rows)],
            *[(b"POST", INNER), (b"OPTIONS", INNER), (b"GET", INNER)],
            (b"POST", b" " * random.randrange(200_000) + rows),
        ]
    )
    path = random.choice(
        [
            *[PATH, PATH, PATH, f"/api/v3/models/{MODEL}", "/healthz", "/", "/api/v3/login"],
            *["/api/v3/models/../inferences", "/api/v3/models/%2e%2e/inferences"],
            "http://x/healthz",
        ]
    )
    headers = [b"Host: localhost", b"Content-Type: application/json"]
    headers += random.sample(
        [
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
            b"Connection: upgrade\r\nUpgrade: websocket",
            b"Connection: keep-alive",
            b"Expect: 100-continue",
            b"Authorization: x",
            b"X: " + b"y" * random.randrange(3000),
            b"x-empty:",
            b"Content-Encoding: identity",
            b"Origin: http://localhost",
        ],
        random.randrange(3),
    )
    chunks = b""
    if body is not None:
        if random.random() < 0.5:
            zeros = b"0" * random.choice([0, 0, 0, 30, 5000])
            headers.append(b"Content-Length: %b%d" % (zeros, len(body)))
            chunks = body
        else:
            headers.append(b"Transfer-Encoding: chunked")
            chunks = _chunked(random, body)
    random.shuffle(headers)
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, path.encode()), *headers, b"", chunks])


def _chunked(random: Random, body: bytes) -> bytes:
    parts = []
    at = 0
    while at < len(body):
        size = random.choice([1, 7, 100, 5000, 100_000])
        part = body[at : at + size]
        extension = random.choice([b"", b"", b"", b";a", b";a=b"])
        parts.append(b"%x%b\r\n%b\r\n" % (len(part), extension, part))
        at += size
    trailers = random.choice([b"", b"", b"X: 1\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n"])
    return b"".join([*parts, b"0\r\n", trailers, b"\r\n"])


def _cut(random: Random, stream: bytes) -> list[bytes]:
    if random.random() < 0.3:
        return [stream]
    ends = sorted(random.randrange(len(stream) + 1) for _ in range(random.randrange(1, 8)))
    return [stream[a:b] for a, b in zip([0, *ends], [*ends, len(stream)], strict=True) if a < b]
