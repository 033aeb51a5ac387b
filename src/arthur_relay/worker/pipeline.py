"""The pipeline of one process: composed once, and anew in a forked child."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from arthur_relay.accounting import Ledger, ModelLedger
from arthur_relay.buffers import DamagedFiles
from arthur_relay.capture.open_runs import OpenRuns
from arthur_relay.capture.queue import CaptureQueue
from arthur_relay.dead_letters import DeadLetters
from arthur_relay.delivery.sender import Observes, Sender
from arthur_relay.destinations import Destination, product_of
from arthur_relay.encoding.model import Schema
from arthur_relay.encoding.product import RowWords
from arthur_relay.memory_budget import MemoryBudget
from arthur_relay.runtime.thread import JOIN_SECONDS, Runtime
from arthur_relay.sentences import named
from arthur_relay.settings import RelaySettings
from arthur_relay.stats import DropReason, Health, Stats
from arthur_relay.system import native, worker_logs
from arthur_relay.system.clocks import monotonic
from arthur_relay.worker.composition import Storage, build_worker
from arthur_relay.worker.flush import FlushRequest
from arthur_relay.worker.host import PipelineHost
from arthur_relay.worker.ingest import IngestQueue
from arthur_relay.worker.model_inquiries import ModelAnswer, ModelInquiries
from arthur_relay.worker.report import EventCounts, report_health, report_stats
from arthur_relay.worker.worker import Worker

logger = worker_logs.WorkerLogger("arthur_relay", everywhere=True)

KEEPING_SHARE = 0.5
"""The part of an exit's time, at most, that is for keeping what could not be delivered."""


class WaitingRows(NamedTuple):
    """What the buffer holds, for whoever shows it."""

    rows: int
    size: int
    """Bytes in memory, or of the spool's files."""
    oldest_at: float | None
    """When the oldest row was captured, seconds since 1970; None when there is none."""
    trouble: str | None
    """Why the spool can't keep rows, or None."""
    left_alone: int
    """Rows in the spool's directory that are for somebody else."""
    damaged_files: DamagedFiles


@dataclass(frozen=True, slots=True)
class _Idleness:
    """Knows whether the worker and its host have work. See `thread.Idleness` for each method."""

    worker: Worker
    host: PipelineHost

    def has_work(self) -> bool:
        return self.worker.has_work() or self.host.has_work()

    def let_go(self) -> bool:
        self.stay_asleep()
        in_memory = self.worker.settings.spool_dir is None
        keeps_letters = in_memory and self.worker.dead_letters.added.total() > 0
        return self.host.let_go(keeps_letters=keeps_letters)

    def take_back(self) -> None:
        self.host.take_back()

    def stay_asleep(self) -> None:
        self.worker.queue.rest(idle=True)


@dataclass(slots=True)
class Pipeline:
    """A worker and its thread, and where they are between start and end.

    Attributes:
        queue: Where captures are handed over.
        ledger: Where everything is counted.
        worker: The loop.
        runtime: Its thread.
        dead_letters: What was rejected.
        words: What rows and models are called for people.
        created_pid: The process that it belongs to.
        started_pid: The same once the worker was started, else None.
        closing: Done when the worker has delivered everything after `begin_close`.
        ended: Set when the worker has ended and everything left is accounted for.
        logged_end: Whether the log says what was left at the end.
    """

    queue: CaptureQueue
    ledger: Ledger
    worker: Worker
    runtime: Runtime
    dead_letters: DeadLetters
    words: RowWords
    created_pid: int = field(default_factory=os.getpid)
    started_pid: int | None = None
    closing: FlushRequest = field(default_factory=partial(FlushRequest, closing=True))
    ended: native.Event = field(default_factory=native.Event)
    logged_end: bool = False
    _open: list[None] = field(default_factory=partial(list, (None,)))
    _closing_out: "threading.RLock" = field(default_factory=threading.RLock)

    @classmethod
    def build(  # noqa: PLR0913 - keyword-only, but for the two that every pipeline has
        cls,
        settings: RelaySettings,
        destination: Destination,
        *,
        host: PipelineHost,
        budget: MemoryBudget | None = None,
        by_model: ModelLedger | None = None,
        context: Context | None = None,
        storage: Storage | None = None,
    ) -> "Pipeline":
        """Compose a pipeline that has not been started.

        Args:
            settings: What it is like.
            destination: Where rows go.
            host: Whom it works for.
            budget: The bytes of all that waits; one of its own when None.
            by_model: Counts by model; only rows that come encoded are, not captures.
            context: The context variables of its thread; none when None.
            storage: Where rows are; what the settings ask for when None.
        """
        runtime, ledger = Runtime(context), Ledger(by_model)
        storage = storage if storage is not None else Storage.of(settings, destination)
        worker = build_worker(
            settings=settings,
            destination=destination,
            host=host,
            thread=runtime,
            ledger=ledger,
            storage=storage,
            budget=budget if budget is not None else MemoryBudget.of(settings),
        )
        if host.idle_seconds is not None:
            runtime.idleness = _Idleness(worker, host)
        words = product_of(destination).words
        return cls(worker.queue, ledger, worker, runtime, storage.dead_letters, words)

    def start(self) -> None:
        """Start the worker's thread.

        Raises:
            ConfigurationError: No thread can be started. A later call may work.
        """
        self.runtime.start(self.worker)
        self.started_pid = os.getpid()

    def wait_until_ready(self) -> BaseException | None:
        """Wait until the worker has imported what it needs; see `Runtime.wait_until_ready`."""
        return self.runtime.wait_until_ready()

    def give_up_start(self) -> None:
        """End a worker that could not start."""
        self.runtime.cancel()
        self.runtime.join(JOIN_SECONDS)

    def wake(self) -> None:
        """Wake the worker, and start its thread if it is at rest. Any thread."""
        self.runtime.wake()

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called on the worker's loop, if there is one. Any thread."""
        self.runtime.call(function)

    def observe(self, observer: Observes) -> None:
        """Show an observer each attempt. To be called before the start."""
        self.worker.sender.observers.append(observer)

    def ask_for_model(self, model_id: str) -> "Future[None]":
        """Ask for a model at once; see `SchemaRegistry.ask`. Any thread."""
        answer = self.worker.schemas.ask(model_id)
        self.runtime.wake()
        return answer

    def give_model(self, schema: Schema) -> None:
        """Make a model known, so that Arthur is not asked for it. Any thread."""
        self.worker.schemas.give(schema)
        self.runtime.wake()

    def known_models(self) -> list[Schema]:
        """Return the models that are known. Any thread."""
        return self.worker.schemas.known()

    def inquire(self, name: str, *, by_partner_id: bool) -> "Future[ModelAnswer]":
        """Ask what Arthur says of a model; see `ModelInquiries.ask`. Any thread."""
        answer = self.inquiries.ask(name, by_partner_id=by_partner_id)
        self.runtime.wake()
        return answer

    @property
    def inquiries(self) -> ModelInquiries:
        """What Arthur said of models, also for clients. Any thread."""
        return self.worker.schemas.inquiries

    def begin_pause(self) -> "Future[None]":
        """Send no more requests; done when none is on its way. Any thread.

        A worker that is at rest, dead or not started yet sends none when it starts.
        """
        self.worker.sender.flow.is_paused = True  # first: a worker may be starting just now
        done: Future[None] = native.new_future()
        if not self.runtime.call(partial(self.worker.sender.begin_pause, done)):
            done.set_result(None)  # without a loop nothing is on its way
        return done

    @property
    def ingest(self) -> IngestQueue:
        """Takes in rows that come encoded."""
        return self.worker.ingest

    @property
    def sender(self) -> Sender:
        """The sender, for the values in it that any thread may read."""
        return self.worker.sender

    @property
    def is_running(self) -> bool:
        """Whether the worker runs or is at rest; False while it waits for a restart. Any thread."""
        return self.runtime.is_running

    @property
    def is_at_rest(self) -> bool:
        """Whether the thread ended for lack of work; the next capture starts one. Any thread."""
        return self.started_pid == os.getpid() and self.runtime.is_at_rest

    @property
    def restarts(self) -> int:
        """How often the worker died and was started again. Any thread."""
        return self.runtime.restarts

    def waiting(self) -> WaitingRows:
        """Return what the buffer holds. Any thread."""
        held, status = self.worker.buffer.intake, self.worker.buffer.status
        return WaitingRows(
            held.rows,
            held.size,
            status.oldest_at,
            status.trouble,
            status.left_alone,
            status.damaged_files,
        )

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent: nothing of it is touched."""
        self.worker.buffer.durable.abandon()

    def stats(
        self, *, events: EventCounts | None = None, open_runs: OpenRuns | None = None
    ) -> Stats:
        """Return a snapshot of all counts. Any thread.

        Args:
            events: What the callback's edge counted.
            open_runs: The open runs, where there are any.
        """
        return report_stats(
            self.ledger,
            events=events if events is not None else EventCounts(),
            open_runs=0 if open_runs is None else len(open_runs),
            worker_restarts=self.restarts,
            pending_bytes=self.pending_bytes + (0 if open_runs is None else open_runs.size),
            spooled=lambda: self.spooled,
        )

    def health(
        self,
        *,
        disabled: bool = False,
        unreadable: int = 0,
        unanswered: str = "",
        lacks_model: bool = False,
    ) -> Health:
        """Return in one word and one sentence how delivery goes. Any thread.

        Args:
            disabled: Whether nothing is captured at all.
            unreadable: LangChain events that could not be read.
            unanswered: Why Arthur did not answer a question asked elsewhere, or "".
            lacks_model: Whether inferences have to name their model because nobody has set one.
        """
        waiting = self.waiting()
        return report_health(
            self.ledger,
            self.sender,
            schemas=self.worker.schemas,
            words=self.words,
            unreadable=unreadable,
            disabled=disabled,
            closed=not self.is_open,
            running=self.is_running or self.started_pid != os.getpid(),
            trouble=waiting.trouble,
            left_alone=waiting.left_alone,
            lost_letters=self.dead_letters.evicted,
            unanswered=unanswered,
            lacks_model=lacks_model,
        )

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait between the callers and Arthur, as accounted. Any thread."""
        return self.queue.size + self.worker.budget.buffered

    @property
    def is_open(self) -> bool:
        """Whether nobody has begun to close it. Any thread."""
        return bool(self._open)

    @property
    def is_done(self) -> bool:
        """Whether the thread ended for lack of work, and none has come since. Any thread."""
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

        It does not wait when there is nothing to wait for: after the end, on the worker's own
        thread, and when no thread could be started.
        """
        if self.started_pid is None:
            return self.ledger.totals().pending == 0
        if self.is_done or not self.is_open or self.runtime.is_this_thread:
            return True
        worker_logs.start()
        done = self.begin_flush()
        # A close by another thread ends the wait as well, and settles what is left.
        native.wait_for_any((done, self.ended), seconds)
        return not done.cancel()

    def begin_shutdown(self) -> bool:
        """Take no more, and begin to deliver what is queued. Returns whether it was the first."""
        first = self.stop_accepting()
        if first and self.runtime.end_rest():
            with suppress(InvalidStateError):
                self.closing.done.set_result(None)
        elif first:
            self.worker.control(self.closing)
            self.runtime.hurry()
        return first

    def finish_shutdown(self, deadline: float) -> bool:
        """Wait for the end, and see to it. An interrupt ends the wait, but not the work after it.

        Args:
            deadline: On `time.monotonic()`'s scale.

        Returns:
            Whether all was settled in time.
        """
        in_time = False
        try:
            left = max(0.0, deadline - monotonic())
            left -= min(left * KEEPING_SHARE, self.worker.buffer.durable.closing_seconds)
            # Another close may be the one that ends the worker.
            native.wait_for_any((self.closing.done, self.ended), left)
            in_time = self.closing.done.done()
        finally:
            if not in_time:
                self.runtime.cancel()
            # Relays that are stuck are waited for at the same time, and never for long.
            at_last = deadline + JOIN_SECONDS
            self.runtime.join(min(JOIN_SECONDS, max(0.0, at_last - monotonic())))
            self.queue.discard(DropReason.CLOSED if in_time else DropReason.SHUTDOWN)
            self.finalize(at_last)
            self.ended.set()
            worker_logs.write()
        return in_time

    def finalize(self, at_last: float) -> None:
        """Count what is left, once the worker has ended or was given up. Any thread.

        Args:
            at_last: Until when rows may still be moved to the disk, on `time.monotonic()`'s scale.
        """
        with self._closing_out:  # a second caller finds it done
            buffer = self.worker.buffer
            self.worker.ingest.close()
            counted = self.ledger.left_at_end is not None
            # A worker that could not be stopped may still use the buffer; rows on disk stay there.
            kept = buffer.durable.kept
            if not self.runtime.is_alive:
                buffer.journal.let_go(self.dead_letters.commit())
                kept = buffer.durable.close(lambda: counted or monotonic() >= at_last)
            self.ledger.close_out(kept)
            if self.logged_end:
                return
            self.logged_end = True
            totals = self.ledger.totals()
            if lost := totals.dropped.get(DropReason.SHUTDOWN, 0):
                logger.warning(
                    "arthur-relay: %d %s were not delivered in time and are dropped: raise %s, or"
                    " keep them with %s",
                    lost,
                    self.words.many,
                    named("shutdown_timeout_seconds"),
                    named("spool_dir"),
                )
            if totals.pending:
                logger.warning(
                    "arthur-relay: %d %s stay in %s for a later start",
                    totals.pending,
                    self.words.many,
                    buffer.durable.keeper,
                )

    def stop_accepting(self) -> bool:
        """Take no more captures. Returns whether this call was the first, in any thread."""
        try:
            self._open.pop()  # one step of C code: only one thread gets it
        except IndexError:
            return False
        self.queue.close()
        return True
