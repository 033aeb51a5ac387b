"""Rows in the spool's files that are passed over for now, by model: their places, no more.

A model that can't be delivered may fill the spool. What waits of it has been read past, so that
the rows behind it can be read, and is read once more when its turn comes. Until then a row costs
the eight bytes of its number: a spool may hold a million of them.
"""

from array import array
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from arthur_relay.buffers.spool_part import Part

Place = tuple[Part, int]
"""A file, and the sequence number in it."""

_NUMBERS = "q"
"""The type of SQLite's row numbers: eight bytes with a sign."""

_MANY_TAKEN = 1000
"""Numbers at the start of a run that are done with, before it is made shorter."""


@dataclass(slots=True, eq=False)
class _Run:
    """Numbers of one file, of which the first ones are done with."""

    part: Part
    numbers: "array[int]" = field(default_factory=lambda: array(_NUMBERS))
    taken: int = 0

    def __len__(self) -> int:
        return len(self.numbers) - self.taken

    def take(self, limit: int) -> list[Place]:
        end = self.taken + limit
        found = [(self.part, number) for number in self.numbers[self.taken : end]]
        self.taken += len(found)
        if self.taken >= max(_MANY_TAKEN, len(self.numbers) // 2):
            del self.numbers[: self.taken]
            self.taken = 0
        return found


@dataclass(slots=True, eq=False)
class _Places:
    """Places, first in, first out."""

    runs: list[_Run] = field(default_factory=list)

    def add(self, part: Part, number: int) -> None:
        if not self.runs or self.runs[-1].part is not part:
            self.runs.append(_Run(part))
        self.runs[-1].numbers.append(number)

    def take(self, limit: int) -> list[Place]:
        taken: list[Place] = []
        while self.runs and len(taken) < limit:
            taken += self.runs[0].take(limit - len(taken))
            if not len(self.runs[0]):
                del self.runs[0]
        return taken


@dataclass(slots=True, eq=False)
class _OfModel:
    fresh: _Places = field(default_factory=_Places)
    again: _Places = field(default_factory=_Places)

    def __bool__(self) -> bool:
        return bool(self.fresh.runs or self.again.runs)


@dataclass(slots=True, eq=False)
class Apart:
    """What is passed over; of each model those first that were never sent. Worker's thread only."""

    _models: dict[str, _OfModel] = field(default_factory=dict)
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def add(self, model_id: str, place: Place, *, was_sent: bool) -> None:
        """Take in a row's place."""
        found = self._models.setdefault(model_id, _OfModel())
        (found.again if was_sent else found.fresh).add(*place)
        self._count += 1

    def take(self, model_id: str, limit: int) -> list[Place]:
        """Return the first places of a model, `limit` at most, and forget them."""
        found = self._models.get(model_id)
        if found is None:
            return []
        taken = found.fresh.take(limit)
        taken += found.again.take(limit - len(taken))
        if not found:
            del self._models[model_id]
        self._count -= len(taken)
        return taken

    def models(self, but: AbstractSet[str] = frozenset()) -> list[str]:
        """Return the models that anything is passed over of."""
        return [model_id for model_id in self._models if model_id not in but]

    def count_of(self, part: Part) -> int:
        """Return how many rows of one file are passed over."""
        return sum(
            len(run)
            for found in self._models.values()
            for run in (*found.fresh.runs, *found.again.runs)
            if run.part is part
        )
