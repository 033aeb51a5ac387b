"""The places of rows that leases pass over for now, by model.

The rows of a model that cannot be delivered may fill the spool. A lease reads past them to reach
those of other models, and remembers their places, to read them again later. Until then, a row takes
only the twelve bytes of its number and its size, because a spool may hold a million of them.
"""

from array import array
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial

from arthur_relay.buffers.spool.segment import Place, Segment

_NUMBER = "q"
_SIZE = "L"
"""The array types for row numbers of SQLite and for sizes in bytes."""

_MANY_TAKEN = 1000
"""A run is shortened after at least this many of its rows were taken."""


@dataclass(slots=True, eq=False)
class _Run:
    """Rows of one file; the first ones may have been taken."""

    segment: Segment
    numbers: "array[int]" = field(default_factory=partial(array, _NUMBER))
    sizes: "array[int]" = field(default_factory=partial(array, _SIZE))
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
    """The rows of a model by how often they were sent; those sent least often go first."""

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
    """Places of rows by model, those sent least often first. Worker's thread only."""

    _models: dict[str, _OfModel] = field(default_factory=dict)
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def add(self, model_id: str, place: Place, size: int, attempts: int) -> None:
        """Remember a row's place, the bytes of its body, and how often it was sent."""
        self._models.setdefault(model_id, _OfModel()).add(place, size, attempts)
        self._count += 1

    def take(self, model_id: str, limit: int, most_bytes: int) -> list[tuple[Place, int]]:
        """Return the first places of a model with the bytes of the rows, and forget them.

        Args:
            model_id: The model.
            limit: The maximum number of places.
            most_bytes: No further place is taken after the rows have this many bytes.
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
        """Return whether any row of a model is passed over."""
        return model_id in self._models

    def models(self, but: AbstractSet[str] = frozenset()) -> list[str]:
        """Return the models with rows that are passed over, except some."""
        return [model_id for model_id in self._models if model_id not in but]

    def take_over(self, other: "PassedOver") -> None:
        """Move all places of another one here."""
        others, other._models = other._models, {}  # noqa: SLF001 - it is one of these
        self._count, other._count = self._count + other._count, 0  # noqa: SLF001 - the same
        for model_id, theirs in others.items():
            ours = self._models.setdefault(model_id, _OfModel())
            for attempts, runs in theirs.runs.items():
                ours.runs.setdefault(attempts, []).extend(runs)

    def count_of(self, segment: Segment) -> int:
        """Return how many rows of a file are passed over."""
        return sum(
            len(run)
            for found in self._models.values()
            for run in found.all()
            if run.segment is segment
        )
