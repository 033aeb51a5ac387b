"""Which rows a batch was refused for: it is halved until they are found, within bounds.

Arthur answers rows one by one, but says 400 to a whole request that it can't read. One row that
makes it do so must not cost those beside it, which may be other people's.
"""

from dataclasses import dataclass, field

STATUSES = frozenset({400, 409, 422})
"""What a request is answered with for what is in it, and not for who sends it or where to."""

MAX_REQUESTS = 64
"""Spent on one batch: enough for three rows in 500 that are each alone, at 2 · log2(500) a row."""


@dataclass(slots=True, eq=False)
class Search:
    """The search in one batch, shared by the parts that it was halved into.

    Attributes:
        requests_left: How many more may be made.
        found_good: Whether any row of the batch was taken.
    """

    requests_left: int = MAX_REQUESTS
    found_good: bool = False


@dataclass(slots=True, eq=False)
class Suspects:
    """Decides whether a batch that was refused is worth a search. Pure.

    Where a whole search found no row that was taken, it is not for a row of its own that the next
    batch will be refused, and no other is begun until something is taken again.
    """

    _hopeless: set[str] = field(default_factory=set)

    def search(self, search: Search | None, model_id: str, *, rows: int) -> Search | None:
        """Return the search to go on with in the halves of refused rows, or None to give up.

        Args:
            search: That which the rows are part of, if any.
            model_id: Their model.
            rows: How many they are.
        """
        if search is None:
            if model_id in self._hopeless:
                return None
            search = Search()
        if rows > 1 and search.requests_left >= 2:
            search.requests_left -= 2
            return search
        if search.requests_left < 2 and not search.found_good:
            self._hopeless.add(model_id)
        return None

    def taken(self, search: Search | None, model_id: str) -> None:
        """Note that rows were taken."""
        if search is not None:
            search.found_good = True
        self._hopeless.discard(model_id)
