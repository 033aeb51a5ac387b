"""Packets: how rows travel through the broker. Pure.

A packet is one message: rows of one product, one model and one kind, as the bytes that came. Its
body is a MessagePack array with an array for each row, so that no row is decoded on the way; its
headers say the rest.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote, unquote

import msgspec

from arthur_relay.encoding.product import Product
from arthur_relay.row import NO_HISTORY, History, Row, RowKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BUCKETS: Final = 8
"""Models are spread over so many consumers, which workers ask in turn."""

VERSION: Final = "1"

ROW_BYTES: Final = 64
"""About what a row takes in a packet beside its body and its id."""

ID_BYTES: Final = 1024
"""About what an id takes at most beside its row's body, which has it too."""

HEADER_BYTES: Final = 4096
"""More than the headers of a packet take."""

MESSAGE_ID: Final = "Nats-Msg-Id"
"""The header by which the broker recognises a message that it has already."""

_LONGEST_VERSION: Final = 10
"""Digits of a version; more are no version of ours."""

_DEATHS: Final = "Relay-Deaths"

_LATEST_SECONDS: Final = 1e12
"""Later than any time that makes sense, in seconds since 1970; not infinite, as no bound may be."""

_KINDS: Final = {RowKind.INFERENCE: "inf", RowKind.GROUND_TRUTH: "gt"}
APART: Final = "apart"
"""Stands for the kind in the subjects of packets that wait apart."""

PRODUCTS: Final = {Product.SCOPE: "scope", Product.ENGINE: "engine"}
"""The products' names in subjects and headers."""


class NotAPacketError(ValueError):
    """A message is not a packet of ours, or is damaged; the text says in what."""


class NewerPacketError(NotAPacketError):
    """A later version wrote the message: a worker of that version can read it."""


class _PacketRow(msgspec.Struct, array_like=True, omit_defaults=True):
    id: str
    body: bytes
    unknown_seconds: Annotated[float, msgspec.Meta(ge=0, le=_LATEST_SECONDS)] | None = None
    """For how long Arthur has not known it: ground truth that was given back waits on, and no
    longer than it may. It is no time, because the next worker's clock may be another one."""


@dataclass(frozen=True, slots=True)
class Packet:
    """Rows that travel together.

    Attributes:
        id: What the broker recognises a repetition by.
        product: The product that they are for.
        model_id: Their model.
        kind: Their kind.
        rows: The rows, one or more.
        accepted_at: When the gateway took them, in seconds since 1970.
        deaths: How often workers died, perhaps of these rows, before this packet was made.
        is_apart: Whether it waits apart from others, because its model has to wait.
    """

    id: str
    product: Product
    model_id: str
    kind: RowKind
    rows: tuple[Row, ...]
    accepted_at: float
    deaths: int = 0
    is_apart: bool = False

    def body(self, now: float | None = None) -> bytes:
        """Return the body of its message.

        Args:
            now: Seconds since 1970, by the clock of the rows' history; None for this machine's.
        """
        at = time.time() if now is None else now
        return msgspec.msgpack.encode(
            [
                _PacketRow(row.id, row.body)
                if (since := row.history.unknown_since) is None
                else _PacketRow(row.id, row.body, max(0.0, at - since))
                for row in self.rows
            ]
        )

    def headers(self) -> dict[str, str]:
        """Return the headers of its message."""
        found = {
            MESSAGE_ID: self.id,
            "Relay-Version": VERSION,
            "Relay-Product": PRODUCTS[self.product],
            "Relay-Kind": self.kind.value,
            "Relay-Model": quote(self.model_id, safe=""),
            "Relay-Rows": str(len(self.rows)),
            "Relay-Accepted-At": f"{self.accepted_at:.3f}",
        }
        if self.deaths:
            found[_DEATHS] = str(self.deaths)
        return found

    @property
    def size(self) -> int:
        """About the bytes of its body."""
        return sum(row_bytes(row) for row in self.rows)

    def subject(self, stream: str) -> str:
        """Return the subject of its message, for a stream of that name.

        Its last part is the size, as a power of two: the broker counts the messages of each
        subject, and by that anyone can say how many bytes of a model wait; see `shares`.
        """
        token = model_token(self.model_id)
        bucket = int(token, 16) % BUCKETS
        lane = APART if self.is_apart else _KINDS[self.kind]
        where = f"{stream}.{PRODUCTS[self.product]}.{lane}.{bucket}"
        return f"{where}.{token}.{self.size.bit_length()}"


def model_token(model_id: str) -> str:
    """Return what stands for a model in subjects, where ids may not stand as they are."""
    return hashlib.sha256(model_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def filters(stream: str, product: Product) -> dict[str, str]:
    """Return the subjects of each consumer, by the consumer's name.

    Ground truth has a consumer of its own, and so has what waits apart: rows that wait for their
    inference, or because Arthur throttles or refuses their model, hold back no others.
    """
    name = PRODUCTS[product]
    found = {f"{name}-inf-{bucket}": f"{stream}.{name}.inf.{bucket}.>" for bucket in range(BUCKETS)}
    return {
        **found,
        f"{name}-gt": f"{stream}.{name}.gt.>",
        apart_consumer(product): f"{stream}.{name}.{APART}.>",
    }


def apart_consumer(product: Product) -> str:
    """Return the name of the consumer of packets that wait apart."""
    return f"{PRODUCTS[product]}-{APART}"


def row_bytes(row: Row) -> int:
    """Return about what a row takes in a packet, never less."""
    of_id = len(row.id) if row.id.isascii() else len(row.id.encode("utf-8", "surrogatepass"))
    return len(row.body) + of_id + ROW_BYTES


def most_row_bytes(most_bytes: int) -> int:
    """Return how many bytes the body of a row may have, for a packet of so many bytes."""
    return most_bytes - ROW_BYTES - ID_BYTES


def cut(rows: Sequence[Row], packet_bytes: int) -> Iterator[tuple[Row, ...]]:
    """Yield rows in the portions of packets: neighbours of one model and kind, in their order.

    Args:
        rows: The rows.
        packet_bytes: The most bytes of a portion, unless a single row has more.
    """
    for _, group in groupby(rows, key=lambda row: (row.model_id, row.kind)):
        portion: list[Row] = []
        size = 0
        for row in group:
            more = row_bytes(row)
            if portion and size + more > packet_bytes:
                yield tuple(portion)
                portion, size = [], 0
            portion.append(row)
            size += more
        yield tuple(portion)


def read(headers: Mapping[str, str], body: bytes, now: float | None = None) -> Packet:
    """Return the packet of a message.

    Args:
        headers: Its headers.
        body: Its body.
        now: Seconds since 1970, by the clock that the rows' history is to go by; None for this
            machine's.

    Raises:
        NewerPacketError: It is one of a later version.
        NotAPacketError: It is none.
    """
    version = headers.get("Relay-Version", "")
    if version != VERSION:
        is_newer = version.isascii() and version.isdecimal() and len(version) < _LONGEST_VERSION
        error = NewerPacketError if is_newer and int(version) > int(VERSION) else NotAPacketError
        raise error(f"its version is {version or None!r}, not {VERSION}")
    try:
        product = next(each for each, name in PRODUCTS.items() if name == headers["Relay-Product"])
        kind = RowKind(headers["Relay-Kind"])
        model_id = unquote(headers["Relay-Model"], errors="strict")
        accepted_at = float(headers["Relay-Accepted-At"])
        count = int(headers["Relay-Rows"])
        deaths = max(0, int(headers.get(_DEATHS, "0")))
        name = headers[MESSAGE_ID]
        found = msgspec.msgpack.decode(body, type=list[_PacketRow])
    except (
        KeyError,
        StopIteration,
        ValueError,
        RecursionError,  # a row may have fields that we do not know, nested as deep as they like
        msgspec.MsgspecError,
    ) as error:
        raise NotAPacketError(f"{type(error).__name__} in what it says") from None
    if not (model_id and name and 0 <= accepted_at <= _LATEST_SECONDS):
        raise NotAPacketError("it has no model, no id or no time")
    if not found or len(found) != count:
        raise NotAPacketError(f"it has {len(found)} rows instead of {count}")
    at = time.time() if now is None else now
    rows = tuple(
        Row(
            each.id,
            model_id,
            each.body,
            kind=kind,
            history=NO_HISTORY
            if each.unknown_seconds is None
            else History(unknown_since=at - each.unknown_seconds),
        )
        for each in found
    )
    return Packet(name, product, model_id, kind, rows, accepted_at, deaths)
