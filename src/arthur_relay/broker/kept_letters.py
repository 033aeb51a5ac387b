"""The dead letters that are in the broker, for people: read and removed from any machine."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from arthur_relay.broker.errors import BrokerAwayError
from arthur_relay.broker.letters import count_by_reason, decode
from arthur_relay.broker.nats.connection import Connection
from arthur_relay.broker.stored import StoredStream
from arthur_relay.broker.topology import letters_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterator
    from typing import Any

    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.broker.stored import StoredMessage, StreamState
    from arthur_relay.dead_letters import DeadLetter, LetterKey

TOGETHER: Final = 64
"""The letters that are asked for at the same time, at most."""

TOGETHER_BYTES: Final = 4 * 1024 * 1024
"""Their bytes, about."""


@dataclass(slots=True, eq=False)
class BrokerLetters:
    """Letters in the broker. See `KeptLetters` for what each method does; one thread.

    Each call has a connection of its own. A key is a letter's place in its stream.

    Attributes:
        settings: The broker's settings.
    """

    settings: BrokerSettings
    _copies: dict[LetterKey, list[LetterKey]] = field(default_factory=dict, init=False)

    def letters(self) -> Iterator[tuple[LetterKey, DeadLetter]]:
        """Yield the letters, oldest first.

        The broker recognises a letter that is written twice only for a while; what it has twice is
        yielded once, and removed together.

        Raises:
            OSError: The broker can't be asked.
            ConfigurationError: It refuses us, or a file of ours can't be used.
        """
        keys: dict[str, LetterKey] = {}
        self._copies.clear()
        with self._opened() as (run, stream):
            state = run(_state(stream))
            window = _window(state)
            at = max(1, state.first)
            while at <= state.last:
                found = run(_read(stream, at, window))
                if not any(found):
                    later = run(stream.next(at + window))
                    if later is None:
                        return
                    at, found = later.sequence, [later]
                    at += 1
                else:
                    at += window
                for message in found:
                    if message is None:
                        continue
                    name, letter = decode(message.body)
                    key = keys.setdefault(name, message.sequence) if name else message.sequence
                    if key == message.sequence:
                        yield key, letter
                    else:
                        self._copies.setdefault(key, []).append(message.sequence)

    def count(self) -> dict[str, int]:
        """Return how many letters are kept, by reason. Raises what `letters` does."""
        with self._opened() as (run, stream):
            return count_by_reason(run(_state(stream, subjects=">")).subjects)

    def remove(self, keys: Collection[LetterKey]) -> int:
        """Remove letters; returns how many were still there. Raises what `letters` does."""
        if not keys:
            return 0
        removed = 0
        with self._opened() as (run, stream):
            ordered = sorted(keys)
            for first in range(0, len(ordered), TOGETHER):
                found = run(self._remove(stream, ordered[first : first + TOGETHER]))
                removed += sum(found)
        return removed

    async def _remove(self, stream: StoredStream, keys: Collection[LetterKey]) -> list[bool]:
        copies = [copy for key in keys for copy in self._copies.get(key, ())]
        await asyncio.gather(*(stream.remove(each) for each in copies))
        return await asyncio.gather(*(stream.remove(each) for each in keys))

    @contextmanager
    def _opened(self) -> Iterator[tuple[Callable[[Coroutine[Any, Any, Any]], Any], StoredStream]]:
        connection = Connection(self.settings, "arthur-relay dead-letters")
        with asyncio.Runner() as runner:
            try:
                runner.run(connection.open())
                yield runner.run, StoredStream(connection, letters_stream(self.settings, 0).name)
            except BrokerAwayError as error:
                raise ConnectionError(f"the broker can't be asked: {error}") from None
            finally:
                runner.run(connection.close())


async def _state(stream: StoredStream, *, subjects: str = "") -> StreamState:
    state = await stream.state(subjects=subjects)
    if state is None:
        raise BrokerAwayError(f"it has no stream {stream.name}")
    return state


async def _read(stream: StoredStream, first: int, window: int) -> list[StoredMessage | None]:
    return await asyncio.gather(*(stream.at(each) for each in range(first, first + window)))


def _window(state: StreamState) -> int:
    """Return how many letters to ask for at the same time."""
    average = state.bytes // max(1, state.messages)
    return max(1, min(TOGETHER, TOGETHER_BYTES // max(1, average)))
