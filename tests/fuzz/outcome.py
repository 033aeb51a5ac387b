"""What a fuzz target says: what it did, or which input broke what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


class Broken(AssertionError):  # noqa: N818 - an invariant is
    """An input broke an invariant.

    Args:
        invariant: Which one.
        given: The input.
    """

    def __init__(self, invariant: str, given: object) -> None:
        super().__init__(f"{invariant}\nby the input: {given!r}")


@dataclass
class Outcome:
    """What was done: how often each thing happened."""

    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {what}" for what, count in sorted(self.counts.items()))
