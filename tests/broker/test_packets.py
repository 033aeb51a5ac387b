"""Packets against their promises: all of a row comes back, and nothing else passes for one."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import nats
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arthur_relay.broker.packets import (
    BUCKETS,
    HEADER_BYTES,
    MESSAGE_ID,
    ROW_BYTES,
    NotAPacketError,
    Packet,
    apart_consumer,
    cut,
    filters,
    read,
)
from arthur_relay.encoding.model import MAX_MODEL_CHARACTERS
from arthur_relay.encoding.product import Product
from arthur_relay.row import History, Row, RowKind
from tests.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.broker.servers import NatsServer

pytestmark = pytest.mark.one_python

few = settings(max_examples=40)

KINDS = st.sampled_from(RowKind)
STREAMS = st.sampled_from(("ARTHUR_ROWS", "a", "-", "_0-Z"))
"""Names as the setting allows them."""
TIMES = st.floats(0, 2**33)
LATE = 2.0**33
TEXTS = st.text(max_size=12)
MODELS = st.text(min_size=1, max_size=12)


def row(
    row_id: str, body: bytes, unknown_since: float | None, *, model_id: str, kind: RowKind
) -> Row:
    return Row(row_id, model_id, body, kind=kind, history=History(unknown_since=unknown_since))


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    model_id, kind = draw(MODELS), draw(KINDS)
    found = draw(
        st.lists(
            st.tuples(TEXTS, st.binary(max_size=30), st.none() | TIMES), min_size=1, max_size=5
        )
    )
    rows = tuple(row(*each, model_id=model_id, kind=kind) for each in found)
    return Packet(
        draw(st.uuids().map(str)), draw(st.sampled_from(Product)), model_id, kind, rows, draw(TIMES)
    )


def contents(rows: Sequence[Row]) -> list[tuple[object, ...]]:
    return [(r.id, r.model_id, r.kind, r.body) for r in rows]


def says_the_same(found: Packet, packet: Packet, ahead: float = 0.0) -> bool:
    """Whether what was read says what was written, by a clock that is so much ahead."""
    assert contents(found.rows) == contents(packet.rows)
    for one, other in zip(found.rows, packet.rows, strict=True):
        since = other.history.unknown_since
        expected = None if since is None else pytest.approx(since + ahead, abs=0.001)
        assert one.history.unknown_since == expected
    assert found.accepted_at == pytest.approx(packet.accepted_at, abs=0.001)
    return replace(found, rows=(), accepted_at=0.0) == replace(packet, rows=(), accepted_at=0.0)


def one(model_id: str = "m", row_id: str = "r") -> Packet:
    rows = (row(row_id, b"{}", None, model_id=model_id, kind=RowKind.INFERENCE),)
    return Packet("id", Product.SCOPE, model_id, RowKind.INFERENCE, rows, 1.5)


@few
@given(packets(), st.sampled_from((0.0, 7200.0, -86400.0)))
def test_what_is_read_is_what_was_written_whatever_the_clocks(packet: Packet, ahead: float) -> None:
    """Ground truth has waited for as long at a worker with another clock as at the one before."""
    body = packet.body(LATE)
    assert says_the_same(read(packet.headers(), body, LATE + ahead), packet, ahead)


def test_the_broker_and_its_client_leave_a_packet_as_it_is(server: NatsServer) -> None:
    models = (" a", "a b ", "a\r\nX: y", "é\0\x85", "%41", ":", "=?utf-8?q?a?=")
    sent = [one(each) for each in models]

    async def main() -> list[Packet]:
        async with await nats.connect(server.url) as client:
            subscription = await client.subscribe("PACKETS.>")
            for each in sent:
                await client.publish(each.subject("PACKETS"), each.body(), headers=each.headers())
            messages = [await subscription.next_msg(SECONDS) for _ in sent]
            return [read(each.headers or {}, each.data) for each in messages]

    for found, packet in zip(asyncio.run(main()), sent, strict=True):
        assert says_the_same(found, packet)


@few
@given(MODELS)
@example("\U0010ffff" * MAX_MODEL_CHARACTERS)
def test_headers_are_short_and_plain(model_id: str) -> None:
    headers = one(model_id).headers()
    assert all(re.fullmatch(r"[!-~]+", each) for each in headers.values())
    assert sum(len(name) + len(value) + 4 for name, value in headers.items()) < HEADER_BYTES - 16


def matches(pattern: str, subject: str) -> bool:
    """Whether a filter takes a subject, by the broker's rules for `*` and `>`."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">" and len(tokens) >= len(wanted):
        del wanted[-1], tokens[len(wanted) :]
    return len(wanted) == len(tokens) and all(
        one in ("*", other) for one, other in zip(wanted, tokens, strict=True)
    )


@few
@given(packets(), STREAMS)
def test_a_subject_is_valid_and_one_consumers_own(packet: Packet, stream: str) -> None:
    subject = packet.subject(stream)
    assert re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+", subject)
    found = [
        (product, name)
        for product in Product
        for name, pattern in filters(stream, product).items()
        if matches(pattern, subject)
    ]
    assert [product for product, _ in found] == [packet.product]
    assert found[0][1].endswith("-gt") == (packet.kind is RowKind.GROUND_TRUTH)
    apart = replace(packet, is_apart=True).subject(stream)
    found = [
        (product, name)
        for product in Product
        for name, pattern in filters(stream, product).items()
        if matches(pattern, apart)
    ]
    assert found == [(packet.product, apart_consumer(packet.product))]


def test_models_are_spread_over_all_buckets() -> None:
    subjects = {one(f"model-{number}").subject("S").split(".")[3] for number in range(200)}
    assert subjects == {str(bucket) for bucket in range(BUCKETS)}


ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from("ab"), KINDS, st.text(max_size=100), st.integers(0, 300), st.none() | TIMES
    ),
    max_size=40,
)


@few
@given(ARRIVALS, st.integers(1, 2000))
@example([("a", RowKind.INFERENCE, "\U0001f600" * 100, 0, None)] * 20, 1024)
def test_portions_are_of_one_model_and_kind_in_order_and_small(
    arrivals: list[tuple[str, RowKind, str, int, float | None]], packet_bytes: int
) -> None:
    rows = [
        row(row_id, b"\xff" * size, since, model_id=model_id, kind=kind)
        for model_id, kind, row_id, size, since in arrivals
    ]
    portions = list(cut(rows, packet_bytes))
    assert [each for portion in portions for each in portion] == rows
    made = [
        Packet("id", Product.SCOPE, each[0].model_id, each[0].kind, each, 0.0) for each in portions
    ]
    for packet in made:
        assert {(each.model_id, each.kind) for each in packet.rows} == {
            (packet.model_id, packet.kind)
        }
        assert len(packet.rows) == 1 or len(packet.body()) <= packet_bytes
    for packet, after in pairwise(made):  # nor are there more than it takes
        if (packet.model_id, packet.kind) == (after.model_id, after.kind):
            size = sum(
                len(each.body) + len(each.id.encode()) + ROW_BYTES
                for each in (*packet.rows, after.rows[0])
            )
            assert size > packet_bytes


def read_or_refused(headers: dict[str, str], body: bytes) -> Packet | None:
    """Return what is read, which then has to be sound; None when it is refused."""
    try:
        found = read(headers, body)
    except NotAPacketError:
        return None
    assert found.rows
    times = [each.history.unknown_since or 0.0 for each in found.rows]
    assert all(math.isfinite(each) for each in (found.accepted_at, *times))
    return found


@few
@given(packets(), st.data())
def test_a_body_that_is_cut_off_or_goes_on_is_refused(packet: Packet, data: st.DataObject) -> None:
    body = packet.body()
    end = data.draw(st.integers(0, len(body) - 1))
    assert read_or_refused(packet.headers(), body[:end]) is None
    assert read_or_refused(packet.headers(), body + data.draw(st.binary(min_size=1))) is None


@few
@given(packets(), st.data())
def test_a_body_with_other_bytes_is_read_or_refused(packet: Packet, data: st.DataObject) -> None:
    body = bytearray(packet.body())
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    read_or_refused(packet.headers(), bytes(body))


ROW_AND_MORE = b"\x91\x94\xa1r\xc4\x00\xc0"
"""The beginning of a body with one row, whose fourth field is to follow."""


@few
@given(st.binary(max_size=200))
@example(b"\x91" * 100_000)
@example(ROW_AND_MORE + b"\x91" * 100_000 + b"\xc0")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdd\x00\x00\x00\x01" * 20)
@example(b"\x91\x93\xa1\xff\xc4\x00\xc0")
@example(msgspec.msgpack.encode([["r", b"", math.nan]]))
@example(msgspec.msgpack.encode([["r", b"", math.inf]]))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    read_or_refused(one().headers(), body)


def test_a_row_may_get_further_fields() -> None:
    found = read_or_refused(one().headers(), ROW_AND_MORE + b"\x01")
    assert found is not None
    assert found.rows[0].id == "r"


NAMES = st.sampled_from(list(one().headers()))


@few
@given(NAMES, st.text(max_size=30) | st.integers().map(str) | st.floats().map(str))
@example("Relay-Accepted-At", "nan")
@example("Relay-Accepted-At", "1e999")
@example("Relay-Rows", "9" * 5000)
@example("Relay-Rows", "-1")
@example("Relay-Model", "%ff")
def test_other_headers_are_read_or_refused(name: str, value: str) -> None:
    packet = one()
    read_or_refused({**packet.headers(), name: value}, packet.body())


@pytest.mark.parametrize("name", list(one().headers()))
def test_a_packet_without_one_of_its_headers_is_refused(name: str) -> None:
    packet = one()
    headers = packet.headers()
    del headers[name]
    assert read_or_refused(headers, packet.body()) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Relay-Version", "2"),
        ("Relay-Product", "other"),
        ("Relay-Kind", "other"),
        ("Relay-Rows", "2"),
        ("Relay-Model", ""),
        ("Relay-Model", "%ff"),
        (MESSAGE_ID, ""),
    ],
)
def test_a_packet_with_a_header_that_makes_no_sense_is_refused(name: str, value: str) -> None:
    packet = one()
    assert read_or_refused({**packet.headers(), name: value}, packet.body()) is None
