"""Finds the rows that a batch was refused for: the batch is halved until they are alone.

Arthur answers for each row, but returns 400 for a whole request that it can't read. One row that
causes this must not cost the other rows, which may be of another application. So the search goes
on until each row was either taken or refused by itself.
"""

from dataclasses import dataclass, field

STATUSES = frozenset({400, 409, 422, 500})
"""Statuses that are about the rows of a request, and not about its sender or its address. A 500 is,
where the destination has found out that it is well otherwise."""

MODELS_KEPT = 1000
"""The most models that are remembered because a search found no good row."""


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

    A batch of n rows of which k are bad takes about 2 · k · log2(n / k) more requests, and never
    more than 2 · n: one for each row, and the halves above it. After a search in which no row was
    taken, the next batch is divided into single rows at once, until a row is taken again.
    """

    _hopeless: dict[str, None] = field(default_factory=dict)

    def divide(
        self, bisection: Bisection | None, model_id: str, *, rows: int
    ) -> tuple[Bisection, int] | None:
        """Return the search that refused rows are part of, and into how many parts to divide them.

        Args:
            bisection: The search that they are part of so far, if any.
            model_id: Their model.
            rows: How many they are.

        Returns:
            None for a single row: it is the one that was refused.
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
        """Record that rows were taken."""
        if bisection is not None:
            bisection.found_good = True
            bisection.left -= rows
        self._hopeless.pop(model_id, None)
