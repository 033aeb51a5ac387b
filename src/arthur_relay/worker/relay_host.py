"""What a relay works with: its pipeline in this process, and what outlives a fork."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from arthur_relay.capture.open_runs import OpenRuns
from arthur_relay.capture.tracing import NO_TRACING, Tracing
from arthur_relay.destinations import product_of
from arthur_relay.encoding.product import Product
from arthur_relay.errors import unable_to_start
from arthur_relay.inference import TraceScope
from arthur_relay.memory_budget import MemoryBudget
from arthur_relay.runtime.process_registry import registry
from arthur_relay.stats import DropReason
from arthur_relay.system.clocks import Clocks
from arthur_relay.system.fork_safety import ProcessLock
from arthur_relay.worker.known_models import KnownModels
from arthur_relay.worker.pipeline import Pipeline
from arthur_relay.worker.report import EventCounts, report_flush

if TYPE_CHECKING:
    from concurrent.futures import Future

    from arthur_relay.destinations import Destination
    from arthur_relay.encoding.model import Schema
    from arthur_relay.inference import Capture, Run
    from arthur_relay.relay import Relay
    from arthur_relay.settings import RelaySettings
    from arthur_relay.stats import FlushResult, Stats

IDLE_SECONDS = 30.0
"""A relay's threads and connections end after so long without a capture, an open run and anything
to deliver. Long enough that a pause between two requests costs no new connection."""


class RelayHost:
    """Builds, starts and closes the pipeline of a relay, and is what the callback works with.

    `Relay` shows its users their part of it; the callback, the registry and the worker use the
    rest. Without work it costs no thread, and may be forgotten.

    Args:
        relay: The relay; it lives as long as this, so that handlers that share it find the same.
        destination: Where rows are sent; only the worker enters and uses it.
        settings: The settings.

    Attributes:
        pipeline: This process's; a forked child gets another one on its first use.
        open_runs: The runs that have started and not ended.
        models: The models that are known.
        events: What the callback counts.
        tracing: Which runs handlers make into spans, and where in which trace.
        product: What rows are made for.
    """

    def __init__(self, relay: Relay, destination: Destination, settings: RelaySettings) -> None:
        self.relay = relay
        self.settings = settings
        self.events = EventCounts()
        self.tracing = NO_TRACING
        self.product = product_of(destination)
        self.models = KnownModels(self.product.words)
        if self.product is Product.ENGINE:
            self.tracing = Tracing(TraceScope(settings.trace))
        self.idle_seconds: float | None = IDLE_SECONDS
        self._destination = destination
        self._lock = ProcessLock()
        self._forked_from: list[Pipeline] = []
        self._ids = count()
        self._id_prefix = secrets.token_hex(12)
        self._budget = MemoryBudget.of(settings)
        self.open_runs = OpenRuns(
            max_runs=settings.max_open_runs,
            max_bytes=settings.open_runs_bytes,
            give_up=self._give_up,
            budget=self._budget,
            on_fork=self.ensure_started,
        )
        self.pipeline = self._build()

    def start(self) -> None:
        """Start the worker, and wait until it has imported what it needs.

        Raises:
            ConfigurationError: It can't start.
        """
        self._start()
        if (error := self.pipeline.wait_until_ready()) is not None:
            self.pipeline.give_up_start()
            registry().ended(self)
            raise unable_to_start(error) from error

    def ensure_started(self) -> None:
        """Start the worker if it does not run in this process; never raises.

        Called before a capture. If no thread can be started, the next capture tries again.
        """
        with suppress(Exception):
            self._revive()

    def new_id(self) -> str:
        """Return an id for an inference that has none. Any thread."""
        return f"{self._id_prefix}-{next(self._ids):x}"

    def submit(self, capture: Capture, *, may_wait: bool = True) -> None:
        """Queue a capture. Any thread, signal handler or finaliser.

        The callback hands its runs to the pipeline's queue itself: a run that it took out of
        `open_runs` shows that the worker was started in this process, or can't be.
        """
        if self.pipeline.started_pid != os.getpid():
            self.ensure_started()
        self.pipeline.queue.put(capture, may_wait=may_wait)

    def submit_ground_truths(self, run: Run) -> None:
        """Queue the ground truth that came before a run ended, after the run itself."""
        truths = run.ground_truths
        while truths:
            with suppress(IndexError):  # another thread takes them as well
                self.submit(truths.popleft())

    def lose_unreadable(self) -> None:
        """Count an inference that could not be read as captured and dropped. Any thread."""
        self.events.unreadable.increment()
        if self.pipeline.started_pid != os.getpid():
            self.ensure_started()
        self.pipeline.ledger.lose(DropReason.UNREADABLE, 1)

    def connect(self, model_id: str) -> None:
        """Ask Arthur for a model; see `Relay.connect`."""
        self._revive()
        seconds = self.settings.connect_timeout_seconds
        self.models.ask(model_id, self.pipeline, timeout_seconds=seconds)

    def register(self, schema: Schema) -> None:
        """Register a model's schema, so that Arthur is not asked for it. Any thread."""
        self.models.give(schema, self.pipeline)

    def flush(self, seconds: float) -> FlushResult:
        """Wait until all earlier captures are settled, for so many seconds at most."""
        if not self.pipeline.is_done:
            self.ensure_started()
        return self._result(timed_out=not self.pipeline.flush(seconds))

    def stats(self) -> Stats:
        """Return a snapshot. Any thread."""
        return self.pipeline.stats(events=self.events, open_runs=self.open_runs)

    @property
    def is_at_rest(self) -> bool:
        """Whether its thread ended for lack of work; the next capture starts it again."""
        return self.pipeline.is_at_rest

    def begin_flush(self) -> Future[None]:
        """Begin a flush without waiting for it. Any thread or signal handler."""
        return self.pipeline.begin_flush()

    def begin_close(self) -> float:
        """Take no more captures and begin to deliver the queue; returns the seconds it may take."""
        self._leave_parent()
        self.open_runs.abandon_all()
        if self.pipeline.begin_shutdown():
            registry().unshare(self)
        return self.settings.shutdown_timeout_seconds

    def finish_close(self, deadline: float) -> FlushResult:
        """Wait for the end until `deadline`, on `time.monotonic()`'s scale, then enforce it."""
        pipeline = self.pipeline
        if pipeline.started_pid != os.getpid():
            return self._result()  # disabled, or a forked child that never captured anything
        try:
            in_time = pipeline.finish_shutdown(deadline)
        finally:  # also when an interrupt ended the wait
            registry().ended(self)
        return self._result(timed_out=not in_time)

    def forget_parent(self) -> None:
        """Start afresh in a forked child; the worker starts with the first use."""
        # Still referred to, so that no finaliser in the child touches the parent's connections.
        self._forked_from.append(self.pipeline)
        self.pipeline.abandon()
        self.tracing.remember(self.open_runs.runs())
        self.open_runs.clear()
        self.events = EventCounts()
        self._id_prefix = secrets.token_hex(12)
        closed = not self.pipeline.is_open
        self.pipeline = self._build()
        if closed:  # what the parent has closed stays closed
            self.pipeline.stop_accepting()

    def may_idle(self) -> bool:
        """Return whether no other process relies on the thread."""
        return registry().can_spare(self)

    def let_go(self, *, keeps_letters: bool) -> bool:
        """Have a run that begins wake the relay, and the registry keep it alive no longer.

        Unless it has dead letters in memory: a handler that is made later may ask for them.
        """
        self.open_runs.owner_pid = None
        if registry().let_go(self, keep=keeps_letters):
            return True
        self.open_runs.owner_pid = os.getpid()
        return False

    def take_back(self) -> None:
        """Have it kept alive, and closed at the process's exit."""
        registry().take_back(self)
        self.open_runs.owner_pid = os.getpid()

    def has_work(self) -> bool:
        """Return whether runs are open."""
        return len(self.open_runs) > 0

    def sweep(self) -> bool:
        """Give up runs that are too old; returns whether any is open."""
        self.open_runs.sweep(Clocks.perf_counter() - self.settings.run_max_age_seconds)
        return len(self.open_runs) > 0

    def on_learned(self, model_id: str, schema: Schema) -> None:
        """Let the handlers of a model keep only what can be sent of a run; of a span all can be."""
        if self.tracing.scope is TraceScope.NONE:
            self.models.learn(model_id, schema)

    def _build(self) -> Pipeline:
        pipeline = Pipeline.build(self.settings, self._destination, host=self, budget=self._budget)
        self.models.give_all(pipeline)
        return pipeline

    def _start(self) -> None:
        self.pipeline.start()
        self.open_runs.owner_pid = os.getpid()
        registry().started(self)

    def _revive(self) -> None:
        """Start the worker in a forked child, whether or not its at-fork hooks ran.

        Raises:
            ConfigurationError: No thread can be started.
        """
        if self.settings.disabled or not self.pipeline.is_open:
            return
        if self.pipeline.started_pid == os.getpid():
            if self.is_at_rest:
                self.pipeline.wake()
            return
        with self._lock.mine():
            if self.pipeline.started_pid != os.getpid():
                self._leave_parent()
                self._start()

    def _leave_parent(self) -> None:
        """Start afresh in a forked child whose at-fork hooks did not run; else do nothing."""
        if self.pipeline.created_pid != os.getpid():
            with self._lock.mine():
                if self.pipeline.created_pid != os.getpid():
                    self.forget_parent()

    def _give_up(self, run: Run) -> None:
        self.events.abandoned.increment()
        if run.trace is not None:
            self.tracing.ended(run)
        self.submit(run, may_wait=False)
        self.submit_ground_truths(run)

    def _result(self, *, timed_out: bool = False) -> FlushResult:
        return report_flush(self.pipeline.ledger, timed_out=timed_out)
