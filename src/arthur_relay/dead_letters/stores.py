"""The stores for dead letters that the settings ask for, and the letters of all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

from arthur_relay.dead_letters import (
    DeadLetter,
    DeadLetters,
    DeadLetterStore,
    KeptLetters,
    LetterKey,
    identity,
)
from arthur_relay.dead_letters.jsonl import JsonLinesStore
from arthur_relay.dead_letters.memory import MemoryStore

if TYPE_CHECKING:
    from arthur_relay.dead_letters.sqlite import SqliteStore
    from arthur_relay.settings import RelaySettings


def open_dead_letters(settings: RelaySettings) -> DeadLetters:
    """Return the dead letters of a relay."""
    return DeadLetters(open_stores(settings), on_dead_letter=settings.on_dead_letter)


def open_stores(settings: RelaySettings, *, with_damaged: bool = False) -> list[DeadLetterStore]:
    """Return the stores; the relay itself reads the first one.

    Args:
        settings: The settings of the stores.
        with_damaged: Whether the stores also yield letters that can't be read.
    """
    stores: list[DeadLetterStore] = []
    if settings.spool_dir is None:
        stores.append(MemoryStore(max_bytes=settings.dead_letter_ring_bytes))
    else:
        # Imported here, because SQLite takes longer to import than the rest of this package.
        from arthur_relay.dead_letters.sqlite import SqliteStore  # noqa: PLC0415 - see above

        stores.append(SqliteStore(settings.spool_dir, max_bytes=settings.dead_letter_bytes))
    return [*stores, *open_files(settings, with_damaged=with_damaged)]


def open_files(settings: RelaySettings, *, with_damaged: bool = False) -> list[DeadLetterStore]:
    """Return the file that letters are kept in beside any other store, if there is one.

    Args:
        settings: The settings of the stores.
        with_damaged: Whether it also yields letters that can't be read.
    """
    path, most = settings.dead_letter_file, settings.dead_letter_bytes
    if path is None:
        return []
    return [JsonLinesStore(path, max_bytes=most, with_damaged=with_damaged)]


class AllStores:
    """The letters of several stores and of their quarantined files, each letter once.

    `letters`, `remove` and `take_back` raise what a store does.

    Args:
        stores: Where letters are kept.
        has_both_products: Whether letters for both of Arthur's products may be among them.

    Attributes:
        has_both_products: As given.
    """

    def __init__(self, stores: Sequence[KeptLetters], *, has_both_products: bool = False) -> None:
        from arthur_relay.dead_letters.sqlite import SqliteStore  # noqa: PLC0415 - see `open_stores`

        self.has_both_products = has_both_products
        self._stores = tuple(stores)
        self._databases: list[SqliteStore] = [
            store for store in stores if isinstance(store, SqliteStore)
        ]
        self._copies: dict[LetterKey, list[tuple[int, LetterKey]]] = {}

    def letters(self) -> Iterator[tuple[LetterKey, DeadLetter]]:
        """Yield the letters with keys for `remove`, those of one store oldest first."""
        keys: dict[tuple[object, ...], LetterKey] = {}
        numbers = count()
        self._copies.clear()
        for index, store in enumerate(self._stores):
            here: set[tuple[object, ...]] = set()
            for key, letter in store.letters():
                name = identity(letter)
                known = keys.get(name)
                if known is not None and name not in here:
                    self._copies[known].append((index, key))
                    continue  # another store has yielded it
                here.add(name)
                number = keys[name] = next(numbers)
                self._copies[number] = [(index, key)]
                yield number, letter
        for database in self._databases:
            for letter in database.quarantined_letters():
                name = identity(letter)
                if name not in keys:
                    number = keys[name] = next(numbers)
                    yield number, letter

    def remove(self, keys: Collection[LetterKey]) -> int:
        """Remove letters from all stores that have them; returns how many letters those were."""
        by_store: dict[int, set[LetterKey]] = defaultdict(set)
        for number in keys:
            for index, key in self._copies.get(number, ()):
                by_store[index].add(key)
        for index, its_keys in by_store.items():
            self._stores[index].remove(its_keys)
        return len([key for key in keys if key in self._copies])

    def take_back(self) -> None:
        """Move the letters of quarantined files back into their stores."""
        for database in self._databases:
            database.take_back()
