"""Rows in the spool's files that are passed over for now, by model: their places, no more.

A model that can't be delivered may fill the spool. What waits of it has been read past, so that
the rows behind it can be read, and is read once more when its turn comes.
"""

from collections import deque
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain

from arthur_relay.buffers.spool_part import Part
from arthur_relay.row import Row

Place = tuple[Part, int]
"""A file, and the sequence number in it."""


@dataclass(slots=True, frozen=True)
class Waiting:
    """A row that waits.

    Attributes:
        place: Where it is.
        epoch: The one that it is counted in.
        row: The row, while the file does not have it as it is; else None.
    """

    place: Place
    epoch: int
    row: Row | None = None


@dataclass(slots=True, eq=False)
class _OfModel:
    fresh: deque[Waiting] = field(default_factory=deque)
    again: deque[Waiting] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class Apart:
    """What is passed over; of each model those first that were never sent. Worker's thread only."""

    _models: dict[str, _OfModel] = field(default_factory=dict)
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def add(self, model_id: str, waiting: Waiting, *, was_sent: bool) -> None:
        """Take in a row's place."""
        found = self._models.setdefault(model_id, _OfModel())
        (found.again if was_sent else found.fresh).append(waiting)
        self._count += 1

    def take(self, model_id: str, limit: int) -> list[Waiting]:
        """Return the first places of a model, `limit` at most, and forget them."""
        found = self._models.get(model_id)
        if found is None:
            return []
        taken: list[Waiting] = []
        while len(taken) < limit and (found.fresh or found.again):
            taken.append((found.fresh or found.again).popleft())
        if not (found.fresh or found.again):
            del self._models[model_id]
        self._count -= len(taken)
        return taken

    def models(self, but: AbstractSet[str] = frozenset()) -> list[str]:
        """Return the models that anything is passed over of."""
        return [model_id for model_id in self._models if model_id not in but]

    def of(self, part: Part) -> Iterator[Waiting]:
        """Yield what is in one file."""
        for found in self._models.values():
            for waiting in chain(found.fresh, found.again):
                if waiting.place[0] is part:
                    yield waiting
