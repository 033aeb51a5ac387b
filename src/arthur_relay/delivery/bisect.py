"""Which rows a batch was refused for: it is halved until they are found.

Arthur answers rows one by one, but says 400 to a whole request that it can't read. One row that
makes it do so must not cost those beside it, which may be other people's. So the search goes on
until each row was either taken or refused by itself.
"""

from dataclasses import dataclass, field

STATUSES = frozenset({400, 409, 422, 500})
"""What a request is refused with for what is in it, and not for who sends it or where to. A 500 is
one where the destination has found out that it is well otherwise."""

MODELS_KEPT = 1000
"""Models of which it is known that a search found nothing, at most."""


@dataclass(slots=True, eq=False)
class Bisection:
    """The search in one batch, shared by the parts that it was divided into.

    Attributes:
        left: Rows that are neither taken nor refused by themselves.
        found_good: Whether any row of the batch was taken.
    """

    left: int
    found_good: bool = False


@dataclass(slots=True, eq=False)
class Bisector:
    """Decides into how many parts refused rows are divided. Pure.

    A batch of n rows of which k are bad takes about 2 · k · log2(n / k) requests more, and never
    more than 2 · n: each row by itself, and the halves above it. Where a whole search found no row
    that was taken, the next one goes without the halves, until something is taken again.
    """

    _hopeless: dict[str, None] = field(default_factory=dict)

    def divide(
        self, bisection: Bisection | None, model_id: str, *, rows: int
    ) -> tuple[Bisection, int] | None:
        """Return the search that refused rows are part of, and in how many parts they go on.

        Args:
            bisection: That which they are part of, if any.
            model_id: Their model.
            rows: How many they are.

        Returns:
            None when nothing can be divided: the one row is what was refused.
        """
        if rows > 1:
            if bisection is None:
                bisection = Bisection(rows)
            return bisection, rows if model_id in self._hopeless else 2
        if bisection is not None:
            bisection.left -= 1
            if bisection.left <= 0 and not bisection.found_good:
                while len(self._hopeless) >= MODELS_KEPT:
                    del self._hopeless[next(iter(self._hopeless))]
                self._hopeless[model_id] = None
        return None

    def taken(self, bisection: Bisection | None, model_id: str, *, rows: int) -> None:
        """Note that rows were taken."""
        if bisection is not None:
            bisection.found_good = True
            bisection.left -= rows
        self._hopeless.pop(model_id, None)
