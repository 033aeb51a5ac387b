"""The relay: composes the pipeline in an application's process, and is how it is spoken to."""

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
from arthur_relay.credentials import (
    DEFAULT_URL,
    credentials_from_environment,
    resolve_credentials,
)
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.encoding.schema import check_model_id
from arthur_relay.errors import unable_to_start
from arthur_relay.inference import CapturedInference, CapturedRow
from arthur_relay.lifecycle import Flushing
from arthur_relay.row import Row
from arthur_relay.runtime.idling import RelayIdling
from arthur_relay.runtime.process_registry import registry
from arthur_relay.runtime.thread import JOIN_SECONDS
from arthur_relay.settings import RelaySettings
from arthur_relay.shutdown import exit_on_sigterm
from arthur_relay.stats import DropReason
from arthur_relay.system.clocks import Clocks, monotonic
from arthur_relay.system.fork_safety import ProcessLock
from arthur_relay.worker.known_models import KnownModels
from arthur_relay.worker.pipeline import Pipeline
from arthur_relay.worker.report import EventCounts, report_flush, report_health, report_stats

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future
    from datetime import datetime
    from uuid import UUID

    from arthur_relay.dead_letters import DeadLetter
    from arthur_relay.destinations import Destination
    from arthur_relay.encoding.schema import ModelSchema
    from arthur_relay.inference import Capture, Inference, Run
    from arthur_relay.stats import FlushResult, Health, Stats

logger = logging.getLogger("arthur_relay")


class Relay(Flushing):
    """Takes inferences and has them delivered in the background.

    One relay has one worker thread, one queue and one connection pool; any number of callback
    handlers and threads may share it. While there is nothing to do, the thread and the connections
    end after half a minute, and come back with the next capture. A forked child gets a fresh worker
    and an empty queue on its first use; what was queued stays the parent's.

    Args:
        destination: Where rows go; entered and used by the worker only.
        model_id: The model of inferences that do not name one.
        settings: The settings; from the environment when None.

    Raises:
        ConfigurationError: The model's id can't be one, or the relay can't start.
    """

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
        self.open_runs = OpenRuns(
            max_runs=self.settings.max_open_runs,
            max_bytes=self.settings.open_runs_bytes,
            give_up=self._give_up,
            spare=lambda: self._pipeline.worker.admission.spare(),  # noqa: PLW0108 - it is made below
            moved=self._move_in,
        )
        self._idling = RelayIdling(self, self.open_runs)
        self._pipeline = self._assemble()
        if not self.settings.disabled:
            self._start()
            if (error := self._pipeline.runtime.wait_until_ready()) is not None:
                self._pipeline.runtime.cancel()
                self._pipeline.runtime.join(JOIN_SECONDS)
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

        Nothing is asked of Arthur here; `connect(model_id)` does.

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

        Never raises, from any thread, signal handler or finaliser. What can't be taken is counted
        in `stats()`. With `overflow = block` it may wait when the queue is full.
        """
        if self.settings.disabled:
            return
        if self._pipeline.started_pid != os.getpid():
            self._move_in()  # first of all, for ids are of a process too
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
            self._pipeline.put(captured)

    def log_ground_truth(
        self,
        run_id_or_inference_id: UUID | str,
        ground_truth: Mapping[str, Any],
        timestamp: datetime | None = None,
        *,
        model_id: str | None = None,
    ) -> None:
        """Tell Arthur what became known of an inference later, a user's thumbs-up for instance.

        Returns at once, and never raises, from any thread. It is sent behind the inference it
        belongs to, which may come from another process, and is counted like an inference.

        Args:
            run_id_or_inference_id: LangChain's run id, or the inference's own.
            ground_truth: Values by attribute name, of which those are sent that the model has
                registered as ground truth.
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
        """Send a dead letter once more, as it is. Returns at once, as `capture` does."""
        row = Row(letter.inference_id, letter.model_id, letter.body, kind=letter.kind)
        if not self.settings.disabled:
            self.submit(CapturedRow(row))

    def dead_letters(self) -> list[DeadLetter]:
        """Return what was rejected or given up, oldest first, as far as it is kept. Any thread.

        Raises:
            OSError: The spool can't be read.
            sqlite3.Error: The same.
        """
        return self._pipeline.dead_letters.letters()

    def submit(self, capture: Capture, *, may_wait: bool = True) -> None:
        """Queue a capture; what the callback does with a run that has ended."""
        if self._pipeline.started_pid != os.getpid():
            self._move_in()
        self._pipeline.put(capture, may_wait=may_wait)

    def submit_ground_truths(self, run: Run) -> None:
        """Submit what was said of a run before it ended, once it has been submitted itself."""
        truths = run.ground_truths
        while truths:
            with suppress(IndexError):  # another thread takes them as well
                self.submit(truths.popleft())

    def lose_unreadable(self) -> None:
        """Count an inference that could not be read: captured, and dropped. Any thread."""
        self.events.unreadable.increment()
        if self._pipeline.started_pid != os.getpid():
            self._move_in()
        self._pipeline.ledger.lose(DropReason.UNREADABLE, 1)

    def connect(self, model_id: str) -> None:
        """Ask Arthur for a model, unless it is known or was asked for before.

        Returns when Arthur has answered, or after `connect_timeout_seconds`. When Arthur can't be
        reached that is logged, the worker keeps asking, and inferences wait.

        Raises:
            CredentialsError: Arthur refused the login or the key.
            ModelError: Arthur has no such model, or it is not an LLM.
        """
        if not self.settings.disabled:
            self._revive()
            seconds = self.settings.connect_timeout_seconds
            self._models.ask(model_id, self._pipeline, timeout_seconds=seconds)

    def register(self, schema: ModelSchema) -> None:
        """Make a model known, so that Arthur need not be asked for it. Any thread."""
        self._models.give(schema, self._pipeline)

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Wait until everything captured before is delivered, rejected or dropped.

        Any thread but the worker's own (a callback of the relay), where it returns at once.

        Args:
            timeout: Seconds to wait at most; `shutdown_timeout_seconds` when None.
        """
        if not self._pipeline.is_done:
            self._move_in()
        return self._result(timed_out=not self._pipeline.flush(self._timeout(timeout)))

    def close(self, timeout: float | None = None) -> FlushResult:
        """Take no more, deliver what is queued, and end the worker; all within one deadline.

        What is left at the deadline is dropped, and counted. Closing again changes nothing. An
        interrupt while waiting ends the wait and is raised.

        Args:
            timeout: Seconds to wait at most; `shutdown_timeout_seconds` when None.
        """
        deadline = monotonic() + self._timeout(timeout)
        self.begin_close()
        return self.finish_close(deadline)

    def stats(self) -> Stats:
        """Return a snapshot. Any thread."""
        pipeline = self._pipeline
        return report_stats(
            pipeline.ledger,
            events=self.events,
            open_runs=len(self.open_runs),
            worker_restarts=pipeline.runtime.restarts,
            pending_bytes=pipeline.pending_bytes + self.open_runs.size,
            spooled=lambda: pipeline.spooled,
        )

    def health(self) -> Health:
        """Say in one word and one sentence how delivery goes. Any thread."""
        pipeline = self._pipeline
        return report_health(
            pipeline.ledger,
            pipeline.worker.sender,
            schemas=pipeline.worker.schemas,
            unreadable=self.events.unreadable.value(),
            disabled=self.settings.disabled,
            closed=not pipeline.is_open,
            running=pipeline.runtime.is_running or pipeline.started_pid != os.getpid(),
            trouble=pipeline.worker.buffer.status.trouble,
            left_alone=pipeline.worker.buffer.status.left_alone,
            lacks_model=self._lacks_model,
        )

    @property
    def is_at_rest(self) -> bool:
        """Whether its thread has ended for want of work, and comes back with the next capture."""
        return self._pipeline.started_pid == os.getpid() and self._pipeline.runtime.is_at_rest

    def begin_flush(self) -> Future[None]:
        """Begin a flush without waiting for it. Any thread, and from a signal handler."""
        return self._pipeline.begin_flush()

    def begin_close(self) -> float:
        """Take no more and begin to deliver what is queued; returns the seconds it may take."""
        self._leave_parent()
        self.open_runs.abandon_all()
        if self._pipeline.begin_end():
            registry().unshare(self)
        return self.settings.shutdown_timeout_seconds

    def finish_close(self, deadline: float) -> FlushResult:
        """Wait for the end until `deadline`, on `time.monotonic()`'s scale, and see to it."""
        pipeline = self._pipeline
        if pipeline.started_pid != os.getpid():
            return self._result()  # disabled, or a forked child that never captured anything
        try:
            in_time = pipeline.finish_end(deadline)
        finally:  # also when an interrupt ended the wait
            registry().ended(self)
        return self._result(timed_out=not in_time)

    def forget_parent(self) -> None:
        """Become fresh in a forked child; the worker starts with its first use."""
        # Kept, so that no finaliser in the child touches the parent's connections.
        self._forked_from.append(self._pipeline)
        self._pipeline.worker.buffer.durable.abandon()
        self.open_runs.clear()
        self.events = EventCounts()
        self._id_prefix = secrets.token_hex(12)
        closed = not self._pipeline.is_open
        self._pipeline = self._assemble()
        if closed:  # what the parent has closed stays closed
            self._pipeline.shut()

    def _assemble(self) -> Pipeline:
        pipeline = Pipeline.assemble(
            self.settings,
            self._destination,
            sweep=self._sweep,
            learned=self._models.learn,
            borrowed_by_runs=lambda: self.open_runs.borrowed,
            owner=self._idling,
        )
        self._models.give_all(pipeline)
        return pipeline

    def _start(self) -> None:
        self._pipeline.runtime.start(self._pipeline.worker.wake)
        self._pipeline.started_pid = self.open_runs.lives_in = os.getpid()
        registry().started(self)

    def _revive(self) -> None:
        """Start the worker in a forked child, whether or not its at-fork hooks ran.

        Raises:
            ConfigurationError: No thread can be had.
        """
        if self.settings.disabled or not self._pipeline.is_open:
            return
        if self._pipeline.started_pid == os.getpid():
            if self.is_at_rest:
                self._pipeline.runtime.wake()
            return
        with self._lock.mine():
            if self._pipeline.started_pid != os.getpid():
                self._leave_parent()
                self._start()

    def _move_in(self) -> None:
        """Do what `_revive` does; when no thread can be had, the next capture tries again."""
        with suppress(Exception):
            self._revive()

    def _leave_parent(self) -> None:
        """Become fresh in a forked child whose at-fork hooks were bypassed; else do nothing."""
        if self._pipeline.created_pid != os.getpid():
            with self._lock.mine():
                if self._pipeline.created_pid != os.getpid():
                    self.forget_parent()

    def _sweep(self) -> bool:
        self._pipeline.worker.buffer.durable.adopt(self._pipeline.ledger.recover)
        self.open_runs.sweep(Clocks.perf_counter() - self.settings.run_max_age_seconds)
        return len(self.open_runs) > 0

    def _give_up(self, run: Run) -> None:
        self.events.abandoned.increment()
        self.submit(run, may_wait=False)
        self.submit_ground_truths(run)

    def _model_id(self, given: str | None) -> str:
        """Return the model of a capture; empty when there is none, for which it is rejected."""
        model_id = given or self.model_id or ""
        if not isinstance(model_id, str):
            raise TypeError
        return model_id

    def _checked(self, model_id: str) -> str:
        # An empty one is none, and a relay that is switched off asks for nothing.
        return model_id if self.settings.disabled or not model_id else check_model_id(model_id)

    def _timeout(self, timeout: float | None) -> float:
        seconds = self.settings.shutdown_timeout_seconds if timeout is None else timeout
        return min(max(0.0, seconds), threading.TIMEOUT_MAX)

    def _result(self, *, timed_out: bool = False) -> FlushResult:
        return report_flush(self._pipeline.ledger, timed_out=timed_out)
