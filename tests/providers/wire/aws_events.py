"""The binary event stream in which AWS streams answers (`application/vnd.amazon.eventstream`)."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA_TYPE = "application/vnd.amazon.eventstream"

_STRING = 7
"""The type number of a header whose value is a text."""


def event(kind: str, payload: Mapping[str, Any]) -> bytes:
    """Return one event as a message of the stream.

    The layout is total length, length of the headers, checksum of these two, headers, payload,
    checksum of all: https://smithy.io/2.0/aws/amazon-eventstream.html
    """
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, json.dumps(payload).encode())


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return a message with these headers."""
    head = b"".join(
        bytes([len(name)])
        + name.encode()
        + struct.pack("!BH", _STRING, len(value))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    data = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return data + struct.pack("!I", zlib.crc32(data))
