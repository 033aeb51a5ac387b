"""All dead letters that there are, wherever they are kept: for people who look for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import count

from arthur_relay.dead_letters import DeadLetter, DeadLetterStore, LetterKey
from arthur_relay.dead_letters.sqlite import SqliteStore, identity, salvaged


class Everywhere:
    """The letters of several keepers, and of files that were damaged; each of them once.

    `letters`, `remove` and `take_back` raise what a keeper does.

    Args:
        keepers: Where letters are kept.
    """

    def __init__(self, keepers: Sequence[DeadLetterStore]) -> None:
        self._keepers = tuple(keepers)
        self._places: dict[LetterKey, list[tuple[int, LetterKey]]] = {}

    def letters(self) -> Iterator[tuple[LetterKey, DeadLetter]]:
        """Yield the letters with keys for `remove`, those of one keeper oldest first."""
        keys: dict[tuple[object, ...], LetterKey] = {}
        numbers = count()
        self._places.clear()
        for place, keeper in enumerate(self._keepers):
            here: set[tuple[object, ...]] = set()
            for key, letter in keeper.letters():
                name = identity(letter)
                known = keys.get(name)
                if known is not None and name not in here:
                    self._places[known].append((place, key))
                    continue  # another keeper has told of it
                here.add(name)
                number = keys[name] = next(numbers)
                self._places[number] = [(place, key)]
                yield number, letter
        for keeper in self._databases():
            for path in keeper.set_aside_files():
                for letter in salvaged(path):
                    if identity(letter) not in keys:
                        number = keys[identity(letter)] = next(numbers)
                        yield number, letter

    def remove(self, keys: Collection[LetterKey]) -> int:
        """Keep letters no longer, wherever they are."""
        by_place: dict[int, set[LetterKey]] = defaultdict(set)
        for number in keys:
            for place, key in self._places.get(number, ()):
                by_place[place].add(key)
        for place, its_keys in by_place.items():
            self._keepers[place].remove(its_keys)
        return len([key for key in keys if key in self._places])

    def take_back(self) -> None:
        """Take over what can be read of files that were set aside, so that it can be removed."""
        for keeper in self._databases():
            keeper.take_back()

    def _databases(self) -> Iterator[SqliteStore]:
        for keeper in self._keepers:
            if isinstance(keeper, SqliteStore):
                yield keeper
