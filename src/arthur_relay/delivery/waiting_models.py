"""The models whose rows stay in the buffer for now: a view of several sets, without a copy.

Each lease needs it, and tens of thousands of models may be held.
"""

from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from itertools import chain


class WaitingModels(AbstractSet[str]):
    """The union of several collections, which may change meanwhile.

    Args:
        parts: Collections of model ids with a fast membership test.
    """

    __slots__ = ("_parts",)

    def __init__(self, *parts: Collection[str]) -> None:
        self._parts = [part for part in parts if part]

    def __contains__(self, model_id: object) -> bool:
        """Return whether a model has to wait."""
        for part in self._parts:  # noqa: SIM110 - `any` takes long, and a lease asks for each row
            if model_id in part:
                return True
        return False

    def __ge__(self, other: AbstractSet[object]) -> bool:
        """Return whether all models of another set have to wait."""
        return all(model_id in self for model_id in other)

    def __iter__(self) -> Iterator[str]:
        """Yield the models, each once."""
        return iter(dict.fromkeys(chain.from_iterable(self._parts)))

    def __len__(self) -> int:
        """Return the number of models; one that is in several parts counts once for each."""
        return sum(map(len, self._parts))
