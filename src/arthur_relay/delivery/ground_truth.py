"""Ground truth is sent after the inference that it belongs to; pure, the time is an argument.

While the inference itself is on its way, its ground truth waits until that is settled. When Arthur
does not know the inference, another process may still have it: then the ground truth is sent again.

Only few of these rows wait in memory. The others are put off: they wait in the buffer, and some of
each model are sent from there now and then.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from heapq import heapify, heappop, heappush

from arthur_relay.row import Row, RowKind, body_bytes
from arthur_relay.system.back_off import upper_half
from arthur_relay.system.randomness import Randomness

FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 60.0
"""The bounds of the wait before a row is sent again. It waits for as long as it has waited so far,
with jitter on the upper half."""

PATIENCE_SECONDS = 3600.0
"""How long an inference that Arthur does not know may take to arrive there, restarts included."""

MAX_KEPT_ROWS = 10_000
MAX_KEPT_BYTES = 4 * 1024 * 1024
"""The most that waits in memory; further rows are put off."""

URGENT_WAIT_SECONDS = 0.25
URGENT_WAITS = 4
"""The same while the relay closes: another process that closes may be delivering just now."""

LOOK_SECONDS = 5.0
"""How often to look whether the inferences that are waited for are still on their way."""

Inference = tuple[str, str]
"""The model and the id."""

OnTheirWay = Callable[[AbstractSet[Inference]], AbstractSet[Inference]]
"""Returns which of some inferences are leased and not settled."""


class GroundTruthOrder:
    """Decides when ground truth may be sent. Worker's loop only; the rows that it keeps are leased.

    Args:
        random: The randomness of jitter.
    """

    def __init__(self, random: Randomness) -> None:
        self._random = random
        self.clear()

    def clear(self) -> None:
        """Forget all rows: the buffer has them, and will hand them out again."""
        self._after: defaultdict[Inference, list[Row]] = defaultdict(list)
        self._looked_at = 0.0
        self._free: list[Row] = []
        self._postponed: list[tuple[float, int, Row]] = []
        self._urgent_waits: dict[Row, int] = {}
        self._beyond: list[Row] = []
        self._put_off: dict[str, float] = {}  # when each model's are due
        self._number = 0
        self._rows = self._bytes = 0

    def keep_back(
        self, truths: Sequence[Row], on_their_way: OnTheirWay, now: float = 0.0
    ) -> AbstractSet[Row]:
        """Keep ground truth whose inference is on its way, until that is settled.

        Args:
            truths: Ground truth that was leased.
            on_their_way: Returns which of some inferences are leased and not settled.
            now: The time.

        Returns:
            The rows that must not go now: those that are kept here, and those `beyond`.
        """
        busy = on_their_way({row.inference for row in truths})
        early = set()
        for row in truths:
            if row.inference in busy:
                early.add(row)
                if self._keep(row, now + FIRST_WAIT_SECONDS):
                    if not self._after:
                        self._looked_at = now
                    self._after[row.inference].append(row)
        return early

    def settled(self, rows: Iterable[Row]) -> None:
        """Release the ground truth that waits for these rows."""
        if not (self._after or self._urgent_waits or self._put_off):  # nearly always
            return
        for row in rows:
            if row.kind is RowKind.INFERENCE:
                self._free += self._after.pop(row.inference, ())
                continue
            self._urgent_waits.pop(row, None)
            if row.model_id in self._put_off:  # this one is settled, so another may be sent
                self._put_off[row.model_id] = float("-inf")

    def postpone(self, row: Row, now: float, *, waited: float, urgent: bool = False) -> bool:
        """Keep a row whose inference Arthur does not know, to send it again later.

        Args:
            row: The row.
            now: The time.
            waited: For how many seconds its inference has been unknown.
            urgent: Whether the relay is closing.

        Returns:
            Whether the row is kept; if not, it has waited for too long.
        """
        if waited >= PATIENCE_SECONDS:
            return False
        wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS + max(0.0, waited))
        wait = upper_half(wait, self._random.random())
        if urgent:
            waits = self._urgent_waits[row] = self._urgent_waits.get(row, 0) + 1
            if waits > URGENT_WAITS:
                return False
            wait = URGENT_WAIT_SECONDS
        if self._keep(row, now + wait):
            self._number += 1
            heappush(self._postponed, (now + wait, self._number, row))
        return True

    def kept(self) -> set[Row]:
        """Return the rows that are kept here."""
        waiting = (row for _, _, row in self._postponed)
        return {*waiting, *self._free, *(row for rows in self._after.values() for row in rows)}

    def withdraw(self, rows: AbstractSet[Row]) -> None:
        """Forget rows that are kept here; somebody else has them sent."""
        self._postponed = [each for each in self._postponed if each[2] not in rows]
        heapify(self._postponed)
        self._free = [row for row in self._free if row not in rows]
        after = {key: [r for r in kept if r not in rows] for key, kept in self._after.items()}
        self._after = defaultdict(list, {key: kept for key, kept in after.items() if kept})
        left = self.kept()
        self._rows, self._bytes = len(left), body_bytes(left)
        for row in rows:
            self._urgent_waits.pop(row, None)

    def beyond(self) -> list[Row]:
        """Return the rows that do not fit in here, and that the buffer is to put off."""
        beyond, self._beyond = self._beyond, []
        return beyond

    def due(self, now: float, on_their_way: OnTheirWay) -> list[Row]:
        """Return the rows that may be sent by now."""
        if self._after and now >= self._looked_at + LOOK_SECONDS:
            # An inference that went back into the buffer may be given up there.
            self._looked_at = now
            for left in self._after.keys() - on_their_way(self._after.keys()):
                self._free += self._after.pop(left)
        due, self._free = self._free, []
        while self._postponed and self._postponed[0][0] <= now:
            due.append(heappop(self._postponed)[2])
        self._rows -= len(due)
        self._bytes -= body_bytes(due)
        return due

    @property
    def has_put_off(self) -> bool:
        """Whether anything was put off."""
        return bool(self._put_off)

    def put_off_due(self, now: float) -> str | None:
        """Return a model of which rows that were put off may be sent, or None.

        Each call returns another model. More rows of the same model are due later; call `forget` if
        there are none.
        """
        for model_id, due in self._put_off.items():
            if due <= now:
                del self._put_off[model_id]  # to the end
                self._put_off[model_id] = now + LONGEST_WAIT_SECONDS
                return model_id
        return None

    def forget(self, model_id: str) -> None:
        """Take note that no row of a model is put off any more."""
        self._put_off.pop(model_id, None)

    def next_due(self) -> float | None:
        """Return when the next row may be sent, or None when none waits for a time."""
        dues = [*self._put_off.values()]
        if self._postponed:
            dues.append(self._postponed[0][0])
        if self._after:
            dues.append(self._looked_at + LOOK_SECONDS)
        return min(dues, default=None)

    def hurry(self, now: float) -> None:
        """Have all rows that wait for a time sent now."""
        self._postponed = [(now, number, row) for _, number, row in self._postponed]
        heapify(self._postponed)
        self._put_off = dict.fromkeys(self._put_off, now)

    def _keep(self, row: Row, due: float) -> bool:
        """Count a row as one in memory, or else have it put off. Returns whether it is counted."""
        size = len(row.body)
        if self._rows < MAX_KEPT_ROWS and self._bytes + size <= MAX_KEPT_BYTES:
            self._rows += 1
            self._bytes += size
            return True
        self._beyond.append(row)
        self._put_off[row.model_id] = min(due, self._put_off.get(row.model_id, due))
        return False
