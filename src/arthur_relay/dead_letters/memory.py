"""Dead letters in memory: the newest ones, as many as fit."""

from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence

from arthur_relay.dead_letters import DeadLetter, LetterKey
from arthur_relay.system import native


class MemoryStore:
    """Letters in memory. See `DeadLetterStore` for what each method does; none raises.

    Args:
        max_bytes: The most bytes that they may take.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._letters: deque[tuple[LetterKey, DeadLetter]] = deque()
        self._size = 0
        self._last_key = 0
        self._lock = native.Lock()

    def add(self, letters: Sequence[DeadLetter]) -> int:
        """Keep letters; returns how many older ones were evicted."""
        evicted = 0
        with self._lock:
            for given in letters:
                letter = given.within(self._max_bytes)
                self._last_key += 1
                self._letters.append((self._last_key, letter))
                self._size += letter.size
            while self._size > self._max_bytes:
                self._size -= self._letters.popleft()[1].size
                evicted += 1
        return evicted

    def letters(self) -> Iterator[tuple[LetterKey, DeadLetter]]:
        """Yield the letters, oldest first."""
        with self._lock:
            kept = list(self._letters)
        yield from kept

    def count(self) -> Counter[str]:
        """Return how many letters are kept, by reason."""
        return Counter([letter.reason for _, letter in self.letters()])

    def remove(self, keys: Collection[LetterKey]) -> int:
        """Remove letters; returns how many were still there."""
        with self._lock:
            before = len(self._letters)
            self._letters = deque(pair for pair in self._letters if pair[0] not in keys)
            self._size = sum([letter.size for _, letter in self._letters])
            return before - len(self._letters)
