"""Reads the fields of a message in protobuf by their framing, without its descriptor. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""The wire types."""

_MOST_VARINT_BITS: Final = 70
_TAGS_END: Final = 1 << 32


class NotProtobufError(ValueError):
    """The bytes are not a message."""


def fields(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the fields of a message: the tag, and where the content begins and ends.

    Raises:
        NotProtobufError: There is anything else.
    """
    try:
        while at < end:
            tag = body[at]
            at += 1
            if tag >= 0x80:
                tag, at = _varint(body, at - 1)
            kind = tag & 7
            if kind == BYTES:
                size = body[at]
                at += 1
                if size >= 0x80:
                    size, at = _varint(body, at - 1)
                start, at = at, at + size
            elif kind == FIXED64:
                start, at = at, at + 8
            elif kind == VARINT:
                start, (_, at) = at, _varint(body, at)
            elif kind == FIXED32:
                start, at = at, at + 4
            else:
                raise NotProtobufError("a field has an unknown type")
            if at > end or not 8 <= tag < _TAGS_END:
                raise NotProtobufError("a field is longer than its message, or has no number")
            yield tag, start, at
    except IndexError:
        raise NotProtobufError("the message is cut") from None


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Return a varint, and where it ends."""
    value = 0
    for shift in range(0, _MOST_VARINT_BITS, 7):
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise NotProtobufError("a number is too long")
