"""Reads and decodes the bodies of answers, within bounds: they are not trusted.

The HTTP library decodes a body as a whole: a kilobyte on the wire may become a megabyte in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterable

ANSWER_BYTES = 8 * 1024 * 1024
"""The longest answer that is read, decoded. One with 10,000 results, or a model with as many
attributes, has a tenth of it."""

MAX_ENCODINGS = 2
"""No honest server encodes an answer more often."""

MAX_MEMBERS = 16
"""The most members of a gzip body. Servers write one; each costs a copy of the bytes after it."""

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class UnreadableError(Exception):
    """A body is too long, or is not encoded as its headers say; the text says which."""


async def read(parts: AsyncIterator[bytes]) -> bytes:
    """Read a body, still encoded.

    Raises:
        UnreadableError: It is longer than `ANSWER_BYTES`; the rest is left unread.
        Exception: Whatever the iterator raises.
    """
    found = bytearray()
    async for part in parts:
        found += part
        if len(found) > ANSWER_BYTES:
            raise UnreadableError("the answer is too long")
    return bytes(found)


def decode(body: bytes, encodings: Iterable[str]) -> bytes:
    """Undo the encodings that `Content-Encoding` names, the last one first.

    Raises:
        UnreadableError: An encoding is unknown, there are too many, the body is encoded otherwise
            or is cut, or it is longer than `ANSWER_BYTES` when decoded.
    """
    names = [name for text in encodings if (name := text.strip().lower()) not in ("", "identity")]
    if len(names) > MAX_ENCODINGS:
        raise UnreadableError("the answer is encoded too often")
    for name in reversed(names):
        if name not in _WINDOWS:
            raise UnreadableError("the answer has an encoding that was not asked for")
        if body:  # a 204 has none
            body = _inflate(body, name)
    return body


def _inflate(body: bytes, name: str) -> bytes:
    window = _WINDOWS[name]
    if name == "deflate" and not _has_zlib_head(body):
        window = -zlib.MAX_WBITS  # what many servers send, against RFC 9110, 8.4.1.2
    found = bytearray()
    members = 0
    while body:  # gzip may have several members
        members += 1
        if members > MAX_MEMBERS:
            raise UnreadableError("the answer has too many parts")
        inflater = zlib.decompressobj(window)
        try:
            found += inflater.decompress(body, ANSWER_BYTES + 1 - len(found))
        except zlib.error:
            raise UnreadableError("the answer can't be decoded") from None
        if len(found) > ANSWER_BYTES:
            raise UnreadableError("the answer is too long when it is decoded")
        if not inflater.eof:
            raise UnreadableError("the answer is cut")
        body = inflater.unused_data if window > zlib.MAX_WBITS else b""
        body = body.lstrip(b"\0")  # a member may be padded with zeros
    return bytes(found)


def _has_zlib_head(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
