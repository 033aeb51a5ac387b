"""Requests as they arrive: a small HTTP/1.1 reader whose bodies are received where they stay.

Half a gigabyte a second goes through it when the limit of the machine is measured, so a body of
known length is received straight into one buffer that the connection uses again and again.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple, Protocol

_HEAD_BYTES: Final = 65_536
_END_OF_HEAD: Final = b"\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Head(NamedTuple):
    """The first part of a request."""

    method: str
    path: str
    """Without the query."""
    headers: dict[str, str]
    """By lower-case name."""


class Request(NamedTuple):
    """A whole request; the body is the connection's buffer, and good until `Owner.take` returns."""

    head: Head
    body: memoryview


class Owner(Protocol):
    """Who the connections belong to."""

    def opened(self, connection: Connection) -> None:
        """A client has connected."""

    def closed(self, connection: Connection) -> None:
        """The client or the owner has ended the connection."""

    def take(self, request: Request, connection: Connection) -> None:
        """A request is whole; the connection is to be given its answer, now or later."""


def parse_head(head: bytes) -> Head:
    """Read a request's first lines.

    Raises:
        ValueError: they are no request.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Head(method, target.partition("?")[0], headers)


class Chunks:
    """A body of unknown length, as its pieces arrive. Trailers are not known here."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.surplus = bytearray()

    def feed(self, piece: memoryview) -> bool:
        """Take what has arrived; True when the body is whole, and `surplus` what came after it.

        Raises:
            ValueError: it is no chunked body.
        """
        raw = self.surplus
        raw += piece
        while (end := raw.find(b"\r\n")) >= 0:
            size = int(raw[:end].partition(b";")[0], 16)
            start, following = end + 2, end + 2 + size + 2
            if len(raw) < following:
                return False
            self.body += memoryview(raw)[start : following - 2]
            del raw[:following]
            if size == 0:
                return True
        return False


class Connection(asyncio.BufferedProtocol):
    """One client's connection: hands over one request after the other, each after its answer.

    Args:
        owner: Told of all that happens.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._arrived = memoryview(bytearray(_HEAD_BYTES))
        self._arrived_bytes = 0
        self._head: Head | None = None
        self._store = memoryview(bytearray(0))
        self._body: memoryview | None = None
        self._body_bytes = 0
        self._chunks: Chunks | None = None
        self._answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._owner.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._owner.closed(self)

    def cut(self) -> None:
        """End the connection, whatever is on its way."""
        if self._transport is not None:
            self._transport.abort()

    def answer(self, answer: bytes) -> bool:
        """Answer the request that was handed over last; False when the client has gone."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(answer)
        self._answering = False
        if self._arrived_bytes:
            self._read_on()
        return True

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._body is not None and not self._answering:
            return self._body[self._body_bytes :]
        return self._arrived[self._arrived_bytes :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._body is not None and not self._answering:
            self._body_bytes += nbytes
            self._finish_body()
            return
        self._arrived_bytes += nbytes
        if not self._answering:
            self._read_on()
        if self._arrived_bytes == len(self._arrived):
            self.cut()  # a head larger than any client's, or one that does not wait for answers

    def _read_on(self) -> None:
        """Make of what has arrived what can be made of it.

        A request that is none raises: asyncio ends the connection and says why, on standard error.
        """
        if self._head is None:
            self._read_head()
        elif self._chunks is not None:
            self._read_chunks(self._chunks)

    def _read_head(self) -> None:
        arrived = bytes(self._arrived[: self._arrived_bytes])
        end = arrived.find(_END_OF_HEAD)
        if end < 0:
            return
        self._head = parse_head(arrived[:end])
        headers = self._head.headers
        self._keep(arrived[end + len(_END_OF_HEAD) :])
        if headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(_CONTINUE)
        if headers.get("transfer-encoding", "").lower() == "chunked":
            self._chunks = Chunks()
            self._read_chunks(self._chunks)
        else:
            self._begin_body(int(headers.get("content-length", "0")))

    def _begin_body(self, length: int) -> None:
        if len(self._store) < length:
            self._store = memoryview(bytearray(length))
        self._body = self._store[:length]
        early = bytes(self._arrived[: self._arrived_bytes])
        self._body_bytes = min(length, len(early))
        self._body[: self._body_bytes] = early[: self._body_bytes]
        self._keep(early[self._body_bytes :])
        self._finish_body()

    def _finish_body(self) -> None:
        if self._body is not None and self._body_bytes == len(self._body):
            self._hand_over(self._body)

    def _read_chunks(self, chunks: Chunks) -> None:
        arrived = self._arrived[: self._arrived_bytes]
        self._arrived_bytes = 0
        if chunks.feed(arrived):
            self._keep(bytes(chunks.surplus))
            self._hand_over(memoryview(chunks.body))

    def _keep(self, surplus: bytes) -> None:
        """Let what has arrived begin with these bytes, and be no more than they are."""
        self._arrived_bytes = len(surplus)
        self._arrived[: len(surplus)] = surplus

    def _hand_over(self, body: memoryview) -> None:
        assert self._head is not None
        request = Request(self._head, body)
        self._head = self._body = self._chunks = None
        self._answering = True
        self._owner.take(request, self)
