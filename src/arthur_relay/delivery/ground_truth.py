"""Ground truth goes out behind the inference that it belongs to; pure, the time is an argument.

While the inference is on its way from here, its ground truth waits until that is settled. When
Arthur does not know the inference, another process may still have it: then it is asked again.

Few of these rows are in memory while they wait. The others are put off: the buffer has them, and
some of each model are sent from there now and then.
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
"""The waits before Arthur is asked again: for as long as the row has waited, with jitter on the
upper half."""

PATIENCE_SECONDS = 3600.0
"""How long an inference that Arthur does not know may take to get there, in all lives of the
process."""

MAX_KEPT_ROWS = 10_000
MAX_KEPT_BYTES = 4 * 1024 * 1024
"""What waits in memory, at most; what is beyond is put off."""

URGENT_WAIT_SECONDS = 0.25
URGENT_WAITS = 4
"""The same while the relay closes: a neighbour that closes as well may be delivering just now."""

LOOK_SECONDS = 5.0
"""How often it is looked whether the inferences that are waited for are still on their way."""

Inference = tuple[str, str]
"""The model and the id."""

OnTheirWay = Callable[[AbstractSet[Inference]], AbstractSet[Inference]]
"""Returns which of some inferences are leased and not settled."""


class GroundTruthOrder:
    """Says when ground truth may go. Worker's loop only; what it keeps is leased.

    Args:
        random: The randomness of jitter.
    """

    def __init__(self, random: Randomness) -> None:
        self._random = random
        self.clear()

    def clear(self) -> None:
        """Forget everything: the buffer has it, and will hand it out once more."""
        self._behind: defaultdict[Inference, list[Row]] = defaultdict(list)
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
                    if not self._behind:
                        self._looked_at = now
                    self._behind[row.inference].append(row)
        return early

    def settled(self, rows: Iterable[Row]) -> None:
        """Let go what was waiting for these rows."""
        if not (self._behind or self._urgent_waits or self._put_off):  # nearly always
            return
        for row in rows:
            if row.kind is RowKind.INFERENCE:
                self._free += self._behind.pop(row.inference, ())
                continue
            self._urgent_waits.pop(row, None)
            if row.model_id in self._put_off:  # one more may go, as this one did
                self._put_off[row.model_id] = float("-inf")

    def postpone(self, row: Row, now: float, *, waited: float, urgent: bool = False) -> bool:
        """Keep a row of which Arthur does not know the inference, to ask again later.

        Args:
            row: The row.
            now: The time.
            waited: For how many seconds its inference has been unknown.
            urgent: Whether the end is near.

        Returns:
            Whether that still makes sense; if not, the row is given back.
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

    def beyond(self) -> list[Row]:
        """Return the rows that don't fit in here, and that the buffer is to put off."""
        beyond, self._beyond = self._beyond, []
        return beyond

    def due(self, now: float, on_their_way: OnTheirWay) -> list[Row]:
        """Return the rows that may go by now."""
        if self._behind and now >= self._looked_at + LOOK_SECONDS:
            # An inference that went back into the buffer may never be settled by us.
            self._looked_at = now
            for left in self._behind.keys() - on_their_way(self._behind.keys()):
                self._free += self._behind.pop(left)
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
        """Return a model of which rows that were put off may go; the next one with the next call.

        Those that the buffer has of it after that are due later; `forget` it when there are none.
        """
        for model_id, due in self._put_off.items():
            if due <= now:
                del self._put_off[model_id]  # to the end
                self._put_off[model_id] = now + LONGEST_WAIT_SECONDS
                return model_id
        return None

    def forget(self, model_id: str) -> None:
        """Take note that nothing of a model is put off any more."""
        self._put_off.pop(model_id, None)

    def next_due(self) -> float | None:
        """Return when the next row may go, or None when none waits for a time."""
        dues = [*self._put_off.values()]
        if self._postponed:
            dues.append(self._postponed[0][0])
        if self._behind:
            dues.append(self._looked_at + LOOK_SECONDS)
        return min(dues, default=None)

    def hurry(self, now: float) -> None:
        """Let everything that waits for a time go now."""
        self._postponed = [(now, number, row) for _, number, row in self._postponed]
        heapify(self._postponed)
        self._put_off = dict.fromkeys(self._put_off, now)

    def _keep(self, row: Row, due: float) -> bool:
        """Count a row that waits in memory; one too many is put off. Returns whether it is not."""
        size = len(row.body)
        if self._rows < MAX_KEPT_ROWS and self._bytes + size <= MAX_KEPT_BYTES:
            self._rows += 1
            self._bytes += size
            return True
        self._beyond.append(row)
        self._put_off[row.model_id] = min(due, self._put_off.get(row.model_id, due))
        return False
