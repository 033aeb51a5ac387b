"""Which flushes wait for what: captures belong to epochs, and a flush waits for its own and older.

No list of ids: whatever the number of rows, there is one counter for each flush that waits.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from arthur_relay.system import native


@dataclass(slots=True, eq=False)
class FlushRequest:
    """A flush: done when everything captured before it is settled.

    Attributes:
        closing: Whether the worker ends after it.
        urgent: Whether back-offs are short from then on, as they are while closing.
        done: Gets None when it is.
        waits_for: Captures that were in the capture queue when the worker saw it and still are.
        epoch: The last epoch that belongs to it, or None while `waits_for` is not 0.
    """

    closing: bool = False
    urgent: bool = False
    done: "Future[None]" = field(default_factory=native.new_future)
    waits_for: int = 0
    epoch: int | None = None


class FlushTracker:
    """The flushes that wait, and the rows of each epoch that are not settled. Worker's loop only.

    Attributes:
        epoch: What is taken from the capture queue now belongs to it.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._waiting: list[FlushRequest] = []
        self._unsettled: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, request: FlushRequest, in_inlet: int) -> None:
        """Let a flush wait for what has been taken, and for so many captures in the queue."""
        request.waits_for = in_inlet
        self._waiting.append(request)

    def take(self, rows: int) -> None:
        """Record that captures which make so many rows came out of the capture queue."""
        self._unsettled[self.epoch] += rows

    def settle(self, rows: int, epoch: int) -> None:
        """Record that so many rows of an epoch are done with."""
        self._unsettled[epoch] -= rows

    def settle_all(self, epochs: Iterable[int]) -> None:
        """Record that a row of each of these epochs is done with."""
        self._unsettled.subtract(Counter(epochs))

    def close_epoch(self, taken: int, *, inlet_is_empty: bool) -> None:
        """Give flushes whose captures have all been taken the current epoch, and begin another.

        Args:
            taken: Captures taken since the last call.
            inlet_is_empty: Whether there are none left.
        """
        complete = False
        for request in self._waiting:
            if request.epoch is None:
                request.waits_for -= taken
                if inlet_is_empty or request.waits_for <= 0:
                    request.epoch = self.epoch
                    complete = True
        self.epoch += complete

    def complete(self) -> Sequence[FlushRequest]:
        """Finish the flushes for which everything is settled, and return them."""
        for epoch in [epoch for epoch, rows in self._unsettled.items() if rows <= 0]:
            del self._unsettled[epoch]
        oldest = min(self._unsettled, default=self.epoch)
        done = [b for b in self._waiting if b.epoch is not None and b.epoch < oldest]
        self._waiting = [b for b in self._waiting if b not in done and not b.done.cancelled()]
        for request in done:
            if request.done.set_running_or_notify_cancel():
                request.done.set_result(None)
        return done
