"""Randomness that a test knows beforehand."""

from __future__ import annotations


class Always:
    """Returns one number, of 0 to 1."""

    def __init__(self, number: float) -> None:
        self._number = number

    def random(self) -> float:
        return self._number
