"""Runs that have started but not ended: bounded by count, bytes and age, without a lock."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from itertools import count
from os import getpid
from time import time
from typing import TYPE_CHECKING
from uuid import UUID

from arthur_relay.inference import RunOutcome, run_id_of
from arthur_relay.memory_budget import MemoryBudget

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay.inference import CapturedGroundTruth, Run

MAX_GROUND_TRUTHS = 100
"""The most ground truths of an open run; further ones do not wait for its end."""

_REPEAT: ContextVar[Run | None] = ContextVar("arthur_relay_repeat", default=None)
"""The run of the current call, if another call with the same id was open when it began."""


def run_key(run_id: UUID, model_id: str) -> int:
    """Return a run's key; two models may log the same run, by different keys."""
    return run_id.int ^ salt_of(model_id)


def salt_of(model_id: str) -> int:
    """Return the number that makes a run's key the model's own, by exclusive or."""
    return hash(model_id) & ((1 << 63) - 1)


def _nothing() -> None:
    """Do nothing at a fork."""


class OpenRuns:
    """The open runs of a relay.

    Any thread, signal handler or finaliser may call `begin`, `find` and `end`. Dicts change in one
    step of C code. The byte count is a plain integer; `sweep` corrects it if an update was lost.

    Args:
        max_runs: The most runs that may be open.
        max_bytes: The most bytes that they may take.
        give_up: Called with each evicted run, which is marked as abandoned.
        budget: The relay's memory; large prompts may use free bytes of it.
        on_fork: Called when another process than `owner_pid` uses the runs.

    Attributes:
        owner_pid: The process that the runs belong to; runs that a fork copied are the parent's.
        repeats: Later open calls with the same id, by key; nearly always empty.
    """

    __slots__ = (
        "_budget",
        "_extra_keys",
        "_give_up",
        "_max_bytes",
        "_max_runs",
        "_on_fork",
        "_runs",
        "_size",
        "find",
        "owner_pid",
        "repeats",
    )

    find: Callable[[int], Run | None]
    """Returns an open run by its key, or None. `dict.get` itself: each token calls it."""

    def __init__(
        self,
        *,
        max_runs: int,
        max_bytes: int,
        give_up: Callable[[Run], None],
        budget: MemoryBudget | None = None,
        on_fork: Callable[[], object] = _nothing,
    ) -> None:
        self._budget = budget if budget is not None else MemoryBudget()
        self._budget.open_runs = self
        self._on_fork = on_fork
        self.owner_pid: int | None = None
        self._max_runs = max_runs
        self._max_bytes = max_bytes
        self._give_up = give_up
        self._runs: dict[int, Run] = {}
        self.find = self._runs.get
        self.repeats: dict[int, deque[Run]] = {}
        self._extra_keys = count(-1, -1)  # ids are positive
        self._size = 0

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def size(self) -> int:
        """The bytes that the runs take."""
        return max(0, self._size) if self._runs else 0

    def begin(self, run: Run) -> None:
        """Add a run, and evict the oldest ones when there are too many.

        A run of the same call with the same key replaces the former one, because two handlers of
        one call must not send it twice. A run of another call with the same key is kept beside it.
        """
        if self.owner_pid != getpid():
            self._on_fork()
        runs = self._runs
        while runs and (
            len(runs) >= self._max_runs or (self._size > self._max_bytes and self._budget.free <= 0)
        ):
            if not self._evict_oldest():
                break
        former = runs.get(run.key)
        if former is not None:
            if former.call is not run.call:
                self._begin_beside(former, run)
                return
            if runs.pop(run.key, None) is former:
                self._size -= former.size
        elif not runs:
            self._size = 0  # in case a signal handler raised between adding a run and its bytes
        runs[run.key] = run
        self._size += run.size

    def _begin_beside(self, former: Run, run: Run) -> None:
        """Add a run whose id another open call has: the application gave the id twice."""
        shared = run.key
        repeats = self.repeats.get(shared, ())
        if any(each.call is run.call for each in list(repeats)):
            return  # a second handler of the same call
        repeats = self.repeats.setdefault(shared, deque())
        former.repeats += 1
        run.repeat, run.shared_key, run.key = former.repeats, shared, next(self._extra_keys)
        self._runs[run.key] = run  # first, so that it can be evicted whatever happens here
        self._size += run.size
        repeats.append(run)
        if self.repeats.get(shared) is not repeats:  # the last of them ended meanwhile
            self.repeats[shared] = repeats
        _REPEAT.set(run)

    def current(self, key: int) -> Run | None:
        """Return the open run of a key; if there are several, the current call's."""
        repeats = self.repeats.get(key)
        if repeats is None:
            return self._runs.get(key)
        here = _REPEAT.get()
        if here is not None and here in list(repeats):
            return here
        return self._runs.get(key) or next(iter(list(repeats)), None)

    def end(self, key: int) -> Run | None:
        """Remove a run and return it, or None when it is not open: ending is idempotent."""
        if self.owner_pid != getpid():
            self._on_fork()
        if self.repeats and (found := self.current(key)) is not None:
            key = found.key
        return self._take(key)

    def _take(self, key: int) -> Run | None:
        """Remove the run with exactly this key and return it, or None when there is none."""
        run = self._runs.pop(key, None)
        if run is not None:
            self._size -= run.size
            run.call = None
            if run.repeat:
                self._forget_repeat(run)
        return run

    def _forget_repeat(self, run: Run) -> None:
        if _REPEAT.get() is run:
            _REPEAT.set(None)
        repeats = self.repeats.get(run.shared_key)
        if repeats is None:
            return
        with suppress(ValueError):
            repeats.remove(run)
        if not repeats:
            self.repeats.pop(run.shared_key, None)

    def attach(self, truth: CapturedGroundTruth) -> bool:
        """Add ground truth to its run, if that is open, so that it is sent after the run.

        Returns:
            Whether it was added; then it is sent when the run ends.
        """
        if self.owner_pid != getpid():
            self._on_fork()
        run_id = run_id_of(truth.id)
        key = None if run_id is None else run_key(UUID(run_id), truth.model_id)
        run = None if key is None else self._runs.get(key)
        if run is None or key is None:
            return False
        # One step of C code: two threads that do this at once get the same deque.
        truths = run.__dict__.setdefault("ground_truths", deque())
        if len(truths) >= MAX_GROUND_TRUTHS:
            return False
        truths.append(truth)
        if self._runs.get(key) is run:
            return True
        try:
            truths.remove(truth)  # the run ended meanwhile, and its ground truth may have been sent
        except ValueError:
            return True
        return False

    def sweep(self, started_before: float) -> None:
        """Evict runs that started before this value of `time.perf_counter()`. Worker's thread."""
        runs = list(self._runs.values())
        self._size = sum(run.size for run in runs)
        for run in runs:
            if run.started_at < started_before:
                self._abandon(run.key)

    def clear(self) -> None:
        """Forget all runs in a forked child; they are the parent's."""
        self._runs.clear()
        self.repeats.clear()
        self._size = 0

    def abandon_all(self) -> None:
        """Give up all runs, when the relay closes."""
        for key in list(self._runs):
            self._abandon(key)

    def _evict_oldest(self) -> bool:
        try:
            oldest = next(iter(self._runs))
        except (StopIteration, RuntimeError):  # another thread changed the dict meanwhile
            return False
        self._abandon(oldest)
        return True

    def _abandon(self, key: int) -> None:
        run = self._take(key)
        if run is not None:
            run.outcome = RunOutcome.ABANDONED
            run.ended_at = time()
            self._give_up(run)
