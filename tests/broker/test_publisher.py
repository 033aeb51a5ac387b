"""A gateway's rows: published once, waited for within limits, and refused with a reason."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from arthur_relay.broker.fleet import BacklogReader, Fleet
from arthur_relay.broker.link import Link
from arthur_relay.broker.models import SharedModels
from arthur_relay.broker.monitoring import ServerReport
from arthur_relay.broker.nats.connection import Connection
from arthur_relay.broker.packets import model_token
from arthur_relay.broker.publisher import Publisher
from arthur_relay.broker.settings import BrokerSettings
from arthur_relay.broker.shares import Shares
from arthur_relay.broker.stored import StoredStream, StreamState
from arthur_relay.broker.window import Window
from arthur_relay.encoding.product import Product
from arthur_relay.row import Row
from arthur_relay.worker.ingest import IngestRefusal
from tests.broker.servers import NatsServer, Options
from tests.waiting import turn_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.one_python


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def settings(server: NatsServer, **values: object) -> BrokerSettings:
    given = {"url": server.url, "replicas": 1, "allow_unreplicated": True, "bytes": 4 << 20}
    return BrokerSettings(**{**given, **values})


@asynccontextmanager
async def publisher_for(broker: BrokerSettings) -> AsyncIterator[Publisher]:
    """Yield a publisher whose link is ready, and whose fleet is not looked at."""
    link = Link(Connection(broker, "a test"), [Product.SCOPE])
    running = asyncio.create_task(link.run())
    try:
        await link.look()
        yield Publisher(link, Product.SCOPE, Shares(broker.bytes, broker.model_share))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await link.connection.close()


def rows(count: int, size: int = 100, model: str = "m") -> list[Row]:
    return [Row(f"r{number}", model, b"x" * size) for number in range(count)]


async def state_of(publisher: Publisher) -> StreamState:
    """Return what the stream has."""
    connection = publisher.link.connection
    stream = StoredStream(connection, connection.settings.stream)
    found = await stream.state(subjects=">")
    assert found is not None
    return found


async def messages(publisher: Publisher) -> int:
    return (await state_of(publisher)).messages


@pytest.mark.anyio
async def test_rows_are_safe_when_they_are_accepted(broker: BrokerSettings) -> None:
    async with publisher_for(broker) as publisher:
        assert await publisher.hand_over(rows(5), timeout_seconds=5) is None
        assert await messages(publisher) == 1
        assert await publisher.hand_over(rows(20, 100_000), timeout_seconds=5) is None
        assert await messages(publisher) == 1 + 4
        assert publisher.trouble == ""
        assert not publisher.errors


@pytest.mark.anyio
async def test_a_broker_that_hangs_is_waited_for_and_has_each_packet_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.broker.publisher.ATTEMPT_SECONDS", 0.3)
    monkeypatch.setattr("arthur_relay.broker.publisher.GRACE_SECONDS", 0.5)
    with NatsServer(tmp_path) as server:
        async with publisher_for(settings(server)) as publisher:
            server.pause()
            asking = asyncio.create_task(publisher.hand_over(rows(3), timeout_seconds=30))
            others = [
                asyncio.create_task(publisher.hand_over(rows(1), timeout_seconds=30))
                for _ in range(50)
            ]
            # While it is waited for, and not only when that has ended.
            await turn_until(lambda: publisher.trouble)
            assert not asking.done()
            server.resume()
            assert await asking is None
            assert {*await asyncio.gather(*others)} == {None}
            assert publisher.trouble == ""
            assert publisher.repeated
            assert await messages(publisher) == 51
            tried_again = publisher.errors["away"] - 51
            assert tried_again < 10, "more than one packet was tried at a time"


@pytest.mark.anyio
async def test_a_broker_that_stays_away_is_given_up_in_time(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        broker = settings(server, publish_seconds=1.0)
        async with publisher_for(broker) as publisher:
            server.kill()
            began_at = time.monotonic()
            found = await publisher.hand_over(rows(1), timeout_seconds=30)
            assert found is IngestRefusal.BROKER_AWAY
            assert 0.9 < time.monotonic() - began_at < 3
            assert publisher.errors["too_late"] == 1
            server.start()
            await asyncio.to_thread(server.wait_until_healthy)
            await turn_until(lambda: publisher.link.connection.is_connected)
            assert await publisher.hand_over(rows(1), timeout_seconds=30) is None


@pytest.mark.anyio
async def test_what_a_broker_that_hangs_does_not_even_read_is_given_up_in_time(
    tmp_path: Path,
) -> None:
    """The library passes over the end of the time while it waits to be able to write."""
    with NatsServer(tmp_path) as server:
        broker = settings(server, bytes=1 << 30, publish_seconds=0.5)
        async with publisher_for(broker) as publisher:
            server.pause()
            asked = (publisher.hand_over(rows(1, 500_000), timeout_seconds=30) for _ in range(20))
            async with asyncio.timeout(4):
                found = await asyncio.gather(*asked)
            assert set(found) == {IngestRefusal.BROKER_AWAY}


@pytest.mark.anyio
async def test_nothing_is_published_for_a_client_that_is_gone(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        async with publisher_for(settings(server)) as publisher:
            server.kill()
            gone: list[bool] = []
            asking = asyncio.create_task(
                publisher.hand_over(rows(1), timeout_seconds=30, is_gone=lambda: bool(gone))
            )
            await turn_until(lambda: publisher.errors["away"])
            gone.append(True)
            assert await asking is IngestRefusal.CLIENT_GONE
            server.start()
            await asyncio.to_thread(server.wait_until_healthy)
            assert await publisher.hand_over(rows(1), timeout_seconds=30) is None
            assert await messages(publisher) == 1


@pytest.mark.anyio
async def test_a_full_broker_refuses_and_takes_rows_again(server: NatsServer, stream: str) -> None:
    broker = settings(server, stream=stream, bytes=100_000, model_share=1.0)
    async with publisher_for(broker) as publisher:
        found = [await publisher.hand_over(rows(1, 9_000), timeout_seconds=5) for _ in range(15)]
        assert found[0] is None
        assert found[-1] is IngestRefusal.BROKER_FULL
        assert publisher.trouble == "", "clients learn when to try again only while it is ready"
        connection = publisher.link.connection
        await connection.ask(f"$JS.API.STREAM.MSG.DELETE.{stream}", json.dumps({"seq": 1}).encode())
        await connection.ask(f"$JS.API.STREAM.MSG.DELETE.{stream}", json.dumps({"seq": 2}).encode())
        assert await publisher.hand_over(rows(1, 9_000), timeout_seconds=5) is None


@pytest.mark.anyio
async def test_rows_are_as_large_as_the_broker_takes(tmp_path: Path) -> None:
    with NatsServer(tmp_path, options=Options(max_payload="64KB")) as server:
        async with publisher_for(settings(server)) as publisher:
            most = publisher.most_row_bytes
            assert most is not None
            assert await publisher.hand_over(rows(9, most, "é" * 255), timeout_seconds=5) is None
            assert await messages(publisher) == 9
            found = await publisher.hand_over(rows(1, 64 * 1024), timeout_seconds=5)
            assert found is IngestRefusal.TOO_LARGE


@pytest.mark.anyio
async def test_a_model_that_floods_is_refused_alone(server: NatsServer, stream: str) -> None:
    broker = settings(server, stream=stream, bytes=1 << 20)
    async with publisher_for(broker) as publisher:
        fleet = Fleet(publisher.link, "gateway", publisher.shares)
        asking = asyncio.create_task(fleet.run())
        try:
            # Many small packets of one model, few large ones of another.
            for _ in range(200):
                assert await publisher.hand_over(rows(1, 100, "small"), timeout_seconds=5) is None
            refusal = None
            while refusal is None:
                refusal = await publisher.hand_over(rows(1, 60_000, "flood"), timeout_seconds=5)
            assert refusal is IngestRefusal.OVER_SHARE
            # Also by the broker's own word, of which another gateway knows nothing else.
            other = Publisher(publisher.link, Product.SCOPE, Shares(broker.bytes, 0.5))
            found = await state_of(publisher)
            other.shares.take(found.bytes, found.subjects)
            for each in (publisher, other):
                assert await each.hand_over(rows(1, 9_000, "flood"), timeout_seconds=5) is (
                    IngestRefusal.OVER_SHARE
                )
                assert await each.hand_over(rows(1, 100, "small"), timeout_seconds=5) is None
                assert await each.hand_over(rows(1, 60_000, "new"), timeout_seconds=5) is None
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


def test_shares_do_not_matter_before_the_broker_is_half_full() -> None:
    shares = Shares(1000, 0.5)
    token = model_token("m")
    shares.take(400, {f"S.scope.inf.0.{token}.9": 1})
    assert not shares.is_over(token)
    shares.published(token, 150)
    assert shares.matter
    assert shares.is_over(token)
    assert not shares.is_over(model_token("other"))
    shares.take(100, {})
    assert not shares.is_over(token)


@pytest.mark.anyio
async def test_a_window_lets_in_by_bytes_and_in_order() -> None:
    window, entered = Window(10), []
    leave = asyncio.Event()

    async def one(name: str, size: int) -> None:
        async with window.turn(size):
            entered.append(name)
            await leave.wait()

    tasks = [asyncio.create_task(one(*each)) for each in (("a", 6), ("b", 4), ("c", 1), ("d", 99))]
    await asyncio.sleep(0)
    assert entered == ["a", "b"]
    tasks[2].cancel()
    await asyncio.gather(tasks[2], return_exceptions=True)
    window.is_narrow = True
    tasks.append(asyncio.create_task(one("e", 1)))
    leave.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert entered == ["a", "b", "d", "e"]
    async with asyncio.timeout(1):
        async with window.turn(99):
            pass


def stream_says(messages: int, last: int, created: str = "c") -> dict[str, object]:
    state = {
        "messages": messages,
        "bytes": 10 * messages,
        "last_seq": last,
        "first_ts": "2026-01-01T00:00:00.123456789Z",
    }
    return {"created": created, "ts": "2026-01-01T00:01:00.123456789Z", "state": state}


def test_a_laggard_s_answer_is_passed_over() -> None:
    reader = BacklogReader()
    full = reader.read(stream_says(400, 400), [{"num_ack_pending": 150, "num_pending": 250}], 0.0)
    assert full is not None
    assert (full.waiting_packets, full.in_flight_packets, full.bytes) == (250, 150, 4000)
    assert full.oldest_age_seconds == 60.0
    assert reader.read(stream_says(116, 116), [], 1.0) is None
    assert reader.read(stream_says(0, 0), [], 2.0) is None
    empty = reader.read(stream_says(0, 400), [], 3.0)
    assert empty is not None
    assert (empty.waiting_packets, empty.oldest_age_seconds) == (0, 0.0)
    assert reader.read(stream_says(1, 1, "anew"), [], 4.0) is not None


def test_an_empty_stream_is_believed_after_a_while() -> None:
    reader = BacklogReader()
    assert reader.read(stream_says(0, 0), [], 0.0) is None
    assert reader.read(stream_says(0, 0), [], 9.0) is None
    assert reader.read(stream_says(0, 0), [], 10.0) is not None


def test_what_no_consumer_is_for_is_counted_once_that_is_certain() -> None:
    reader = BacklogReader()
    consumers = [{"num_ack_pending": 1, "num_pending": 2}]
    found = [reader.read(stream_says(messages, 9), consumers, 0.0) for messages in [5] * 5 + [4]]
    assert [each.unclaimed_packets for each in found if each is not None] == [0] * 5 + [1]


@pytest.mark.anyio
async def test_messages_that_no_consumer_is_for_are_told(
    server: NatsServer,
    stream: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("arthur_relay.broker.fleet.ASK_SECONDS", 0.01)
    async with publisher_for(settings(server, stream=stream)) as publisher:
        assert await publisher.hand_over(rows(3), timeout_seconds=5) is None
        await publisher.link.connection.publish(f"{stream}.stray.subject", b"?", {})
        fleet = Fleet(publisher.link, "gateway")
        asking = asyncio.create_task(fleet.run())
        try:
            await turn_until(lambda: fleet.state.backlog.unclaimed_packets == 1)
            await turn_until(lambda: "go to no worker" in caplog.text)
            assert caplog.text.rstrip().endswith(f"their subjects: {stream}.stray.subject")
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.anyio
async def test_a_fleet_sees_who_is_there_and_what_waits(server: NatsServer, stream: str) -> None:
    async with publisher_for(settings(server, stream=stream)) as publisher:
        assert await publisher.hand_over(rows(3), timeout_seconds=5) is None
        fleets = [Fleet(publisher.link, role) for role in ("gateway", "worker")]
        asking = [asyncio.create_task(each.run()) for each in fleets]
        try:
            seen = fleets[1]
            await turn_until(lambda: seen.state.workers and seen.state.backlog.waiting_packets)
            state = seen.state
            assert (state.connected, state.workers) == (True, 1)
            assert state.backlog.in_flight_packets == 0
            assert state.backlog.bytes
        finally:
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


@pytest.mark.anyio
async def test_a_fleet_watches_the_servers_themselves(
    server: NatsServer, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ASK_SECONDS", "WATCH_SECONDS"):
        monkeypatch.setattr(f"arthur_relay.broker.fleet.{name}", 0.05)
    lazy = NatsServer(tmp_path, "lazy", options=Options(sync="2m"))
    gone = NatsServer(tmp_path, "gone")
    expected = [
        ServerReport("lazy", syncs_always=False, packets=None),
        ServerReport("alone", syncs_always=True, packets=3),
    ]
    urls = ",".join(each.monitoring_url for each in (lazy, gone, server))
    async with publisher_for(settings(server, stream=stream, monitoring_url=urls)) as publisher:
        for _ in range(3):
            assert await publisher.hand_over(rows(2), timeout_seconds=5) is None
        fleet = Fleet(publisher.link, "gateway")
        work = [asyncio.create_task(each) for each in (fleet.run(), fleet.watch_servers())]
        try:
            with lazy:  # after the link has looked, which would have refused it
                # Another fleet's rows in a stream of the same name: that is no copy of ours.
                async with publisher_for(settings(lazy, stream=stream)) as other:
                    assert await other.hand_over(rows(1), timeout_seconds=5) is None
                await turn_until(lambda: fleet.state.servers == expected)
        finally:
            for each in work:
                each.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            gone.close()


@pytest.mark.anyio
async def test_a_gateway_learns_of_models_from_the_others(server: NatsServer, stream: str) -> None:
    async with publisher_for(settings(server, stream=stream)) as publisher:
        one, other = (SharedModels(publisher.link, Product.SCOPE) for _ in range(2))
        assert await other.find("a/b.c", by_partner_id=False) is None
        one.keep("a/b.c", {"id": "a/b.c"}, by_partner_id=False)
        one.keep("mine", {"id": "a/b.c"}, by_partner_id=True)
        async with asyncio.timeout(5):
            while await other.find("mine", by_partner_id=True) is None:
                pass
        assert await other.find("a/b.c", by_partner_id=False) == {"id": "a/b.c"}
        assert await other.find("mine", by_partner_id=False) is None
        engine = SharedModels(publisher.link, Product.ENGINE)
        assert await engine.find("a/b.c", by_partner_id=False) is None


@pytest.mark.anyio
async def test_a_broker_that_answers_no_question_is_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.broker.nats.connection.REQUEST_SECONDS", 0.3)
    monkeypatch.setattr("arthur_relay.broker.link.GRACE_SECONDS", 0.3)
    monkeypatch.setattr("arthur_relay.broker.fleet.ASK_SECONDS", 0.1)
    with NatsServer(tmp_path) as server:
        async with publisher_for(settings(server)) as publisher:
            asking = asyncio.create_task(Fleet(publisher.link, "gateway").run())
            try:
                assert publisher.link.trouble == ""
                server.pause()
                await turn_until(lambda: publisher.link.trouble)
                server.resume()
                await turn_until(lambda: not publisher.link.trouble)
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
