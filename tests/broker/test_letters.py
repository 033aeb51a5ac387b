"""Dead letters of a fleet: each is in the broker before its packet is forgotten."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from arthur_relay.broker.delivery import Delivery
from arthur_relay.broker.inbox import HeldPacket
from arthur_relay.broker.kept_letters import BrokerLetters
from arthur_relay.broker.letter_listener import LetterListener
from arthur_relay.broker.letter_outbox import LetterOutbox
from arthur_relay.broker.letters import (
    NO_PACKET,
    decode,
    encode,
    letter_id,
    reason_of,
    subject_of,
)
from arthur_relay.dead_letters import DAMAGED, DeadLetter
from arthur_relay.encoding.product import Product
from arthur_relay.row import Attempt, Batch, Outcome, RowKind, Verdict
from tests.broker.fleet import Arthur, Broker, FleetWorker, new_link, packet, rows_of
from tests.broker.servers import NatsServer
from tests.waiting import turn_until, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.broker.settings import BrokerSettings

pytestmark = pytest.mark.one_python


def refuse(batch: Batch) -> Attempt:
    return Attempt((Outcome(Verdict.REJECTED, "row 422", 422),) * len(batch.rows))


def letter(number: int = 0, **fields: Any) -> DeadLetter:
    return DeadLetter(
        **{
            "inference_id": f"i{number}",
            "model_id": "m",
            "kind": RowKind.INFERENCE,
            "reason": "row 422",
            "status": 422,
            "attempts": 1,
            "rejected_at": datetime(2026, 11, 29, tzinfo=UTC),
            "destination": "https://arthur",
            "body": b'{"a":1}',
            **fields,
        }
    )


def keep(there: Broker, *letters: DeadLetter, product: Product = Product.SCOPE) -> LetterOutbox:
    """Have letters kept, and return the outbox that they went through."""
    most = there.letter_bytes
    outbox = LetterOutbox(settings=there.settings, product=product, max_bytes=most)
    for each in letters:
        outbox.add(each, None)
    there.do(outbox.flush(there.connection))
    return outbox


def kept(broker: BrokerSettings) -> list[DeadLetter]:
    return [each for _, each in BrokerLetters(broker).letters()]


def remove_stream(there: Broker) -> None:
    """Have the broker take no letters."""
    name = f"{there.settings.stream}_DEAD"
    there.do(there.connection.ask_api(f"STREAM.DELETE.{name}"))


# How they travel.


@pytest.mark.parametrize(
    "given",
    [
        letter(),
        letter(status=None, kind=RowKind.GROUND_TRUTH, damage="cut off"),
        letter(said="attribute 'x' is unknown"),
        letter(body=b"\x00\xff", reason="zu groß: *.>", inference_id="ü" * 300),
    ],
)
def test_a_letter_is_read_as_it_was_written(given: DeadLetter) -> None:
    assert decode(encode(given, "name", most_bytes=10_000)) == ("name", given)
    subject = subject_of(given, "ROWS_DEAD", Product.ENGINE)
    stream, product, reason, model = subject.split(".")
    assert (stream, product) == ("ROWS_DEAD", "engine")
    assert not set(reason + model) & set(" *>\r\n")
    assert reason_of(subject) == given.reason


def test_no_text_keeps_a_letter_from_being_written() -> None:
    given = letter(inference_id="\ud800", reason="\udfff" * 1000)
    name, found = decode(encode(given, "name", most_bytes=10_000))
    assert name == "name"
    assert found.body == given.body
    assert reason_of(subject_of(given, "S", Product.SCOPE)).startswith("\\udfff")


@pytest.mark.parametrize("body", [b"", b"?", b"\x80", b"\x81\xa4body\x01", b"\x81\xa1x" * 9999])
def test_a_damaged_letter_is_read_as_one(body: bytes) -> None:
    name, found = decode(body)
    assert (name, found.reason) == ("", DAMAGED)
    assert not found.can_be_sent


def test_what_does_not_fit_is_left_out() -> None:
    large = letter(body=b"x" * 5000)
    _, found = decode(encode(large, "name", most_bytes=4000))
    assert (found.body, found.damage, found.reason) == (b"", "too large", "row 422")
    long = letter(inference_id="i" * 5000)
    assert len(encode(long, "name", most_bytes=4000)) < 4000


def test_a_letter_of_a_packet_that_comes_again_is_the_same() -> None:
    def held(name: str) -> HeldPacket:
        return HeldPacket(packet=None, consumer="c", total=0, rows={}, size=0, name=name)

    later = letter(rejected_at=datetime(2026, 11, 30, tzinfo=UTC), attempts=3)
    assert letter_id(letter(), held("p")) == letter_id(later, held("p"))
    others = [letter(1), letter(body=b"{}"), letter(reason="row 400"), letter(model_id="n")]
    names = {letter_id(each, held("p")) for each in [letter(), *others]}
    names |= {letter_id(letter(), held("q")), letter_id(letter(), None), letter_id(letter(), None)}
    assert len(names) == 8


# In the broker.


def test_a_rejected_row_is_a_letter_that_the_whole_fleet_can_count(broker: BrokerSettings) -> None:
    with Broker(broker) as there, FleetWorker(broker, Arthur(refuse)) as worker:
        there.publish_rows("r0", "r1")
        there.wait_until_empty()
        worker.check(captured=2, rejected=2)
        found = kept(broker)
        assert [(each.inference_id, each.reason, each.body) for each in found] == [
            ("r0", "row 422", b'{"a":1}'),
            ("r1", "row 422", b'{"a":1}'),
        ]
        assert {each.destination for each in found} == {"scripted"}
        keep(there, letter(reason="row 400"))
        keep(there, letter(), product=Product.ENGINE)
        with FleetWorker(broker, Arthur(), "two") as other:
            counts = other.pipeline.dead_letters.count
            wait_for(lambda: counts() == {"row 422": 2, "row 400": 1})
        assert BrokerLetters(broker).count() == {"row 422": 3, "row 400": 1}


def test_a_packet_is_kept_while_the_broker_takes_no_letters(
    broker: BrokerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with Broker(broker) as there, FleetWorker(broker, Arthur(refuse)) as worker:
        remove_stream(there)
        there.publish_rows("r0", "r1")
        wait_for(lambda: "dead letters can't be written" in caplog.text)
        worker.check(rejected=2)
        assert there.waiting() == 1
        there.prepare()
        there.wait_until_empty()
        assert len(kept(broker)) == 2


def test_letters_wait_for_a_broker_that_is_away(broker: BrokerSettings, tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        broker = broker.model_copy(update={"url": server.url})

        def refuse_without_broker(batch: Batch) -> Attempt:
            server.kill()
            return refuse(batch)

        arthur = Arthur(refuse_without_broker)
        with Broker(broker) as there, FleetWorker(broker, arthur) as worker:
            there.publish_rows("r0", "r1")
            wait_for(lambda: worker.pipeline.ledger.totals().rejected == 2)
            arthur.script = refuse
            server.start()
            server.wait_until_healthy()
            with Broker(broker) as again:
                again.wait_until_empty()
            worker.check(captured=2, rejected=2)
            assert sorted(each.inference_id for each in kept(broker)) == ["r0", "r1"]


def test_letters_that_wait_keep_their_room(broker: BrokerSettings) -> None:
    """So the worker fetches no more in the end, and memory is bounded without losing any."""
    broker = broker.model_copy(update={"ahead_bytes": 20_000, "packet_bytes": 2_000})
    with Broker(broker) as there, FleetWorker(broker, Arthur(refuse)) as worker:
        remove_stream(there)
        for number in range(100):
            there.publish_rows(*(f"r{number}-{n}" for n in range(5)))
        wait_for(lambda: worker.puller.packets)
        consumer = next(iter(worker.puller.hand)).consumer
        wait_for(lambda: worker.inbox.room(consumer, 2_000) == 0)
        in_hand = worker.puller.packets
        assert 0 < in_hand < 20
        assert there.waiting() == 100
        there.prepare()
        there.wait_until_empty()
        worker.check(captured=500, rejected=500)
        wait_for(lambda: worker.puller.packets == 0)
        assert worker.inbox._bytes.total() == 0
        assert len(kept(broker)) == 500


@pytest.mark.parametrize("dies", ["before its letter", "after its letter"])
def test_a_worker_that_is_killed_loses_neither_row_nor_letter(
    broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    broker = broker.model_copy(update={"ack_wait_seconds": 1.0})

    async def hang(*_: object, **__: object) -> None:
        reached.append(None)
        await anyio.sleep_forever()

    reached: list[None] = []
    with Broker(broker) as there:
        there.publish_rows("r0", "r1")
        with monkeypatch.context() as patch:
            if dies == "after its letter":
                patch.setattr(Delivery, "acknowledge", hang)
            else:
                patch.setattr(LetterOutbox, "_publish", hang)
            with FleetWorker(broker, Arthur(refuse)) as first:
                wait_for(lambda: reached)
                first.kill()
        assert there.waiting() == 1
        assert len(kept(broker)) == (2 if dies == "after its letter" else 0)
        with FleetWorker(broker, Arthur(refuse), "two") as other:
            there.wait_until_empty()
            other.check(captured=2, rejected=2)
        assert sorted(each.inference_id for each in kept(broker)) == ["r0", "r1"]


def test_a_stop_has_letters_written_first(
    broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(LetterOutbox, "run", nothing)
    with Broker(broker) as there:
        with FleetWorker(broker, Arthur(refuse)) as worker:
            there.publish_rows("r0")
            wait_for(lambda: worker.pipeline.ledger.totals().rejected)
            assert there.waiting() == 1
        assert there.waiting() == 0
        assert len(kept(broker)) == 1


def test_where_there_is_no_room_the_oldest_give_way_and_are_counted(
    broker: BrokerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with Broker(broker, 40_000) as there:
        with FleetWorker(broker, Arthur(refuse), letter_bytes=40_000) as worker:
            for number in range(20):
                there.publish_rows(*(f"r{number:02}-{n}" for n in range(10)))
            there.wait_until_empty()
            found = kept(broker)
            assert 0 < len(found) == 200 - worker.pipeline.dead_letters.evicted < 200
        assert "the oldest are lost" in caplog.text
        before = {each.inference_id for each in found}
        keep(there, letter(body=b"x" * 10_000))
        after = [each.inference_id for each in kept(broker)]
        assert after[-1] == "i0"
        assert before.issuperset(after[:-1])


def test_a_letter_that_is_larger_than_all_may_be_keeps_its_reason(broker: BrokerSettings) -> None:
    with Broker(broker, 40_000) as there:
        keep(there, letter(1), letter(2, body=b"x" * 50_000))
        found = {each.inference_id: each for each in kept(broker)}
        assert found["i1"].body
        assert (found["i2"].body, found["i2"].damage) == (b"", "too large")


def test_letters_as_large_as_messages_may_be_are_written_and_read(broker: BrokerSettings) -> None:
    with Broker(broker, 32 << 20) as there:
        most = there.connection.most_bytes
        assert most is not None
        keep(there, letter(1, body=b"x" * (most - 500)), letter(2, body=b"x" * (most + 1)))
        found = {each.inference_id: each for each in kept(broker)}
        assert len(found["i1"].body) == most - 500
        assert found["i2"].damage == "too large"


def test_what_the_broker_has_twice_is_one_letter(broker: BrokerSettings) -> None:
    """It recognises a letter for some minutes only."""
    with Broker(broker) as there:
        keep(there, letter(0))
        for name in ("a", "b"):
            body = encode(letter(1), "the same", most_bytes=10_000)
            stream = f"{broker.stream}_DEAD"
            subject = subject_of(letter(1), stream, Product.SCOPE)
            headers = {"Nats-Msg-Id": name}
            there.do(there.connection.publish(subject, body, headers, seconds=5, stream=stream))
        store = BrokerLetters(broker)
        found = list(store.letters())
        assert [each.inference_id for _, each in found] == ["i0", "i1"]
        assert store.remove([key for key, _ in found]) == 2
        assert kept(broker) == []
        assert store.remove([key for key, _ in found]) == 0


def test_letters_are_read_over_gaps(broker: BrokerSettings) -> None:
    with Broker(broker) as there:
        keep(there, *(letter(n) for n in range(200)))
        store = BrokerLetters(broker)
        found = {each.inference_id: key for key, each in store.letters()}
        assert len(found) == 200
        left = {"i3", "i199"}
        assert store.remove([key for name, key in found.items() if name not in left]) == 198
        assert {each.inference_id for each in kept(broker)} == left


def test_a_gateway_hears_of_the_letters_of_its_product(broker: BrokerSettings) -> None:
    heard: list[DeadLetter] = []

    async def listen() -> None:
        link = new_link(broker, "gateway", there.letter_bytes)
        listener = LetterListener(link, {Product.SCOPE: heard.append})
        running = [asyncio.create_task(each.run()) for each in (link, listener)]
        await listener.is_listening.wait()
        for number, product in enumerate([Product.SCOPE, Product.ENGINE, Product.SCOPE]):
            await asyncio.to_thread(keep, there, letter(number), product=product)
        await turn_until(lambda: len(heard) == 2)
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await link.connection.close()

    with Broker(broker) as there:
        keep(there, letter(99))  # before anyone listens
        asyncio.run(listen())
    assert [each.inference_id for each in heard] == ["i0", "i2"]


def test_a_gateway_hears_of_letters_that_were_written_while_it_was_away(
    broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.broker.letter_listener.LOOK_SECONDS", 0.1)
    heard: list[DeadLetter] = []

    async def listen() -> None:
        link = new_link(broker, "gateway", there.letter_bytes)
        listener = LetterListener(link, {Product.SCOPE: heard.append})
        listening = asyncio.create_task(listener.run())
        linking = asyncio.create_task(link.run())
        await listener.is_listening.wait()
        await link.connection.close()
        await asyncio.to_thread(keep, there, letter(0), letter(1))
        assert not heard
        link.look_again()  # as when the library gives a connection up
        await turn_until(lambda: len(heard) == 2)
        await asyncio.to_thread(remove_stream, there)
        await asyncio.to_thread(there.prepare)
        await asyncio.to_thread(keep, there, letter(2))
        await turn_until(lambda: len(heard) == 3)
        for each in (listening, linking):
            each.cancel()
        await asyncio.gather(listening, linking, return_exceptions=True)
        await link.connection.close()

    with Broker(broker) as there:
        asyncio.run(listen())
    assert sorted(each.inference_id for each in heard) == ["i0", "i1", "i2"]


# What is no packet.

GOOD = packet(rows_of("r0"))


@pytest.mark.parametrize(
    ("headers", "body", "why"),
    [
        ({}, b"", "version"),
        ({}, b"\x00" * 1000, "version"),
        ({**GOOD.headers(), "Relay-Version": "0"}, GOOD.body(), "version"),
        (GOOD.headers(), b"?", "what it says"),
        (GOOD.headers(), GOOD.body()[:-2], "what it says"),
        ({**GOOD.headers(), "Relay-Rows": "2"}, GOOD.body(), "1 rows instead of 2"),
        ({**GOOD.headers(), "Relay-Kind": "x"}, GOOD.body(), "what it says"),
        ({**GOOD.headers(), "Relay-Model": "%FF"}, GOOD.body(), "what it says"),
        ({**GOOD.headers(), "Relay-Product": "engine"}, GOOD.body(), "for Arthur Engine"),
        ({**GOOD.headers(), "Relay-Product": "other"}, GOOD.body(), "what it says"),
    ],
)
def test_what_is_no_packet_is_a_letter_and_forgotten(
    broker: BrokerSettings, headers: dict[str, str], body: bytes, why: str
) -> None:
    with Broker(broker) as there, FleetWorker(broker, Arthur()) as worker:
        there.do(there.connection.publish(GOOD.subject(broker.stream), body, headers, seconds=5))
        there.publish_rows("r1")
        there.wait_until_empty()
        (found,) = kept(broker)
        assert (found.reason, found.body, found.can_be_sent) == (NO_PACKET, body, False)
        assert why in found.damage
        worker.check(captured=1, delivered=1)
        assert worker.pipeline.dead_letters.added == {NO_PACKET: 1}


def test_what_is_no_packet_is_kept_until_its_letter_is_safe(broker: BrokerSettings) -> None:
    broker = broker.model_copy(update={"ack_wait_seconds": 1.0})
    subject = GOOD.subject(broker.stream)
    with Broker(broker) as there:
        with FleetWorker(broker, Arthur()) as worker:
            remove_stream(there)
            there.do(there.connection.publish(subject, b"?", {}, seconds=5))
            wait_for(lambda: worker.pipeline.dead_letters.added)
            assert there.waiting() == 1
        assert there.waiting() == 1
        there.prepare()
        with FleetWorker(broker, Arthur(), "two"):
            there.wait_until_empty()
        assert [each.body for each in kept(broker)] == [b"?"]
