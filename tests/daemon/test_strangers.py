"""Strangers at the door: connections that ask for nothing, pages of other sites, odd models."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay.daemon.auth import Endpoint, Principal, Token
from arthur_relay.daemon.connection_slots import ConnectionSlots
from arthur_relay.daemon.descriptors import connections_that_fit
from tests.daemon.certificates import issue_certificate
from tests.daemon.edge import MODEL, PATH, Edge, request, rows, statuses
from tests.daemon.process import DaemonProcess
from tests.waiting import SECONDS, turn_until, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

pytestmark = pytest.mark.anyio

SECRET = "0123456789abcdef-secret"
TOKENS = (Token(Principal("one"), SECRET),)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_strangers_make_room_for_those_with_a_token() -> None:
    async with Edge(Endpoint.TCP, tokens=TOKENS, most=5) as edge:
        known = await edge.connect()
        await known.send(rows("a", Authorization=SECRET))
        assert (await known.answer())[0] == 207
        strangers = [await edge.connect() for _ in range(20)]
        refused = await edge.connect()
        await refused.send(rows("x"))
        assert (await refused.answer())[0] == 401
        assert edge.counts.connections[Endpoint.TCP.value] <= 6
        assert statuses(await edge.exchange(rows("b", Authorization=SECRET))) == [207]
        assert statuses(await edge.exchange(request())) == [200]
        await known.send(rows("c", Authorization=SECRET))
        assert (await known.answer())[0] == 207, "who has shown a token stays"
        assert await strangers[0].read_all() == b"", "the oldest went"
        for each in (*strangers, refused, known):
            await each.close()


async def test_half_a_request_keeps_no_place() -> None:
    async with Edge(Endpoint.TCP, tokens=TOKENS, most=5) as edge:
        slow = [await edge.connect() for _ in range(5)]
        for each in slow[:3]:
            await each.send(b"POST /api HTTP/1.1\r\nHost: ")
        for each in slow[3:]:
            await each.send(f"POST {PATH} HTTP/1.1\r\nContent-Length: 9\r\n\r\n[".encode())
        for number in range(10):
            sent = rows(str(number), Authorization=SECRET)
            assert statuses(await edge.exchange(sent)) == [207]
        for each in slow:
            await each.close()


async def test_who_waits_for_an_answer_does_not_make_room() -> None:
    async with Edge(most=2) as edge:
        edge.taken.may_answer.clear()
        waiting = [await edge.connect() for _ in range(2)]
        for each in waiting:
            await each.send(rows("a"))
        late = await edge.connect()
        await late.send(rows("late"))
        assert (await late.answer())[0] == 503
        edge.taken.may_answer.set()
        for each in waiting:
            assert (await each.answer())[0] == 207
        for each in (*waiting, late):
            await each.close()


async def test_idle_views_keep_nobody_out() -> None:
    for endpoint in (Endpoint.VIEWS, Endpoint.SOCKET):
        async with Edge(endpoint, most=4) as edge:
            seeing = [await edge.connect() for _ in range(4)]
            for each in seeing:
                await each.send(request(path="/status"))
                assert (await each.answer())[0] == 200
            assert statuses(await edge.exchange(request(path="/status"))) == [200]
            assert statuses(await edge.exchange(request())) == [200]
            if endpoint is Endpoint.SOCKET:
                known = [await edge.connect() for _ in range(4)]
                for each in known:
                    await each.send(rows("a"))
                    assert (await each.answer())[0] == 207
                seeing += known
            for each in seeing:
                await each.close()


async def test_views_that_are_answered_are_few_and_leave_others_their_places() -> None:
    for endpoint in (Endpoint.VIEWS, Endpoint.SOCKET):
        async with Edge(endpoint, most=4) as edge:
            edge.may_view.clear()
            seeing = [await edge.connect() for _ in range(2)]
            for each in seeing:
                await each.send(request(path="/status"))
            late = await edge.connect()
            await late.send(request(path="/status"))
            assert (await late.answer())[0] == 503
            assert statuses(await edge.exchange(request())) == [200]
            if endpoint is Endpoint.SOCKET:
                assert statuses(await edge.exchange(rows("a"))) == [207]
            edge.may_view.set()
            for each in seeing:
                assert (await each.answer())[0] == 200
            assert statuses(await edge.exchange(request(path="/status"))) == [200]
            for each in (*seeing, late):
                await each.close()


async def test_a_view_that_is_not_read_gives_way_to_one_that_is() -> None:
    async with Edge(Endpoint.VIEWS, most=4) as edge:
        deaf = [await edge.connect() for _ in range(4)]
        for each in deaf:
            await each.send(request(path="/metrics"))
            await each.reader.readuntil(b"\r\n\r\n")
        for _ in range(5):
            assert statuses(await edge.exchange(request(path="/status"))) == [200]
        for each in deaf:
            each.writer.transport.abort()


async def test_users_that_may_not_use_the_socket_get_no_view_of_it() -> None:
    for allowed, expected in (("987654", 403), (str(os.getuid()), 200)):
        async with Edge(Endpoint.SOCKET, allowed_uids=allowed) as edge:
            assert statuses(await edge.exchange(request(path="/status"))) == [expected]
            assert statuses(await edge.exchange(request())) == [200], "a probe is for everybody"
    async with Edge(Endpoint.VIEWS, allowed_uids="987654") as edge:
        assert statuses(await edge.exchange(request(path="/status"))) == [200]


async def test_who_does_not_read_keeps_no_place() -> None:
    async with Edge(most=2) as edge:
        deaf = [await ask_without_reading(edge) for _ in range(2)]
        assert statuses(await edge.exchange(request())) == [200]
        assert statuses(await edge.exchange(rows("a"))) == [207]
        for each in deaf:
            each.close()


async def ask_without_reading(edge: Edge) -> socket.socket:
    """Ask for what anybody may, until there is no room for the answers any more."""
    before = edge.connections
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    client.connect(edge.address)
    (connection,) = await turn_until(lambda: edge.connections - before)
    async with asyncio.timeout(SECONDS):
        rest = asked = request(X_Long="x" * 100)  # so that not too many come at once
        while not (connection.flow.write_paused and connection.has_whole_request):
            with suppress(BlockingIOError):
                rest = rest[client.send(rest) :] or asked
            await asyncio.sleep(0)
    return client


async def test_who_announces_much_and_sends_nothing_uses_up_no_room() -> None:
    settings: dict[str, Any] = {"max_body_bytes": 4096, "max_intake_bytes": 8192}
    async with Edge(**settings) as edge:
        quiet = [await edge.connect() for _ in range(10)]
        for each in quiet:
            await each.send(f"POST {PATH} HTTP/1.1\r\nContent-Length: 4096\r\n\r\n".encode())
        assert statuses(await edge.exchange(rows("a" * 3000))) == [207]
        assert edge.counts.body_bytes == 0
        for each in quiet:
            await each.close()
    async with Edge(**settings) as edge:  # what was sent counts
        slow = [await edge.connect() for _ in range(2)]
        for each in slow:
            await each.send(f"POST {PATH} HTTP/1.1\r\nContent-Length: 4096\r\n\r\n".encode())
            await each.send(b" " * 4000)
        await turn_until(lambda: edge.counts.body_bytes >= 8000)
        assert statuses(await edge.exchange(rows("a" * 3000))) == [503]
        for each in slow:
            await each.close()


class Busy:
    is_dispensable = False

    def end(self) -> None:
        raise AssertionError


def test_when_all_newcomers_wait_for_an_answer_nobody_is_let_in() -> None:
    connections: Counter[str] = Counter()
    slots = ConnectionSlots(Endpoint.TCP, 2, connections)
    assert [slots.arrive(Busy()) for _ in range(3)] == [True, True, False]
    assert connections[Endpoint.TCP.value] == 2


def test_handshakes_count(start: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    context = issue_certificate(tmp_path)
    daemon = start(
        ARTHUR_RELAY_DAEMON_LISTEN="127.0.0.1:0",
        ARTHUR_RELAY_DAEMON_TLS_CERTIFICATE=str(tmp_path / "cert"),
        ARTHUR_RELAY_DAEMON_TLS_KEY=str(tmp_path / "key"),
        ARTHUR_RELAY_DAEMON_MAX_CONNECTIONS="10",
    ).wait_until_ready()
    host, _, port = daemon.address("taking rows on").partition(":")
    held = [socket.create_connection((host, int(port))) for _ in range(50)]
    try:
        client = daemon.client(f"https://{host}:{port}", verify=context)
        assert client.get("/api/v3/users/me").status_code == 200
        status = daemon.client()
        wait_for(lambda: status.get("/status").json()["intake"]["connections"]["tcp"] <= 11)
        for each in held[:30]:
            each.settimeout(30)
            with suppress(ConnectionResetError):
                assert each.recv(1) == b""
    finally:
        for each in held:
            each.close()


def test_connections_leave_descriptors_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [1024, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, now: limits.__setitem__(0, now[0]))
    assert connections_that_fit(100, listeners=3) == 100
    assert limits == [1024, 4096], "enough as it is"
    assert connections_that_fit(500, listeners=3) == 500
    assert limits[0] == 3256
    assert connections_that_fit(1000, listeners=3) == 640
    assert limits[0] == 4096


LOCAL = [
    "localhost",
    "localhost:8808",
    "127.0.0.1:8808",
    "[::1]:8808",
    "box",
    "a.svc",
    "LOCALHOST.",
]
FOREIGN = ["evil.example", "evil.example:8808", "127.0.0.1.nip.io", "localhost.evil.example", "a@b"]


async def test_pages_of_other_sites_neither_write_nor_read_by_tcp() -> None:
    async with Edge(Endpoint.TCP) as edge:
        post = rows("a")
        for host in LOCAL:
            sent = post.replace(b"Host: localhost", b"Host: " + host.encode())
            assert statuses(await edge.exchange(sent)) == [207], host
        taken = len(edge.taken.rows)
        refused = [post.replace(b"Host: localhost", b"Host: " + h.encode()) for h in FOREIGN]
        refused += [
            rows("a", Origin=origin)
            for origin in ("https://evil.example", "null", "http://localhost:3000", "file://")
        ]
        refused += [request(path=f"/api/v3/models/{MODEL}", Origin="https://evil.example")]
        for sent in refused:
            assert statuses(await edge.exchange(sent)) == [403], sent
        for content_type in (b"text/plain", b"application/x-www-form-urlencoded", b""):
            sent = post.replace(b"application/json", content_type)
            assert statuses(await edge.exchange(sent)) == [415]
        sent = post.replace(b"Content-Type: application/json\r\n", b"")
        assert statuses(await edge.exchange(sent)) == [415]
        assert len(edge.taken.rows) == taken
        sent = post.replace(b"application/json", b"Application/JSON; charset=utf-8")
        assert statuses(await edge.exchange(sent)) == [207]
        assert statuses(await edge.exchange(rows("a", Origin="http://localhost"))) == [207]
        assert statuses(await edge.exchange(request(Origin="https://evil.example"))) == [200]


async def test_with_tokens_any_name_will_do() -> None:
    async with Edge(Endpoint.TCP, tokens=TOKENS) as edge:
        sent = rows("a", Authorization=SECRET, Origin="https://app.example")
        sent = sent.replace(b"Host: localhost", b"Host: relay.example")
        assert statuses(await edge.exchange(sent.replace(b"application/json", b"text/x"))) == [207]


async def test_the_views_are_asked_for_by_their_own_names() -> None:
    for endpoint in (Endpoint.VIEWS, Endpoint.SOCKET):
        async with Edge(endpoint, allowed_hosts="relay.example, other.example") as edge:
            for host in (*LOCAL, "relay.example:80", "OTHER.example"):
                sent = request(path="/status").replace(b"localhost", host.encode())
                assert statuses(await edge.exchange(sent)) == [200], host
            for host in FOREIGN:
                sent = request(path="/status").replace(b"localhost", host.encode())
                assert statuses(await edge.exchange(sent)) == [403], host
                sent = request(path="/healthz").replace(b"localhost", host.encode())
                assert statuses(await edge.exchange(sent)) == [200], "probes ask by any name"


async def test_models_that_are_steps_in_a_path() -> None:
    steps = ["%2e", "%2E%2e", "%252e%252e", "%25252e", "a%5c..", "..;x", "%2e%2e%3bx", "%2e%2e%00"]
    async with Edge() as edge:
        for step in (".", "..", *steps):
            sent = rows("a").replace(MODEL.encode(), step.encode())
            assert statuses(await edge.exchange(sent)) == [404], step
            sent = request(path=f"/api/v3/models/{step}?id_type=partner_model_id")
            assert statuses(await edge.exchange(sent)) == [404], step
        assert edge.taken.rows == []
        assert statuses(await edge.exchange(rows("a").replace(MODEL.encode(), b"a.b%20c"))) == [207]


async def test_a_client_that_is_gone_hands_no_rows_over() -> None:
    async with Edge() as edge:
        client = await edge.connect()
        await client.send(rows("a")[:-1])
        connection = await turn_until(lambda: edge.connection)
        await turn_until(lambda: connection.cycle)
        connection.data_received(rows("a")[-1:])
        connection.transport.close()  # as TLS does, when the client says that it sends no more
        await connection_gone(edge)
        await client.close()
        assert edge.taken.rows == []


async def connection_gone(edge: Edge) -> None:
    await turn_until(lambda: not edge.front._state.tasks)


def test_a_restricted_token_learns_nothing_of_other_models(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    own = sandbox.add_model(partner_model_id="own")
    sandbox.add_model(partner_model_id="theirs", model_id="theirs-id")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"all:{SECRET}-all\none:{SECRET}:{own}\n")
    daemon = start(
        ARTHUR_RELAY_DAEMON_LISTEN="127.0.0.1:0", ARTHUR_RELAY_DAEMON_TOKENS_FILE=str(tokens)
    ).wait_until_ready()
    url = f"http://{daemon.address('taking rows on')}"
    every = daemon.client(url, headers={"Authorization": f"{SECRET}-all"})
    one = daemon.client(url, headers={"Authorization": SECRET})
    by_partner = "?id_type=partner_model_id"

    def answers() -> list[list[tuple[int, str]]]:
        return [
            [
                (answer.status_code, answer.text)
                for answer in (
                    one.get(f"/api/v3/models/{name}"),
                    one.get(f"/api/v3/models/{partner}{by_partner}"),
                    one.post(f"/api/v3/models/{name}/inferences", json=[]),
                )
            ]
            for name, partner in (
                ("theirs-id", "theirs"),
                ("nobodys-id", "nobodys"),
                ("%2e%2e", "%2e"),
            )
        ]

    for _ in range(2):  # before and after the daemon has heard of them
        theirs, *nobodys = answers()
        assert [status for status, _ in theirs] == [403] * 3
        assert nobodys == [theirs] * 2
        asked = " ".join(each.path for each in sandbox.requests)
        assert "theirs-id" not in asked, "the time to answer tells nothing either"
        assert every.get(f"/api/v3/models/theirs{by_partner}").status_code == 200
        assert every.get(f"/api/v3/models/nobodys{by_partner}").status_code == 404
    assert one.get(f"/api/v3/models/own{by_partner}").status_code == 200
    sandbox.go_away()
    theirs, *nobodys = answers()
    assert nobodys[0] == theirs
