"""The relay: the public interface to the pipeline in an application's process."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from arthur_relay.capture.open_runs import OpenRuns
from arthur_relay.capture.snapshots import snapshot_ground_truth, snapshot_values
from arthur_relay.capture.tracing import NO_TRACING
from arthur_relay.credentials import (
    DEFAULT_URL,
    credentials_from_environment,
    resolve_credentials,
)
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.encoding.model import check_model_id
from arthur_relay.errors import unable_to_start
from arthur_relay.inference import CapturedInference, CapturedRow
from arthur_relay.lifecycle import Flushing
from arthur_relay.memory_budget import MemoryBudget
from arthur_relay.row import Row
from arthur_relay.runtime.process_registry import registry
from arthur_relay.settings import RelaySettings
from arthur_relay.shutdown import exit_on_sigterm
from arthur_relay.stats import DropReason
from arthur_relay.system.clocks import monotonic
from arthur_relay.system.fork_safety import ProcessLock
from arthur_relay.worker.host import RelayHost
from arthur_relay.worker.known_models import KnownModels
from arthur_relay.worker.pipeline import Pipeline
from arthur_relay.worker.report import EventCounts, report_flush

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future
    from datetime import datetime
    from uuid import UUID

    from arthur_relay.dead_letters import DeadLetter
    from arthur_relay.destinations import Destination
    from arthur_relay.encoding.model import Schema
    from arthur_relay.inference import Capture, Inference, Run
    from arthur_relay.stats import FlushResult, Health, Stats

logger = logging.getLogger("arthur_relay")


class Relay(Flushing):
    """Takes inferences and delivers them in the background.

    One relay has one worker thread, one queue and one connection pool; any number of callback
    handlers and threads may share it. After half a minute without work, the thread and the
    connections end; the next capture starts them again. A forked child gets a fresh worker and an
    empty queue on its first use; captures that were queued at the fork stay the parent's.

    Args:
        destination: Where rows are sent; only the worker enters and uses it.
        model_id: The model of inferences that do not name one.
        settings: The settings; from the environment when None.

    Raises:
        ConfigurationError: The model's id is invalid, or the relay can't start.
    """

    tracing = NO_TRACING
    """Which runs handlers make into spans, and where in which trace."""

    def __init__(
        self,
        destination: Destination,
        *,
        model_id: str | None = None,
        settings: RelaySettings | None = None,
    ) -> None:
        self.settings = settings if settings is not None else RelaySettings()
        self.model_id = None if model_id is None else self._checked(model_id)
        self._lacks_model = False
        self._destination = destination
        self._lock = ProcessLock()
        self._models = KnownModels()
        self._forked_from: list[Pipeline] = []
        self.wanted = self._models.wanted
        self._ids = count()
        self._id_prefix = secrets.token_hex(12)
        self.events = EventCounts()
        self._budget = MemoryBudget.of(self.settings)
        self.open_runs = OpenRuns(
            max_runs=self.settings.max_open_runs,
            max_bytes=self.settings.open_runs_bytes,
            give_up=self._give_up,
            budget=self._budget,
            on_fork=self._move_in,
        )
        self._host = RelayHost(
            self,
            self.open_runs,
            self._models,
            run_max_age_seconds=self.settings.run_max_age_seconds,
        )
        self._pipeline = self._build()
        if not self.settings.disabled:
            self._start()
            if (error := self._pipeline.wait_until_ready()) is not None:
                self._pipeline.give_up_start()
                registry().ended(self)
                raise unable_to_start(error) from error
            if self.settings.flush_on_sigterm:
                exit_on_sigterm()

    @classmethod
    def from_credentials(
        cls,
        model_id: str | None = None,
        arthur_url: str | None = DEFAULT_URL,
        arthur_login: str | None = None,
        arthur_password: str | None = None,
        *,
        settings: RelaySettings | None = None,
    ) -> Relay:
        """Make a relay to Arthur Scope; see `ArthurCallbackHandler.from_credentials`.

        It sends no request to Arthur; `connect(model_id)` does.

        Raises:
            ConfigurationError: The URL, the settings or the credentials can't be used.
        """
        settings = settings if settings is not None else RelaySettings()
        credentials = resolve_credentials(
            url=arthur_url,
            login=arthur_login,
            password=arthur_password,
            allow_insecure=settings.allow_insecure,
        )
        return cls(ScopeDestination.of(credentials, settings), model_id=model_id, settings=settings)

    @classmethod
    def from_env(cls, *, settings: RelaySettings | None = None) -> Relay:
        """Make a relay to Arthur Scope from the SDK's environment variables.

        Raises:
            ConfigurationError: A variable is missing or has a value that is not allowed.
        """
        settings = settings if settings is not None else RelaySettings()
        credentials = credentials_from_environment(allow_insecure=settings.allow_insecure)
        model_id = os.environ.get("ARTHUR_MODEL_ID", "").strip() or None
        if model_id is None and not settings.disabled:
            logger.warning(
                "arthur-relay: ARTHUR_MODEL_ID is not set: inferences that name no model of their"
                " own will be rejected"
            )
        destination = ScopeDestination.of(credentials, settings)
        relay = cls(destination, model_id=model_id, settings=settings)
        relay._lacks_model = model_id is None
        return relay

    def capture(self, inference: Inference) -> None:
        """Take an inference of code that does not use LangChain; returns at once.

        Never raises. Any thread, signal handler or finaliser may call it. An inference that can't
        be taken is counted in `stats()`. With `overflow = block` it may wait when the queue is
        full.
        """
        if self.settings.disabled:
            return
        if self._pipeline.started_pid != os.getpid():
            self._move_in()  # first, because generated ids belong to a process too
        try:
            captured = CapturedInference(
                inference,
                inference.inference_id or f"{self._id_prefix}-{next(self._ids):x}",
                self._model_id(inference.model_id),
                time.time(),
            )
            if inference.attributes:
                attributes = snapshot_values(inference.attributes)
                captured.attributes, held, captured.unread = attributes
                captured.size += held
        except Exception:  # noqa: BLE001 - nothing may be raised into the application
            self.lose_unreadable()
        else:
            self._pipeline.queue.put(captured)

    def log_ground_truth(
        self,
        run_id_or_inference_id: UUID | str,
        ground_truth: Mapping[str, Any],
        timestamp: datetime | None = None,
        *,
        model_id: str | None = None,
    ) -> None:
        """Send an inference's ground truth to Arthur, for instance a user's thumbs-up.

        Returns at once and never raises; any thread. It is sent after the inference that it belongs
        to, which may come from another process, and is counted like an inference.

        Args:
            run_id_or_inference_id: LangChain's run id, or the inference's own.
            ground_truth: Values by attribute name; those that the model has registered as ground
                truth are sent.
            timestamp: When it became known, timezone-aware; now when None.
            model_id: The Arthur model; the relay's own when None.
        """
        if self.settings.disabled:
            return
        try:
            captured = snapshot_ground_truth(
                str(run_id_or_inference_id),
                self._model_id(model_id),
                ground_truth,
                timestamp,
                now=time.time(),
            )
        except Exception:  # noqa: BLE001 - nothing may be raised into the application
            self.lose_unreadable()
            return
        if not self.open_runs.attach(captured):
            self.submit(captured)

    def resubmit(self, letter: DeadLetter) -> None:
        """Send a dead letter once more, unchanged. Returns at once, as `capture` does."""
        row = Row(letter.inference_id, letter.model_id, letter.body, kind=letter.kind)
        if not self.settings.disabled:
            self.submit(CapturedRow(row))

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters that are kept, oldest first. Any thread.

        Raises:
            OSError: The spool can't be read.
            sqlite3.Error: The same.
        """
        return self._pipeline.dead_letters.letters()

    def submit(self, capture: Capture, *, may_wait: bool = True) -> None:
        """Queue a capture; the callback calls this for a run that has ended."""
        if self._pipeline.started_pid != os.getpid():
            self._move_in()
        self._pipeline.queue.put(capture, may_wait=may_wait)

    def submit_ground_truths(self, run: Run) -> None:
        """Submit the ground truth that came before a run ended, after the run itself."""
        truths = run.ground_truths
        while truths:
            with suppress(IndexError):  # another thread takes them as well
                self.submit(truths.popleft())

    def lose_unreadable(self) -> None:
        """Count an inference that could not be read as captured and dropped. Any thread."""
        self.events.unreadable.increment()
        if self._pipeline.started_pid != os.getpid():
            self._move_in()
        self._pipeline.ledger.lose(DropReason.UNREADABLE, 1)

    def connect(self, model_id: str) -> None:
        """Ask Arthur for a model, unless it is known or was asked for before.

        Returns when Arthur has answered, or after `connect_timeout_seconds`. If Arthur can't be
        reached it logs that, the worker keeps asking, and inferences wait.

        Raises:
            CredentialsError: Arthur refused the login or the key.
            ModelError: Arthur has no such model, or it is not an LLM.
        """
        if not self.settings.disabled:
            self._revive()
            seconds = self.settings.connect_timeout_seconds
            self._models.ask(model_id, self._pipeline, timeout_seconds=seconds)

    def register(self, schema: Schema) -> None:
        """Register a model's schema, so that Arthur is not asked for it. Any thread."""
        self._models.give(schema, self._pipeline)

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Wait until all earlier captures are delivered, rejected or dropped.

        Any thread; on the worker's own, in a callback of the relay, it returns at once.

        Args:
            timeout: The longest wait in seconds; `shutdown_timeout_seconds` when None.
        """
        if not self._pipeline.is_done:
            self._move_in()
        return self._result(timed_out=not self._pipeline.flush(self._timeout(timeout)))

    def close(self, timeout: float | None = None) -> FlushResult:
        """Take no more captures, deliver the queue, and end the worker, all within one deadline.

        Captures that are left at the deadline are dropped and counted. Closing again changes
        nothing. An interrupt ends the wait and is raised.

        Args:
            timeout: The longest wait in seconds; `shutdown_timeout_seconds` when None.
        """
        deadline = monotonic() + self._timeout(timeout)
        self.begin_close()
        return self.finish_close(deadline)

    def stats(self) -> Stats:
        """Return a snapshot. Any thread."""
        return self._pipeline.stats(events=self.events, open_runs=self.open_runs)

    def health(self) -> Health:
        """Return in one word and one sentence how delivery goes. Any thread."""
        return self._pipeline.health(
            disabled=self.settings.disabled,
            unreadable=self.events.unreadable.value(),
            lacks_model=self._lacks_model,
        )

    @property
    def is_at_rest(self) -> bool:
        """Whether its thread ended for lack of work; the next capture starts it again."""
        return self._pipeline.is_at_rest

    def begin_flush(self) -> Future[None]:
        """Begin a flush without waiting for it. Any thread or signal handler."""
        return self._pipeline.begin_flush()

    def begin_close(self) -> float:
        """Take no more captures and begin to deliver the queue; returns the seconds it may take."""
        self._leave_parent()
        self.open_runs.abandon_all()
        if self._pipeline.begin_shutdown():
            registry().unshare(self)
        return self.settings.shutdown_timeout_seconds

    def finish_close(self, deadline: float) -> FlushResult:
        """Wait for the end until `deadline`, on `time.monotonic()`'s scale, then enforce it."""
        pipeline = self._pipeline
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
        self._forked_from.append(self._pipeline)
        self._pipeline.abandon()
        self.tracing.remember(self.open_runs.runs())
        self.open_runs.clear()
        self.events = EventCounts()
        self._id_prefix = secrets.token_hex(12)
        closed = not self._pipeline.is_open
        self._pipeline = self._build()
        if closed:  # what the parent has closed stays closed
            self._pipeline.stop_accepting()

    def _build(self) -> Pipeline:
        pipeline = Pipeline.build(
            self.settings, self._destination, host=self._host, budget=self._budget
        )
        self._models.give_all(pipeline)
        return pipeline

    def _start(self) -> None:
        self._pipeline.start()
        self.open_runs.owner_pid = os.getpid()
        registry().started(self)

    def _revive(self) -> None:
        """Start the worker in a forked child, whether or not its at-fork hooks ran.

        Raises:
            ConfigurationError: No thread can be started.
        """
        if self.settings.disabled or not self._pipeline.is_open:
            return
        if self._pipeline.started_pid == os.getpid():
            if self.is_at_rest:
                self._pipeline.wake()
            return
        with self._lock.mine():
            if self._pipeline.started_pid != os.getpid():
                self._leave_parent()
                self._start()

    def _move_in(self) -> None:
        """Do what `_revive` does; if no thread can be started, the next capture tries again."""
        with suppress(Exception):
            self._revive()

    def _leave_parent(self) -> None:
        """Start afresh in a forked child whose at-fork hooks did not run; else do nothing."""
        if self._pipeline.created_pid != os.getpid():
            with self._lock.mine():
                if self._pipeline.created_pid != os.getpid():
                    self.forget_parent()

    def _give_up(self, run: Run) -> None:
        self.events.abandoned.increment()
        if run.trace is not None:
            self.tracing.ended(run)
        self.submit(run, may_wait=False)
        self.submit_ground_truths(run)

    def _model_id(self, given: str | None) -> str:
        """Return the model of a capture; empty when there is none: then the capture is rejected."""
        model_id = given or self.model_id or ""
        if not isinstance(model_id, str):
            raise TypeError
        return model_id

    def _checked(self, model_id: str) -> str:
        # An empty id means none, and a relay that is switched off checks nothing.
        return model_id if self.settings.disabled or not model_id else check_model_id(model_id)

    def _timeout(self, timeout: float | None) -> float:
        seconds = self.settings.shutdown_timeout_seconds if timeout is None else timeout
        return min(max(0.0, seconds), threading.TIMEOUT_MAX)

    def _result(self, *, timed_out: bool = False) -> FlushResult:
        return report_flush(self._pipeline.ledger, timed_out=timed_out)
