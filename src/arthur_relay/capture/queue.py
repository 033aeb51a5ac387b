"""The hand-over from any thread to the worker: a bounded, byte-accounted queue without a lock.

`collections.deque` appends and pops in one step of C code, and so do the counters of the ledger.
The byte counts are plain integers that CPython changes without a thread switch between load and
store. Should an implementation switch there, or a signal handler raise between a capture and its
bytes, the worker sets them right whenever it finds the queue empty.

A thread that releases the interpreter lock often, and only for a moment, keeps it from the worker
(see `worker/gil.py`), which may then get it ten times a second. So once the queue is full, unless
the worker could take nothing, a caller hands the lock over: it pauses for `HAND_OVER_SECONDS`, and
until the worker pauses in its turn, instead of losing a capture.
"""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from arthur_relay.accounting import Ledger
from arthur_relay.inference import Capture
from arthur_relay.memory_budget import MemoryBudget
from arthur_relay.settings import Overflow, RelaySettings
from arthur_relay.stats import DropReason
from arthur_relay.system import native
from arthur_relay.system.clocks import monotonic

HAND_OVER_SECONDS = 0.00005
"""The shortest sleep that really releases the interpreter lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureQueueLimits:
    """How much may wait, and what happens beyond.

    Attributes:
        items: Captures that may wait.
        size: Bytes that may wait; one capture may go beyond, so that a large one costs no other.
        wake: Captures, and bytes, that are worth waking the worker for.
        drop_oldest: Whether a full queue gives up its oldest capture rather than the new one.
        block_seconds: How long a full queue may hold the caller, else None.
    """

    items: int
    size: int
    wake: tuple[int, int]
    drop_oldest: bool = True
    block_seconds: float | None = None

    @property
    def half(self) -> tuple[int, int]:
        """Captures, and bytes, of a queue that is half full."""
        return (self.items + 1) // 2, (self.size + 1) // 2

    @classmethod
    def of(cls, settings: RelaySettings) -> "CaptureQueueLimits":
        """Return the limits that the settings ask for."""
        blocks = settings.overflow is Overflow.BLOCK
        return cls(
            items=settings.queue_size,
            size=settings.capture_queue_bytes,
            wake=(
                min(settings.batch_size, settings.queue_size),
                min(settings.batch_bytes, settings.capture_queue_bytes),
            ),
            drop_oldest=settings.overflow is Overflow.DROP_OLDEST,
            block_seconds=settings.block_timeout_seconds if blocks else None,
        )


class WakesWorker(Protocol):
    """Wakes the worker from any thread, and starts its thread if that is at rest."""

    def wake(self) -> None:
        """Wake the worker. Any thread; never blocks, never raises."""
        ...


class WorkerThread(WakesWorker, Protocol):
    """The worker's thread, which must not wait for itself."""

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller is the worker's thread."""
        ...


@dataclass(slots=True, eq=False)
class CaptureQueue:
    """Captures on their way from the callers to the worker.

    `put` may be called from any thread, from a signal handler and from a finaliser; it takes no
    lock, makes no system call but the wake-up and, when the queue is full, the hand-over, and never
    raises. The other methods belong to the worker's thread.

    Attributes:
        limits: How much may wait.
        ledger: Counts what is captured and what is dropped.
        worker: The worker's thread, which is woken.
        budget: Knows the bytes that nobody uses: large captures may have them.
    """

    limits: CaptureQueueLimits
    ledger: Ledger
    worker: WorkerThread
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    _items: deque[Capture] = field(default_factory=deque)
    _wake_items: int = field(init=False)
    _wake_size: int = field(init=False)
    _size_in: int = 0
    _size_out: int = 0
    _idle: bool = False
    _stalled: bool = False
    _woken: bool = False
    _closed: bool = False
    _finished: DropReason | None = None
    _room: native.Event = field(default_factory=native.Event)

    def __post_init__(self) -> None:
        self._wake_items, self._wake_size = self.limits.wake
        self.budget.queue = self

    def __len__(self) -> int:
        return len(self._items)

    @property
    def size(self) -> int:
        """Bytes that wait, as accounted."""
        return max(0, self._size_in - self._size_out) if self._items else 0

    def put(self, capture: Capture, *, may_wait: bool = True) -> bool:
        """Take a capture. Returns False when it was dropped, which is counted."""
        size = capture.size
        if self._closed:
            self.ledger.lose(DropReason.CLOSED, capture.rows)
            return False
        items, limits = self._items, self.limits
        if (
            len(items) >= limits.items or self._size_in - self._size_out >= limits.size
        ) and not self._make_room(size, may_wait=may_wait):
            self.ledger.lose(DropReason.OVERFLOW, capture.rows)
            return False
        items.extend(self.ledger.entering(capture))  # one step: see `ledger`
        self._size_in += size
        if not self._woken and (
            self._idle
            or len(items) >= self._wake_items
            or self._size_in - self._size_out >= self._wake_size
        ):
            self._woken = True
            self.worker.wake()
        if self._finished is not None:  # the worker ended between the check above and the append
            self.discard(self._finished)
        return True

    def take(self, limit: int, *, enough_bytes: float = inf) -> list[Capture]:
        """Return the oldest captures, `limit` at most; empty when there is none.

        Args:
            limit: How many.
            enough_bytes: No more are taken once those that were taken have so many bytes.
        """
        taken: list[Capture] = []
        size = 0
        pop = self._items.popleft
        try:
            while len(taken) < limit and size < enough_bytes:
                capture = pop()
                taken.append(capture)
                size += capture.size
        except IndexError:
            if not taken:
                # Only a lost update makes a difference here: see the module's docstring.
                self._size_out = min(self._size_out, self._size_in)
        self._size_out += size
        return taken

    def stall(self, stalled: bool) -> None:  # noqa: FBT001 - a state
        """Say whether the worker takes nothing now, as there is no room for it."""
        self._stalled = stalled

    def made_room(self) -> None:
        """Let callers go on that `overflow = block` holds."""
        if self.limits.block_seconds is not None:
            self._room.set()

    @property
    def is_half_full(self) -> bool:
        """Whether it is half full: captures are taken then, even if enough rows are ready."""
        return self._reaches(*self.limits.half)

    @property
    def fullness(self) -> float:
        """How full it is: 0 when it is empty, 1 or more when it is full."""
        size = self._size_in - self._size_out
        return max(len(self._items) / self.limits.items, size / self.limits.size)

    def rest(self, *, idle: bool, ahead: bool = False) -> bool:
        """Say that the worker is about to wait.

        Args:
            idle: The worker has nothing to do and no timer, so the next capture must wake it.
            ahead: Enough rows are ready for the next requests, so captures may wait here until the
                queue is half full.

        Returns:
            True when it may wait; False when there is something to take first.
        """
        # The order matters: a caller appends before it reads the flags, so one sees the other.
        self._wake_items, self._wake_size = self.limits.half if ahead else self.limits.wake
        if not self._items:
            self._size_out = self._size_in
        self._woken = False
        self._idle = idle
        return not (self._items and (idle or self._reaches(self._wake_items, self._wake_size)))

    def close(self) -> None:
        """Take nothing more; what is in the queue stays. Any thread."""
        self._closed = True
        self._room.set()

    def discard(self, reason: DropReason) -> None:
        """Drop what is in the queue, and whatever still comes. Any thread, after `close`.

        The first reason given stands: a caller that was in `put` meanwhile helps to empty the
        queue, and drops what it finds there for the same reason.
        """
        if self._finished is None:
            self._finished = reason
        with suppress(IndexError):
            while True:
                self._size_out += self.ledger.drop_oldest(self._finished, self._items).size

    def _is_full(self) -> bool:
        return self._reaches(self.limits.items, self.limits.size)

    def _reaches(self, items: int, size: int) -> bool:
        return len(self._items) >= items or self._size_in - self._size_out >= size

    def _make_room(self, size: int, *, may_wait: bool) -> bool:
        """Apply the overflow policy. Returns whether the new capture may come in."""
        if may_wait and not self._stalled and not self.worker.is_this_thread:
            native.sleep(HAND_OVER_SECONDS)
        if len(self._items) < self.limits.items and self.budget.free >= size:
            return True
        if self.limits.drop_oldest:
            # As many bytes as come in, or small captures would make room for large ones.
            while size > 0 and self._is_full():
                try:
                    oldest = self.ledger.drop_oldest(DropReason.OVERFLOW, self._items)
                except IndexError:
                    break
                # Subtracted from what came in, because only the worker counts what went out.
                self._size_in -= oldest.size
                size -= oldest.size
            return True
        if self.limits.block_seconds is None or not may_wait or self.worker.is_this_thread:
            return False
        return self._wait_for_room(self.limits.block_seconds)

    def _wait_for_room(self, seconds: float) -> bool:
        deadline = monotonic() + seconds
        self.worker.wake()
        while True:
            self._room.clear()
            if self._closed:
                return False
            if not self._is_full():
                return True
            left = deadline - monotonic()
            if left <= 0.0:
                return False
            self._room.wait(min(left, 0.05))  # another waiter's clear() may have taken our wake-up
