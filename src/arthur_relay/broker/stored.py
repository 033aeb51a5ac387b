"""What a stream of the broker has: its messages and their number, read from the stream's leader."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from arthur_relay.errors import RelayError

if TYPE_CHECKING:
    from collections.abc import Mapping


class AsksBroker(Protocol):
    """Asks the broker of its streams."""

    async def ask_api(
        self, question: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return the answer; None when what was asked for is not there.

        Raises:
            BrokerAwayError: The broker can't be asked now.
            ConfigurationError: It refuses.
        """
        ...


class StoredMessage(NamedTuple):
    """A message that the broker keeps."""

    sequence: int
    """Its place in the stream."""
    body: bytes
    age_seconds: float
    """How long ago it was stored, by the broker's clock."""


class StreamState(NamedTuple):
    """What a stream has."""

    messages: int
    bytes: int
    first: int
    """The sequence of the oldest message."""
    last: int
    """The sequence of the newest message that it ever had."""
    subjects: Mapping[str, int]
    """The messages by subject, where those were asked for."""


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream. Each method raises what `AsksBroker` does.

    Attributes:
        broker: Whom to ask.
        name: The stream's name.
    """

    broker: AsksBroker
    name: str

    async def describe(self, *, subjects: str = "") -> dict[str, Any] | None:
        """Return what the broker says of it, or None when there is no such stream.

        Args:
            subjects: Have the messages of these counted by subject.
        """
        body = {"subjects_filter": subjects} if subjects else None
        return await self.broker.ask_api(f"STREAM.INFO.{self.name}", body)

    async def describe_consumers(self) -> list[dict[str, Any]]:
        """Return what the broker says of its consumers."""
        found = await self.broker.ask_api(f"CONSUMER.LIST.{self.name}") or {}
        return found.get("consumers") or []

    async def state(self, *, subjects: str = "") -> StreamState | None:
        """Return what it has; as `describe`."""
        found = await self.describe(subjects=subjects)
        if found is None:
            return None
        state = found["state"]
        return StreamState(
            state["messages"],
            state["bytes"],
            state["first_seq"],
            state["last_seq"],
            state.get("subjects") or {},
        )

    async def last(self, subject: str) -> StoredMessage | None:
        """Return the last message of a subject, with its age; None when there is none."""
        found = await self._get({"last_by_subj": subject})
        if found is None:
            return None
        about = await self.describe() or {}
        # Both times are the broker's: no other machine's clock is compared with ours.
        age = _moment(about["ts"]) - _moment(found["time"]) if "ts" in about else 0.0
        return StoredMessage(found["seq"], _body(found), max(0.0, age))

    async def at(self, sequence: int) -> StoredMessage | None:
        """Return the message of a sequence, without its age; None when there is none."""
        return _without_age(await self._get({"seq": sequence}))

    async def next(self, sequence: int, subjects: str = ">") -> StoredMessage | None:
        """Return the first message from a sequence on, without its age; None when there is none.

        Args:
            sequence: Where to begin.
            subjects: What its subject has to match.
        """
        return _without_age(await self._get({"seq": sequence, "next_by_subj": subjects}))

    async def remove(self, sequence: int) -> bool:
        """Remove a message. Returns whether it was there."""
        try:
            found = await self.broker.ask_api(f"STREAM.MSG.DELETE.{self.name}", {"seq": sequence})
        except RelayError:
            # What the broker answers when the message is not there depends on where it had been.
            if await self.at(sequence) is not None:
                raise
            return False
        return found is not None

    async def purge(self, *, keep: int) -> int:
        """Remove the oldest messages.

        Args:
            keep: How many of the newest ones stay.

        Returns:
            How many were removed, by this call and no other one.
        """
        found = await self.broker.ask_api(f"STREAM.PURGE.{self.name}", {"keep": keep})
        return 0 if found is None else int(found["purged"])

    async def _get(self, question: Mapping[str, object]) -> dict[str, Any] | None:
        found = await self.broker.ask_api(f"STREAM.MSG.GET.{self.name}", question)
        return None if found is None else found["message"]


def _without_age(found: Mapping[str, Any] | None) -> StoredMessage | None:
    return None if found is None else StoredMessage(found["seq"], _body(found), 0.0)


def _moment(text: str) -> float:
    """Return one of the broker's times in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def _body(message: Mapping[str, Any]) -> bytes:
    return base64.b64decode(message.get("data") or "")
