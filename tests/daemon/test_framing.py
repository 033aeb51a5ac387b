"""Requests on a connection: which are told apart, which are answered, and what is kept of them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from arthur_relay.http_server import framing
from arthur_relay.http_server.framing import HEAD_BYTES, MOST_PIPELINED
from tests.daemon.edge import PATH, Edge, request, rows, statuses
from tests.waiting import turn_until

if TYPE_CHECKING:
    from arthur_relay.http_server.connection import Connection
    from arthur_relay.http_server.framing import FramedProtocol

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


CHUNKED = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


async def test_trailers_count_with_the_head() -> None:
    async with Edge() as edge:
        head = CHUNKED + b"2\r\n[]\r\n0\r\n"
        assert statuses(await edge.exchange(head + b"X: 1\r\n\r\n")) == [207]
        many = b"X: 1\r\n" * (HEAD_BYTES // 30)
        assert statuses(await edge.exchange(head + many + b"\r\n")) == [400]
        assert statuses(await edge.exchange(head, *[b"X: " + b"y" * 1000] * 40)) == [400]
        # One that does not end is not kept either.
        assert statuses(await edge.exchange(head + b"X: ", *[b"y" * 5000] * 10)) == [400]
        assert statuses(await edge.exchange(head, *[b"y" * 5000] * 10)) == [400]


async def test_a_trailer_is_no_header() -> None:
    body = CHUNKED + b"2\r\n[]\r\n0\r\nContent-Encoding: gzip\r\nAuthorization: x\r\n\r\n"
    async with Edge() as edge:
        assert statuses(await edge.exchange(body + request())) == [207, 200]


@pytest.mark.parametrize("piece", [1, 100, 4096, 300_000])
async def test_heads_that_are_too_large(piece: int) -> None:
    begins = [b"GET /" + b"x" * 40_000, b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000]
    begins += [b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 1000 + b"\r\n"]
    async with Edge() as edge:
        for begin in begins:
            cut = begin[: 40 * piece] if piece == 1 else begin
            pieces = [cut[at : at + piece] for at in range(0, len(cut), piece)]
            if piece == 1:
                pieces.append(begin[len(cut) :])
            assert statuses(await edge.exchange(*pieces)) == [400]


async def test_extensions_of_chunks_are_bounded() -> None:
    async with Edge() as edge:
        assert statuses(await edge.exchange(CHUNKED + b"2;a=b\r\n[]\r\n0\r\n\r\n")) == [207]
        assert statuses(await edge.exchange(CHUNKED, b"2;a=", *[b"b" * 10_000] * 8)) == [400]


async def test_a_head_behind_a_large_body_is_not_taken_for_a_large_one() -> None:
    body = b"[" + b" " * 100_000 + b"]"
    first = request("POST", PATH, body)
    async with Edge() as edge:
        assert statuses(await edge.exchange(first + first[:60], first[60:])) == [207, 207]


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAEAAEAA"},
        {"Connection": "upgrade", "Upgrade": "websocket"},
        {"Connection": "keep-alive, Upgrade", "Upgrade": "TLS/1.0"},
        {"Upgrade": "h2c"},
    ],
)
async def test_an_upgrade_is_ignored(headers: dict[str, str]) -> None:
    async with Edge() as edge:
        sent = rows("a", **headers)
        get = request("GET", "/healthz", None, **headers)
        assert statuses(await edge.exchange(sent)) == [207]
        assert statuses(await edge.exchange(sent + sent + get + sent)) == [
            207,
            207,
            200,
            207,
        ]
        assert statuses(await edge.exchange(*[sent[at : at + 1] for at in range(len(sent))])) == [
            207
        ]
        assert [row.id for row in edge.taken.rows] == ["a"] * 5


async def test_a_chunked_body_behind_an_upgrade_is_a_body() -> None:
    upgrade = CHUNKED.replace(b"Host", b"Connection: upgrade\r\nUpgrade: h2c\r\nHost")
    inner = rows("smuggled")
    sent = upgrade + b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
    async with Edge() as edge:
        assert statuses(await edge.exchange(sent + request())) == [400, 200]
        assert edge.taken.rows == []


@pytest.mark.parametrize("target", ["/healthz", "example.com:443", "*", "http://x/"])
@pytest.mark.parametrize("method", ["CONNECT", "OPTIONS", "POST"])
async def test_no_body_is_taken_for_a_request(method: str, target: str) -> None:
    inner = rows("smuggled")
    async with Edge() as edge:
        upgrade = request(method, target, inner, Connection="upgrade", Upgrade="x")
        for sent in (request(method, target, inner), upgrade):
            answer = statuses(await edge.exchange(sent))
            assert len(answer) == 1
            assert 400 <= answer[0] < 500
        assert edge.taken.rows == []


async def test_answers_to_whole_requests_come_before_a_refusal() -> None:
    bad = [b"BAD\r\n\r\n", CHUNKED + b"x\r\n", b"GET /" + b"x" * 50_000, CHUNKED + b"1\r\n[xx"]
    async with Edge() as edge:
        for each in bad:
            edge.taken.may_answer.clear()
            answer = asyncio.create_task(edge.exchange(rows("a") + rows("b") + each))
            await turn_until(lambda: edge.taken.offers)
            edge.taken.may_answer.set()
            assert statuses(await answer) == [207, 207, 400], each
            edge.taken.offers = 0
        assert len(edge.taken.rows) == 8


async def test_a_request_that_does_not_arrive_costs_no_answer_to_others() -> None:
    async with Edge(timeout_seconds=0.2) as edge:
        edge.taken.may_answer.clear()
        client = await edge.connect()
        await client.send(rows("a") + b"GET /healthz HT")
        answer = asyncio.create_task(client.read_all())
        connection = await turn_until(lambda: edge.connection)
        await turn_until(lambda: connection._has_ended)  # its time is over
        edge.taken.may_answer.set()
        assert statuses(await answer) == [207, 408]
        await client.close()


async def test_as_many_requests_wait_as_may(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = []
    begin = framing.FramedProtocol.on_message_begin

    def on_message_begin(self: FramedProtocol) -> None:
        waiting.append(len(self.pipeline))
        begin(self)

    monkeypatch.setattr(framing.FramedProtocol, "on_message_begin", on_message_begin)
    few = 3 * MOST_PIPELINED
    async with Edge() as edge:
        sent = rows("a", X="y" * 500)
        assert statuses(await edge.exchange(sent * few)) == [207] * few
        assert max(waiting) < 10
        # Smaller ones are a pointless flood.
        answered = statuses(await edge.exchange(rows("a") + b"GET / HTTP/1.1\r\n\r\n" * 5000))
        assert answered == [207, *[404] * (len(answered) - 1)]
        assert max(waiting) <= MOST_PIPELINED


async def test_a_client_that_half_closes_gets_its_answers() -> None:
    async with Edge() as edge:
        for sent, expected in [
            (rows("a"), [207]),
            (rows("a") * 3, [207] * 3),
            (rows("a") + rows("b")[:-1], [207]),
            (rows("a") + b"POST", [207]),
            (rows("b")[:-1], []),
            (b"POST /", []),
            (b"", []),
        ]:
            edge.taken.rows.clear()
            edge.taken.may_answer.clear()
            client = await edge.connect()
            connection = await turn_until(lambda: edge.connection)
            await client.send(sent)
            client.half_close()
            await turn_until(partial(has_heard_the_end, connection))
            edge.taken.may_answer.set()
            assert statuses(await client.read_all()) == expected
            assert [row.id for row in edge.taken.rows] == ["a"] * len(expected)
            await client.close()
            await turn_until(lambda: edge.connection is None)


def has_heard_the_end(connection: Connection) -> bool:
    return connection._is_half_closed or connection.is_gone


async def test_an_empty_line_keeps_no_connection() -> None:
    async with Edge() as edge:
        client = await edge.connect()
        await client.send(request())
        assert (await client.answer())[0] == 200
        connection = edge.connection
        await client.send(b"\r\n")
        assert connection is not None
        assert connection.timeout_keep_alive_task is not None
        await client.close()


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        ("0" * 5000 + "2", 207),
        ("0" * 30_000, 400),
        ("9" * 18, 413),
        ("18446744073709551615", 413),
        ("18446744073709551616", 400),
        ("9" * 5000, 400),
        ("-1", 400),
        ("+2", 400),
        ("2, 2", 400),
        ("0x2", 400),
        ("", 400),
    ],
)
async def test_a_content_length_of_any_size(length: str, expected: int) -> None:
    sent = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n[]".encode()
    async with Edge() as edge:
        client = await edge.connect()
        await client.send(sent)
        assert (await client.answer())[0] == expected
        await client.close()
