"""The models whose rows stay in the buffer for now: a view of some sets, none of which is copied.

It is asked for before each lease, and tens of thousands of models may be held.
"""

from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from itertools import chain


class WaitingModels(AbstractSet[str]):
    """The union of some collections, as they are at the time.

    Args:
        parts: Collections of ids, in which an id is found quickly.
    """

    __slots__ = ("_parts",)

    def __init__(self, *parts: Collection[str]) -> None:
        self._parts = [part for part in parts if part]

    def __contains__(self, model_id: object) -> bool:
        """Say whether a model has to wait."""
        for part in self._parts:  # noqa: SIM110 - `any` takes long, and a lease asks for each row
            if model_id in part:
                return True
        return False

    def __ge__(self, other: AbstractSet[object]) -> bool:
        """Say whether all of some models have to wait; how many others do is not asked."""
        return all(model_id in self for model_id in other)

    def __iter__(self) -> Iterator[str]:
        """Yield the models, each once."""
        return iter(dict.fromkeys(chain.from_iterable(self._parts)))

    def __len__(self) -> int:
        """Return how many they are, those that are in several parts once for each."""
        return sum(map(len, self._parts))
