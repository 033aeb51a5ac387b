"""What each flush waits for: captures belong to epochs, a flush waits for its own and older ones.

There is no list of ids: whatever the number of rows, there is one counter for each epoch. What an
earlier process captured is the oldest epoch. An exit does not wait for it: it is in the spool.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from arthur_relay.row import RECOVERED
from arthur_relay.system import native


@dataclass(slots=True, eq=False)
class FlushRequest:
    """A flush: done when everything captured before it is settled.

    Attributes:
        closing: Whether the worker ends after it.
        urgent: Whether back-offs are short from now on, as they are while closing.
        done: Gets None when the flush is done.
        waits_for: Captures that have been in the capture queue since the worker saw the flush.
        epoch: The last epoch that the flush waits for, or None while `waits_for` is not 0.
    """

    closing: bool = False
    urgent: bool = False
    done: "Future[None]" = field(default_factory=native.new_future)
    waits_for: int = 0
    epoch: int | None = None


class FlushTracker:
    """The flushes that wait, and how many rows of each epoch are unsettled. Worker's loop only.

    Attributes:
        epoch: The epoch of captures that are taken from the capture queue now.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._waiting: list[FlushRequest] = []
        self._unsettled: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, request: FlushRequest, in_queue: int) -> None:
        """Let a flush wait for all taken captures, and for so many that are still in the queue."""
        request.waits_for = in_queue
        self._waiting.append(request)

    def take(self, rows: int) -> None:
        """Record that captures that make so many rows were taken from the capture queue."""
        self._unsettled[self.epoch] += rows

    def recover(self, rows: int) -> None:
        """Record that so many rows of earlier processes were found."""
        self._unsettled[RECOVERED] += rows

    def settle(self, rows: int, epoch: int) -> None:
        """Record that so many rows of an epoch are settled."""
        self._unsettled[epoch] -= rows

    def settle_all(self, epochs: Iterable[int]) -> None:
        """Record that one row of each of these epochs is settled."""
        self._unsettled.subtract(Counter(epochs))

    def close_epoch(self, taken: int, *, queue_is_empty: bool) -> None:
        """Give the current epoch to flushes whose captures have all been taken, and begin another.

        Args:
            taken: The number of captures taken since the last call.
            queue_is_empty: Whether none is left in the capture queue.
        """
        complete = False
        for request in self._waiting:
            if request.epoch is None:
                request.waits_for -= taken
                if queue_is_empty or request.waits_for <= 0:
                    request.epoch = self.epoch
                    complete = True
        self.epoch += complete

    def complete(self) -> Sequence[FlushRequest]:
        """Finish the flushes for which everything is settled, and return them."""
        for epoch in [epoch for epoch, rows in self._unsettled.items() if rows <= 0]:
            del self._unsettled[epoch]
        oldest = min(self._unsettled, default=self.epoch)
        ours = min((epoch for epoch in self._unsettled if epoch != RECOVERED), default=self.epoch)
        waiting = self._waiting
        done = [
            each
            for each in waiting
            if each.epoch is not None
            and each.epoch < (ours if each.closing or each.urgent else oldest)
        ]
        self._waiting = [each for each in waiting if each not in done and not each.done.cancelled()]
        for request in done:
            if request.done.set_running_or_notify_cancel():
                request.done.set_result(None)
        return done
