"""What the workers of a fleet share: a key-value bucket of the broker, with two kinds of entries.

`hold.…` says that Arthur asked for no requests, of a model or at all, or refuses the key: no worker
need find that out by itself. `died.N` counts how often a worker died while it worked on message N.
Each entry ends by itself, by the broker's clock; no times of other machines are compared with ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from arthur_relay.broker.packets import model_token
from arthur_relay.broker.stored import StoredStream
from arthur_relay.broker.topology import shared_bucket, shared_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay.broker.nats.connection import Connection

LONGEST_HOLD_SECONDS: Final = 3600.0
"""A hold ends by then, whatever an entry says."""

DEATHS_SECONDS: Final = 24 * 3600.0
"""How long deaths are remembered. A packet comes again within the broker's acknowledgement time,
but it may wait behind others."""

FORGOTTEN_SECONDS: Final = 60
"""How long the broker keeps the mark that an entry was removed."""


_ALL: Final = "hold.all"


class Hold(msgspec.Struct, frozen=True):
    """For how long no worker should send anything.

    Attributes:
        seconds: For how long, from when it was written.
        reason: Why, in a few words.
        by: Who wrote it.
        model_id: The model of which nothing should be sent, or "" for all.
    """

    seconds: float
    reason: str
    by: str
    model_id: str = ""


@dataclass(frozen=True, slots=True)
class Shared:
    """Reads and writes the entries. One event loop.

    Each method raises `BrokerAwayError` when the broker can't be asked now, and `BrokerFullError`
    when it takes no more.

    Attributes:
        connection: The connection to the broker.
    """

    connection: Connection

    async def hold(self, hold: Hold) -> None:
        """Have all workers wait."""
        key = f"hold.{model_token(hold.model_id)}" if hold.model_id else _ALL
        await self._put(key, msgspec.json.encode(hold), seconds=hold.seconds)

    async def on_hold(self, held: Callable[[Hold], object]) -> None:
        """Have a function called with each hold, shortened by the time that it has lasted."""

        def heard(body: bytes) -> None:
            if (hold := _read(body)) is not None:
                held(hold)

        # A subscription first, so that none is missed in between.
        await self.connection.listen(self._subject("hold.*"), heard)
        if (hold := await self.current_hold()) is not None:
            held(hold)

    async def current_hold(self) -> Hold | None:
        """Return the hold of all models that lasts now, with the rest of its time, or None."""
        found = await self._stream.last(self._subject(_ALL))
        hold = None if found is None else _read(found.body)
        if found is None or hold is None or hold.seconds <= found.age_seconds:
            return None
        return msgspec.structs.replace(hold, seconds=hold.seconds - found.age_seconds)

    async def deaths(self, sequence: int) -> int:
        """Return how often a worker died while it worked on a message."""
        found = await self._stream.last(self._subject(_died(sequence)))
        try:
            return 0 if found is None or not found.body else max(0, int(found.body))
        except ValueError:
            return 0

    async def set_deaths(self, sequence: int, deaths: int) -> None:
        """Say how often a worker died of a message, as far as one may until it is acknowledged."""
        if deaths:
            await self._put(_died(sequence), str(deaths).encode(), seconds=DEATHS_SECONDS)
            return
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        await self._put(_died(sequence), b"", seconds=FORGOTTEN_SECONDS, headers=headers)

    async def _put(
        self, key: str, value: bytes, *, seconds: float, headers: dict[str, str] | None = None
    ) -> None:
        await self.connection.publish(
            self._subject(key),
            value,
            {**(headers or {}), "Nats-TTL": f"{max(1, round(seconds))}s"},
            stream=self._stream.name,
        )

    @property
    def _stream(self) -> StoredStream:
        return StoredStream(self.connection, shared_stream(self.connection.settings).name)

    def _subject(self, key: str) -> str:
        return f"$KV.{shared_bucket(self.connection.settings)}.{key}"


def _died(sequence: int) -> str:
    return f"died.{sequence}"


def _read(body: bytes) -> Hold | None:
    """Return what an entry says, or None if it says nothing that can be used."""
    try:
        hold = msgspec.json.decode(body, type=Hold)
    except msgspec.MsgspecError:
        return None
    if not hold.seconds > 0:
        return None
    return msgspec.structs.replace(hold, seconds=min(hold.seconds, LONGEST_HOLD_SECONDS))
