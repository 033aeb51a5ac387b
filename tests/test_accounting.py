"""The ledger: counts from any thread, and one end of them."""

from __future__ import annotations

from typing import Any

from arthur_relay.accounting import AtomicCounter, Ledger
from arthur_relay.stats import DropReason
from tests.threads import THREADS, in_threads

EACH = 2_000


def test_the_counter_loses_no_count_from_any_thread() -> None:
    counter = AtomicCounter()

    def count(_thread: int) -> None:
        for number in range(EACH):
            counter.increment()
            if number % 100 == 0:
                counter.value()

    in_threads(count)
    counter.add(5)
    assert counter.value() == counter.value() == THREADS * EACH + 5


def test_a_ledger_that_is_closed_out_counts_nothing_twice() -> None:
    ledger = Ledger()
    ledger.captured.add(10)
    ledger.deliver(3, "model")
    ledger.reject("row 400", 1, "model")
    assert ledger.close_out() == 6
    # A worker that could not be stopped goes on; what it does no longer counts.
    ledger.deliver(2, "model")
    ledger.reject("row 400", 1, "model")
    ledger.drop(DropReason.OVERFLOW, 1)
    totals = ledger.totals()
    assert (totals.captured, totals.delivered, totals.rejected) == (10, 3, 1)
    assert totals.dropped == {"shutdown": 6}
    assert totals.pending == 0


def test_a_ledger_that_two_threads_close_out_at_once_keeps_the_reason() -> None:
    ledger = Ledger()
    ledger.captured.add(10)
    counter = ledger.captured

    def meanwhile() -> int:  # another thread closes it out while this one reads the count
        assert ledger.close_out() == 10
        return counter.value()

    ledger.captured = _Watched(counter, meanwhile)  # type: ignore[assignment]  # it only reads
    assert ledger.close_out() == 10
    assert ledger.totals().dropped == {"shutdown": 10}


class _Watched:
    """A counter that calls a function when it is read for the first time."""

    def __init__(self, counter: AtomicCounter, then: Any) -> None:
        self._counter = counter
        self._then = then

    def value(self) -> int:
        then, self._then = self._then, self._counter.value
        return int(then())
