"""A message that the broker has handed out to us, until it is acknowledged or given back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Carrier(Protocol):
    """Carries our answers to the broker; both methods raise `BrokerAwayError`."""

    async def ask(self, subject: str, body: bytes) -> bytes:
        """Send a message, and return the answer."""
        ...

    async def send(self, subject: str, body: bytes, *, reply: str = "") -> None:
        """Send a message and wait for nothing."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class Delivery:
    """A message that was handed out to us, until it is acknowledged or given back.

    Attributes:
        carrier: Carries our answers; after the worker's loop died, the next loop's connection.
        headers: Its headers.
        body: Its body; may be forgotten once it is read.
        sequence: Its place in the stream.
        times: How often it was handed out, this time included.
        reply: Where our answers go.
    """

    carrier: Carrier
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    sequence: int
    times: int
    reply: str

    async def acknowledge(self) -> None:
        """Have the broker forget it, and wait until it has; a second time changes nothing.

        Raises:
            BrokerAwayError: It is not known whether it has.
        """
        await self.carrier.ask(self.reply, b"+ACK")

    async def give_back(self, delay_seconds: float = 0.0) -> None:
        """Have it handed out again, to anyone. Raises what `acknowledge` does."""
        delay = json.dumps({"delay": round(delay_seconds * 1e9)}) if delay_seconds else ""
        await self.carrier.send(self.reply, f"-NAK {delay}".strip().encode())

    async def keep(self) -> None:
        """Have the broker hear that we still work on it. Raises what `acknowledge` does."""
        await self.carrier.ask(self.reply, b"+WPI")
