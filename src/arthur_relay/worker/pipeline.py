"""The pipeline of one process: what a relay is composed of, and a forked child gets anew."""

import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from arthur_relay.accounting import Ledger
from arthur_relay.buffers.chosen import chosen_buffer
from arthur_relay.capture.queue import CaptureQueue, CaptureQueueLimits
from arthur_relay.dead_letters import DeadLetters
from arthur_relay.dead_letters.chosen import chosen_dead_letters
from arthur_relay.destinations import Destination, HasOwner
from arthur_relay.encoding.schema import ModelSchema
from arthur_relay.inference import Capture
from arthur_relay.model_ledger import ModelLedger
from arthur_relay.row_owner import RowOwner
from arthur_relay.runtime.thread import JOIN_SECONDS, Runtime
from arthur_relay.settings import RelaySettings
from arthur_relay.stats import DropReason
from arthur_relay.system import native, worker_logs
from arthur_relay.system.clocks import monotonic
from arthur_relay.worker.flush import FlushRequest
from arthur_relay.worker.gil import GilYielder
from arthur_relay.worker.worker import Worker

logger = worker_logs.WorkerLogger("arthur_relay", everywhere=True)

KEEPING_SHARE = 0.5
"""The part of an exit's time, at most, that is for keeping what could not be delivered."""


class Owner(Protocol):
    """Whose pipeline it is: what goes on without a thread while there is nothing to do."""

    idle_seconds: float
    """After how long that is so."""

    def may_idle(self) -> bool:
        """Whether the thread may end now. The worker's thread."""
        ...

    def let_go(self, *, keeps_letters: bool) -> bool:
        """Be told that the thread ends, if it may, and whether letters are in memory that it wants.

        Returns:
            Whether it may.
        """
        ...

    def take_back(self) -> None:
        """Be told that there is one again soon. Any thread; takes no lock, never raises."""
        ...

    def has_work(self) -> bool:
        """Whether there will be something to do. Any thread."""
        ...


@dataclass(frozen=True, slots=True)
class _Idleness:
    """Asks the worker, its inlet and the owner. See `runtime.Idleness` for each method."""

    worker: Worker
    owner: Owner
    keeps_letters: Callable[[], bool]

    def has_work(self) -> bool:
        return self.worker.has_work() or self.owner.has_work()

    def let_go(self) -> bool:
        self.stay_asleep()
        return self.owner.let_go(keeps_letters=self.keeps_letters())

    def take_back(self) -> None:
        self.owner.take_back()

    def stay_asleep(self) -> None:
        self.worker.queue.rest(idle=True)


@dataclass(slots=True)
class Pipeline:
    """The parts, and where they are between start and end.

    Attributes:
        created_pid: The process that they belong to.
        started_pid: The same once the worker was started, else None.
        closing: Done when the worker has delivered everything after `begin_close`.
        ended: Set when the worker has gone and everything left is accounted for.
        told_end: Whether the log knows what was left at the end.
    """

    ledger: Ledger
    queue: CaptureQueue
    worker: Worker
    runtime: Runtime
    dead_letters: DeadLetters
    created_pid: int = field(default_factory=os.getpid)
    started_pid: int | None = None
    closing: FlushRequest = field(default_factory=lambda: FlushRequest(closing=True))
    ended: native.Event = field(default_factory=native.Event)
    told_end: bool = False
    _open: list[None] = field(default_factory=lambda: [None])
    _closing_out: "threading.RLock" = field(default_factory=threading.RLock)

    @classmethod
    def assemble(  # noqa: PLR0913 - keyword-only
        cls,
        settings: RelaySettings,
        destination: Destination,
        *,
        sweep: Callable[[], bool],
        learned: Callable[[str, ModelSchema], None],
        borrowed_by_runs: Callable[[], int],
        by_model: ModelLedger | None = None,
        owner: Owner | None = None,
    ) -> "Pipeline":
        """Compose a pipeline that has not been started.

        Args:
            settings: What it is like.
            destination: Where rows go.
            sweep: See `Worker`.
            learned: See `Worker`.
            borrowed_by_runs: Returns the bytes that open runs take beyond their share.
            by_model: Counts by model; only rows that come encoded are, not captures.
            owner: Says when it can do without a thread; never when None.
        """
        ledger = Ledger(by_model)
        dead_letters = chosen_dead_letters(settings)
        runtime = Runtime(lambda ready: worker.run(ready))  # noqa: PLW0108 - it is made below
        queue = CaptureQueue(
            CaptureQueueLimits.of(settings),
            ledger,
            wake=runtime.wake,
            spare=lambda: worker.admission.spare(),  # noqa: PLW0108 - it is made below
        )
        worker = Worker(
            queue=queue,
            buffer=chosen_buffer(settings, lambda: _owner(destination)),
            destination=destination,
            ledger=ledger,
            dead_letters=dead_letters,
            settings=settings,
            random=random.random,
            sweep=sweep,
            learned=learned,
            gil=GilYielder(),
            offload=runtime.offload,
            wake_from_outside=runtime.wake,
            borrowed=lambda: queue.borrowed + borrowed_by_runs(),
        )
        if owner is not None:
            worker.idle_seconds, worker.may_idle = owner.idle_seconds, owner.may_idle
            in_memory = settings.spool_dir is None
            runtime.idleness = _Idleness(
                worker, owner, lambda: in_memory and dead_letters.added.total() > 0
            )
        return cls(ledger, queue, worker, runtime, dead_letters)

    def put(self, capture: Capture, *, may_wait: bool = True) -> None:
        """Put a capture into the capture queue. See `CaptureQueue.put`."""
        if self.queue.may_block:
            # The worker must not wait for itself, nor a close for what it is about to end.
            may_wait = may_wait and not self.runtime.is_this_thread
        self.queue.put(capture, may_wait=may_wait)

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait between the callers and Arthur, as accounted. Any thread."""
        return self.queue.size + self.worker.admission.taken_bytes

    @property
    def is_open(self) -> bool:
        """Whether nobody has begun to close them. Any thread."""
        return bool(self._open)

    @property
    def is_done(self) -> bool:
        """Whether there is no thread for want of work, and still none. Any thread."""
        here = self.started_pid == os.getpid()
        return here and self.runtime.is_at_rest and self.ledger.totals().pending == 0

    @property
    def spooled(self) -> int:
        """Inferences that are safe on disk. Any thread."""
        ended = self.ledger.left_at_end is not None
        return self.ledger.kept_at_end if ended else self.worker.buffer.durable.kept

    def begin_flush(self, *, urgent: bool = False) -> "Future[None]":
        """Have what was captured before delivered at once; done when it is settled.

        Args:
            urgent: Whether the end is near: back-offs are short from now on.
        """
        request = FlushRequest(urgent=urgent)
        self.worker.control(request)
        self.runtime.hurry()
        return request.done

    def flush(self, seconds: float) -> bool:
        """Wait until what was captured before is settled. Returns whether it was in time.

        Without a wait where there is nothing to wait for, or no one: after the end, on the worker's
        own thread, and where no thread could be had.
        """
        if self.started_pid is None:
            return self.ledger.totals().pending == 0
        if self.is_done or not self.is_open or self.runtime.is_this_thread:
            return True
        worker_logs.start()
        done = self.begin_flush()
        # A close by someone else ends the wait as well: what is left then is settled by it.
        native.wait_for_any((done, self.ended), seconds)
        return not done.cancel()

    def begin_end(self) -> bool:
        """Take no more, and begin to deliver what is queued. Returns whether it was the first."""
        first = self.shut()
        if first and self.runtime.end_rest():
            with suppress(InvalidStateError):
                self.closing.done.set_result(None)
        elif first:
            self.worker.control(self.closing)
            self.runtime.hurry()
        return first

    def finish_end(self, deadline: float) -> bool:
        """Wait for the end, and see to it. An interrupt ends the wait, not what comes behind it.

        Args:
            deadline: On `time.monotonic()`'s scale.

        Returns:
            Whether all was settled in time.
        """
        in_time = False
        try:
            left = max(0.0, deadline - monotonic())
            left -= min(left * KEEPING_SHARE, self.worker.buffer.durable.closing_seconds)
            # Whom another close has come before finds the end there.
            native.wait_for_any((self.closing.done, self.ended), left)
            in_time = self.closing.done.done()
        finally:
            if not in_time:
                self.runtime.cancel()
            # Relays that are stuck are waited for at the same time, and never for long.
            at_last = deadline + JOIN_SECONDS
            self.runtime.join(min(JOIN_SECONDS, max(0.0, at_last - monotonic())))
            self.queue.discard(DropReason.CLOSED if in_time else DropReason.SHUTDOWN)
            self.close_out(at_last)
            self.ended.set()
            worker_logs.write()
        return in_time

    def close_out(self, at_last: float) -> None:
        """Account for what is left, once the worker has ended or is given up. Any thread.

        Args:
            at_last: Until when what is left may be kept, on `time.monotonic()`'s scale.
        """
        with self._closing_out:  # whoever is second finds it done
            buffer = self.worker.buffer
            self.worker.ingest.close()
            counted = self.ledger.left_at_end is not None
            # A worker that could not be stopped may be using it; what it has written stays.
            kept = buffer.durable.kept
            if not self.runtime.is_alive:
                buffer.journal.let_go(self.dead_letters.commit())
                kept = buffer.durable.close(lambda: counted or monotonic() >= at_last)
            self.ledger.close_out(kept)
            if self.told_end:
                return
            self.told_end = True
            totals = self.ledger.totals()
            if lost := totals.dropped.get(DropReason.SHUTDOWN, 0):
                logger.warning(
                    "arthur-relay: %d inferences were not delivered in time and are dropped", lost
                )
            if totals.pending:
                logger.warning(
                    "arthur-relay: %d inferences stay in the spool for a later start",
                    totals.pending,
                )

    def shut(self) -> bool:
        """Take no more captures. Returns whether this call was the first, in any thread."""
        try:
            self._open.pop()  # one step of C code: only one thread gets it
        except IndexError:
            return False
        self.queue.close()
        return True


def _owner(destination: Destination) -> RowOwner:
    if isinstance(destination, HasOwner):
        return destination.owner
    return RowOwner(destination.name)
