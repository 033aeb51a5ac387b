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
from arthur_relay.row import History, Row

Place = tuple[Part, int]
"""A file, and the sequence number in it."""


@dataclass(slots=True, frozen=True)
class Waiting:
    """A row that waits.

    Attributes:
        place: Where it is.
        epoch: The one that it is counted in.
        size: Bytes of its body.
        row: The row, while the file does not have its body as it is; else None.
        history: Its history, while the file does not have that; else None.
    """

    place: Place
    epoch: int
    size: int
    row: Row | None = None
    history: History | None = None


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

    def take(self, model_id: str, limit: int, most_bytes: int) -> list[Waiting]:
        """Return the first places of a model, and forget them.

        Args:
            model_id: The model.
            limit: So many of them at most.
            most_bytes: Until their rows have so many bytes; the last one may have more.
        """
        found = self._models.get(model_id)
        if found is None:
            return []
        taken: list[Waiting] = []
        while len(taken) < limit and most_bytes > 0 and (found.fresh or found.again):
            taken.append((found.fresh or found.again).popleft())
            most_bytes -= taken[-1].size
        if not (found.fresh or found.again):
            del self._models[model_id]
        self._count -= len(taken)
        return taken

    def has(self, model_id: str) -> bool:
        """Say whether anything of a model is passed over."""
        return model_id in self._models

    def models(self, but: AbstractSet[str] = frozenset()) -> list[str]:
        """Return the models that anything is passed over of."""
        return [model_id for model_id in self._models if model_id not in but]

    def take_over(self, other: "Apart") -> None:
        """Take in all that another one has, which has nothing then."""
        others, other._models = other._models, {}  # noqa: SLF001 - it is one of these
        self._count, other._count = self._count + other._count, 0  # noqa: SLF001 - the same
        for model_id, theirs in others.items():
            ours = self._models.setdefault(model_id, _OfModel())
            ours.fresh += theirs.fresh
            ours.again += theirs.again

    def of(self, part: Part) -> Iterator[Waiting]:
        """Yield what is in one file."""
        for found in self._models.values():
            for waiting in chain(found.fresh, found.again):
                if waiting.place[0] is part:
                    yield waiting
