"""Randomness as an argument, so that the pure parts stay pure."""

from typing import Protocol


class Randomness(Protocol):
    """The module `random` is one, and so is a `random.Random`."""

    def random(self) -> float:
        """Return a number of at least 0 and below 1."""
        ...
