"""What is told of waiting rows while they are settled: never more are held than are pending."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from arthur_relay.accounting import Ledger
from arthur_relay.row import DELIVERED, Attempt, Batch, Failure, Outcome, Verdict
from arthur_relay.worker.report import EventCounts, report_stats
from tests.worker.harness import RETRY, ScriptedDestination, harness, virtual

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay.stats import DropReason, Stats
    from tests.worker.harness import Harness

REJECTED = Outcome(Verdict.REJECTED, "row 400", 400)


class WatchedLedger(Ledger):
    """Looks, at each count, for rows that are counted as settled while the buffer has them."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: list[Harness] = []
        self.looks = 0

    def drop(self, reason: DropReason, rows: int) -> None:
        super().drop(reason, rows)
        self.look()

    def drop_held(self, reason: DropReason, rows: int, model_id: str) -> None:
        super().drop_held(reason, rows, model_id)
        self.look()

    def deliver(self, rows: int, model_id: str) -> None:
        super().deliver(rows, model_id)
        self.look()

    def reject(self, reason: str, rows: int, model_id: str) -> None:
        super().reject(reason, rows, model_id)
        self.look()

    def look(self) -> None:
        for pipe in self.watched:
            self.looks += 1
            assert self.totals().pending >= pipe.buffer.rows


@dataclass
class Script:
    """Delivers some, rejects some, finds one too large, and never takes the rest."""

    sizes: list[int] = field(default_factory=list)

    def __call__(self, batch: Batch, number: int) -> Attempt:
        if batch.rows[0].id == "large":
            outcome = Outcome(Verdict.REJECTED, "http 413", 413)
            return Attempt((outcome,) * len(batch.rows), Failure.TOO_LARGE, "http 413")
        outcomes = {"good": DELIVERED, "bad": REJECTED}
        return Attempt(tuple(outcomes.get(row.id[:-1], RETRY) for row in batch.rows))


@virtual
async def test_rows_are_forgotten_before_they_are_counted() -> None:
    ledger = WatchedLedger()
    pipe = harness(ScriptedDestination(Script()), retry_max_elapsed_seconds=5.0, batch_size=5)
    pipe.ledger = ledger
    pipe.__post_init__()
    ledger.watched.append(pipe)
    async with pipe.running():
        pipe.capture("good1", "bad1", "stays1", "good2", "bad2")
        pipe.capture("good3", "good4", "good5", "good6", "good7")
        pipe.capture("large")
        assert await pipe.flush()
        pipe.check(
            captured=11, delivered=7, rejected=3, dropped={"retry_time_exceeded": 1}, pending=0
        )
    assert ledger.looks >= 5


def stats_of(ledger: Ledger, spooled: Callable[[], int]) -> Stats:
    return report_stats(
        ledger,
        events=EventCounts(),
        open_runs=0,
        worker_restarts=0,
        pending_bytes=0,
        spooled=spooled,
    )


def test_what_is_on_disk_is_asked_for_after_what_is_pending() -> None:
    ledger = Ledger()
    ledger.captured.add(5)

    def spooled() -> int:
        """Rows that are delivered between the two questions make `pending` too large, if any."""
        ledger.deliver(2, "model")
        return 3

    stats = stats_of(ledger, spooled)
    assert (stats.pending, stats.spooled) == (5, 3)


def test_rows_found_between_the_two_questions_make_nothing_look_safe() -> None:
    ledger = Ledger()
    ledger.captured.add(1)  # in memory only
    left = [2]

    def spooled() -> int:
        """Another process's rows are taken over between the two questions."""
        if left:
            ledger.recover(left.pop())
        return 2

    stats = stats_of(ledger, spooled)
    assert (stats.pending, stats.spooled) == (3, 2)
