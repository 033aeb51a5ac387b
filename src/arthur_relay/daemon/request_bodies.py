"""Reads requests' bodies within bounds: so many bytes each, and so many in memory at once."""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from arthur_relay.daemon.refusals import RefusedError
from arthur_relay.settings.variables import DAEMON_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

    from arthur_relay.daemon.current import Current
    from arthur_relay.daemon.measurements import IntakeCounts

_MAX_DIGITS: Final = 18

_MAX_MEMBERS: Final = 16
"""The most members of a gzip body. Exporters write one; each costs a copy of the bytes after it."""

_GZIP: Final = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True, eq=False)
class RequestBodies:
    """Reads bodies. For the daemon's loop only.

    Attributes:
        current: The current limits.
        counts: Counts the bytes in memory.
    """

    current: Current
    counts: IntakeCounts

    @contextmanager
    def reader(self) -> Iterator[BodyReader]:
        """Yield what reads one request's body; after the block its memory is free again."""
        reader = BodyReader(self)
        try:
            yield reader
        finally:
            self.counts.body_bytes -= reader.size

    def too_large(self) -> RefusedError:
        """Return what to raise for a body that is larger than allowed."""
        most = self.current.settings.max_body_bytes
        return RefusedError(
            413,
            f"the body is too large: {most} bytes are allowed ({DAEMON_PREFIX}MAX_BODY_BYTES)",
        )


@dataclass(slots=True)
class BodyReader:
    """Reads one request's body, within the memory that all bodies have.

    Attributes:
        bodies: The bounds.
        size: The bytes that are counted for this one.
    """

    bodies: RequestBodies
    size: int = 0

    async def read(self, request: Request) -> bytes:
        """Read a body, as it was sent.

        Raises:
            ClientDisconnect: The client has disconnected.
            RefusedError: It is too large, alone or together with the others.
        """
        # The parser accepts any number of zeros, but Python's int() does not.
        declared = request.headers.get("content-length", "").lstrip("0")
        if len(declared) > _MAX_DIGITS:
            raise self.bodies.too_large()
        if declared.isascii() and declared.isdigit():
            self._expect(int(declared))
        parts = []
        size = 0
        async for part in request.stream():
            size += len(part)
            self.reserve(size)
            parts.append(part)
        return b"".join(parts)

    def inflate(self, body: bytes) -> bytes:
        """Return what a gzip body holds, in no more memory than a body may take.

        Raises:
            RefusedError: It is no gzip, or is cut; or it holds too much.
        """
        most = self.bodies.current.settings.max_body_bytes
        compressed = self.size
        found = bytearray()
        members = 0
        while body:
            members += 1
            inflater = zlib.decompressobj(_GZIP)
            try:
                found += inflater.decompress(body, most + 1 - len(found))
            except zlib.error:
                raise RefusedError(400, "the body is not gzip") from None
            self.reserve(max(compressed, len(found)))  # refuses what is larger than a body may be
            if not inflater.eof or members > _MAX_MEMBERS:
                raise RefusedError(400, "the body is cut, or has too many parts")
            body = inflater.unused_data.lstrip(b"\0")  # a member may be padded with zeros
        return bytes(found)

    def reserve(self, size: int) -> None:
        """Reserve so many bytes in all, no fewer than before.

        Raises:
            RefusedError: So many are not allowed.
        """
        self._expect(size)
        self.bodies.counts.body_bytes += size - self.size
        self.size = size

    def _expect(self, size: int) -> None:
        """Check that so many bytes could be held now, but reserve nothing for an announcement.

        Else a client that announces much and sends nothing would block others.
        """
        bodies = self.bodies
        if size > bodies.current.settings.max_body_bytes:
            raise bodies.too_large()
        if bodies.counts.body_bytes + size - self.size > bodies.current.max_intake_bytes:
            raise RefusedError(
                503,
                f"too much is coming in at once ({DAEMON_PREFIX}MAX_INTAKE_BYTES)",
                retry_after_seconds=1,
            )
