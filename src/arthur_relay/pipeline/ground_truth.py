"""Ground truth goes out behind the inference that it belongs to; pure, the time is an argument.

While the inference is on its way from here, its ground truth waits until that is settled. When
Arthur does not know the inference, another process may still have it: then it is asked again.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from heapq import heappop, heappush

from arthur_relay.row import Row, RowKind

FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 60.0
"""The waits before Arthur is asked again; doubled each time, with jitter on their upper half."""

PATIENCE_SECONDS = 3600.0
"""How long an inference that Arthur does not know may take to get there."""

MAX_POSTPONED = 10_000
"""Rows that wait for inferences of others, at most: each one is held in memory."""

URGENT_WAIT_SECONDS = 0.25
URGENT_WAITS = 4
"""The same while the relay closes: a neighbour that closes as well may be delivering just now."""

Inference = tuple[str, str]
"""The model and the id."""


@dataclass(slots=True)
class _Patience:
    """How long a row has been waiting for an inference that Arthur does not know."""

    since: float
    waits: int = 0


class GroundTruthOrder:
    """Says when ground truth may go. Worker's loop only; what it keeps is leased.

    Args:
        random: Returns a number in 0..1.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._behind: defaultdict[Inference, list[Row]] = defaultdict(list)
        self._free: list[Row] = []
        self._postponed: list[tuple[float, int, Row]] = []
        self._patience: dict[Row, _Patience] = {}
        self._number = 0

    def admit(
        self,
        rows: list[Row],
        on_their_way: Callable[[AbstractSet[Inference]], AbstractSet[Inference]],
    ) -> list[Row]:
        """Take rows that were leased, and return those that may go now, in their order.

        Args:
            rows: The rows.
            on_their_way: Returns which of some inferences are leased and not settled.
        """
        truth = RowKind.GROUND_TRUTH  # found once: Python 3.11 takes long to find a member
        wanted = {row.inference for row in rows if row.kind is truth}
        if not wanted:  # nearly always
            return rows
        busy = on_their_way(wanted)
        may_go = []
        for row in rows:
            if row.kind is truth and row.inference in busy:
                self._behind[row.inference].append(row)
            else:
                may_go.append(row)
        return may_go

    def settled(self, rows: Iterable[Row]) -> None:
        """Let go what was waiting for these rows."""
        if not (self._behind or self._patience):  # nearly always
            return
        for row in rows:
            self._patience.pop(row, None)
            if row.kind is RowKind.INFERENCE:
                self._free += self._behind.pop(row.inference, ())

    def postpone(self, row: Row, now: float, *, urgent: bool = False) -> bool:
        """Keep a row of which Arthur does not know the inference, to ask again later.

        Returns:
            Whether that still makes sense; if not, the row is given back.
        """
        patience = self._patience.setdefault(row, _Patience(now))
        too_long = (
            patience.waits >= URGENT_WAITS if urgent else now - patience.since >= PATIENCE_SECONDS
        )
        if too_long or len(self._postponed) >= MAX_POSTPONED:
            return False
        wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(patience.waits, 30))
        wait *= 0.5 + 0.5 * self._random()
        patience.waits += 1
        self._number += 1
        due = now + (URGENT_WAIT_SECONDS if urgent else wait)
        heappush(self._postponed, (due, self._number, row))
        return True

    def due(self, now: float) -> list[Row]:
        """Return the rows that may go by now."""
        due, self._free = self._free, []
        while self._postponed and self._postponed[0][0] <= now:
            due.append(heappop(self._postponed)[2])
        return due

    def next_due(self) -> float | None:
        """Return when the next row may go, or None when none waits for a time."""
        return self._postponed[0][0] if self._postponed else None

    def hurry(self, now: float) -> None:
        """Let everything that waits for a time go now."""
        self._postponed = [(now, number, row) for _, number, row in self._postponed]
        self._postponed.sort()
