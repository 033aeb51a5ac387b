"""Rows in the spool's files that are passed over for now, by model: their places, no more.

A model that can't be delivered may fill the spool. What waits of it has been read past, so that
the rows behind it can be read, and is read once more when its turn comes. Until then a row costs
the twelve bytes of its number and its size: a spool may hold a million of them.
"""

from array import array
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from arthur_relay.buffers.spool.segment import Segment

Place = tuple[Segment, int]
"""A file, and the sequence number in it."""

_NUMBER = "q"
_SIZE = "L"
"""The types that arrays have for SQLite's row numbers, and for bytes."""

_MANY_TAKEN = 1000
"""Rows at the start of a run that are done with, before it is made shorter."""


@dataclass(slots=True, eq=False)
class _Run:
    """Rows of one file, of which the first ones are done with."""

    segment: Segment
    numbers: "array[int]" = field(default_factory=lambda: array(_NUMBER))
    sizes: "array[int]" = field(default_factory=lambda: array(_SIZE))
    taken: int = 0

    def __len__(self) -> int:
        return len(self.numbers) - self.taken

    def add(self, number: int, size: int) -> None:
        self.numbers.append(number)
        self.sizes.append(size)

    def take(self) -> tuple[Place, int]:
        found = (self.segment, self.numbers[self.taken]), self.sizes[self.taken]
        self.taken += 1
        if self.taken >= max(_MANY_TAKEN, len(self.numbers) // 2):
            del self.numbers[: self.taken], self.sizes[: self.taken]
            self.taken = 0
        return found


@dataclass(slots=True, eq=False)
class _OfModel:
    """The rows of a model, by how often they were sent; those first that were least often."""

    runs: dict[int, list[_Run]] = field(default_factory=dict)

    def add(self, place: Place, size: int, attempts: int) -> None:
        segment, number = place
        runs = self.runs.setdefault(attempts, [])
        if not runs or runs[-1].segment is not segment:
            runs.append(_Run(segment))
        runs[-1].add(number, size)

    def take(self) -> tuple[Place, int]:
        attempts = min(self.runs)
        runs = self.runs[attempts]
        found = runs[0].take()
        if not len(runs[0]):
            del runs[0]
        if not runs:
            del self.runs[attempts]
        return found

    def all(self) -> list[_Run]:
        return [run for runs in self.runs.values() for run in runs]


@dataclass(slots=True, eq=False)
class PassedOver:
    """What is passed over; of each model those first that were sent least. Worker's thread only."""

    _models: dict[str, _OfModel] = field(default_factory=dict)
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def add(self, model_id: str, place: Place, size: int, attempts: int) -> None:
        """Take in a row's place, the bytes of its body, and how often it was sent."""
        self._models.setdefault(model_id, _OfModel()).add(place, size, attempts)
        self._count += 1

    def take(self, model_id: str, limit: int, most_bytes: int) -> list[tuple[Place, int]]:
        """Return the first places of a model with their rows' bytes, and forget them.

        Args:
            model_id: The model.
            limit: So many of them at most.
            most_bytes: Until their rows have so many bytes; the last one may have more.
        """
        found = self._models.get(model_id)
        if found is None:
            return []
        taken: list[tuple[Place, int]] = []
        while len(taken) < limit and most_bytes > 0 and found.runs:
            taken.append(found.take())
            most_bytes -= taken[-1][1]
        if not found.runs:
            del self._models[model_id]
        self._count -= len(taken)
        return taken

    def has(self, model_id: str) -> bool:
        """Say whether anything of a model is passed over."""
        return model_id in self._models

    def models(self, but: AbstractSet[str] = frozenset()) -> list[str]:
        """Return the models that anything is passed over of."""
        return [model_id for model_id in self._models if model_id not in but]

    def take_over(self, other: "PassedOver") -> None:
        """Take in all that another one has, which has nothing then."""
        others, other._models = other._models, {}  # noqa: SLF001 - it is one of these
        self._count, other._count = self._count + other._count, 0  # noqa: SLF001 - the same
        for model_id, theirs in others.items():
            ours = self._models.setdefault(model_id, _OfModel())
            for attempts, runs in theirs.runs.items():
                ours.runs.setdefault(attempts, []).extend(runs)

    def count_of(self, segment: Segment) -> int:
        """Return how many rows of one file are passed over."""
        return sum(
            len(run)
            for found in self._models.values()
            for run in found.all()
            if run.segment is segment
        )
