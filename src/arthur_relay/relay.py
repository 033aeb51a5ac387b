"""The relay: the public interface to the pipeline in an application's process."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from arthur_relay.capture.open_runs import run_key
from arthur_relay.capture.snapshots import snapshot_ground_truth, snapshot_values
from arthur_relay.credentials import (
    DEFAULT_URL,
    credentials_from_environment,
    resolve_credentials,
    resolve_engine_credentials,
)
from arthur_relay.destinations.engine.client import EngineDestination
from arthur_relay.destinations.engine.task import task_named
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.encoding.model import check_model_id
from arthur_relay.encoding.product import Product, product_of_row
from arthur_relay.errors import ConfigurationError, in_one_sentence
from arthur_relay.inference import DESCRIPTION, SCORE, CapturedInference, CapturedRow
from arthur_relay.lifecycle import Flushing
from arthur_relay.row import NO_HISTORY, History, Row
from arthur_relay.settings import RelaySettings
from arthur_relay.shutdown import exit_on_sigterm
from arthur_relay.system.clocks import monotonic
from arthur_relay.worker.relay_host import RelayHost

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from arthur_relay.dead_letters import DeadLetter
    from arthur_relay.destinations import Destination
    from arthur_relay.inference import Inference
    from arthur_relay.stats import FlushResult, Health, Stats

logger = logging.getLogger("arthur_relay")


class Relay(Flushing):
    """Takes inferences and delivers them in the background.

    One relay has one worker thread, one queue and one connection pool; any number of callback
    handlers and threads may share it. After half a minute without work, the thread and the
    connections end; the next capture starts them again. A forked child gets a fresh worker and an
    empty queue on its first use; only the parent sends what was queued at the fork.

    Args:
        destination: Where rows are sent; only the worker enters and uses it.
        model_id: The model of inferences that do not name one.
        settings: The settings. None takes them from the environment.

    Attributes:
        settings: The settings.
        model_id: The model of inferences that do not name one, or None.

    Raises:
        ConfigurationError: The model's id is invalid, or the relay can't start.
    """

    @in_one_sentence
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
        self._host = RelayHost(self, destination, self.settings)
        if not self.settings.disabled:
            self._host.start()
            if self.settings.flush_on_sigterm:
                exit_on_sigterm()

    @classmethod
    @in_one_sentence
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
    @in_one_sentence
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

    @classmethod
    @in_one_sentence
    def from_engine(
        cls,
        task: str | None = None,
        *,
        task_id: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        service_version: str | None = None,
        settings: RelaySettings | None = None,
    ) -> Relay:
        """Make a relay to Arthur Engine; see `ArthurCallbackHandler.from_engine`.

        It sends no request to the Engine; `connect(task)` does.

        Raises:
            ConfigurationError: The URL, the settings, the key or the task can't be used.
        """
        settings = (settings if settings is not None else RelaySettings()).for_engine()
        credentials = resolve_engine_credentials(
            url=base_url, api_key=api_key, allow_insecure=settings.allow_insecure
        )
        destination = EngineDestination.of(credentials, settings, service_version=service_version)
        named = task_named(task, task_id, os.environ)
        return cls(destination, model_id=named, settings=settings)

    def capture(self, inference: Inference) -> None:
        """Take an inference from code that does not use LangChain. Returns at once, never raises.

        Any thread, signal handler or finaliser may call it. An inference that can't be taken is
        counted in `stats()`. Only with `overflow = block` may it wait, while the queue is full.
        """
        if self.settings.disabled:
            return
        host = self._host
        if host.pipeline.started_pid != os.getpid():
            host.ensure_started()  # first, because generated ids belong to a process too
        try:
            captured = CapturedInference(
                inference,
                inference.inference_id or host.new_id(),
                self._model_id(inference.model_id),
                time.time(),
            )
            if inference.attributes:
                attributes = snapshot_values(inference.attributes)
                captured.attributes, held, captured.unread = attributes
                captured.size += held
        except Exception:  # noqa: BLE001 - nothing may be raised into the application
            host.lose_unreadable()
        else:
            host.pipeline.queue.put(captured)

    def log_ground_truth(
        self,
        run_id_or_inference_id: UUID | str,
        ground_truth: Mapping[str, Any],
        timestamp: datetime | None = None,
        *,
        model_id: str | None = None,
    ) -> None:
        """Send an inference's ground truth to Arthur, for instance a user's thumbs-up.

        Returns at once and never raises. Any thread may call it. Ground truth is sent after the
        inference that it belongs to, which may come from another process, and is counted like an
        inference.

        Args:
            run_id_or_inference_id: LangChain's run id, or the inference's own.
            ground_truth: Values by attribute name; those that the model has registered as ground
                truth are sent.
            timestamp: When it became known, timezone-aware. None means now.
            model_id: The Arthur model. None means the relay's own.
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
            self._host.lose_unreadable()
            return
        if not self._host.open_runs.attach(captured):
            self._host.submit(captured)

    def log_feedback(
        self,
        run_id: UUID | str,
        liked: bool,  # noqa: FBT001 - as one says it: log_feedback(run_id, True)
        description: str | None = None,
        *,
        model_id: str | None = None,
    ) -> None:
        """Send a user's feedback to Arthur Engine, as the annotation of the run's trace.

        Returns at once and never raises. Any thread may call it. Feedback is sent after the trace,
        which may come from another process, and replaces earlier feedback on it. It is counted
        like a span.

        Args:
            run_id: The id of the trace's root run, or of any of its runs in this process.
            liked: Whether the user liked the answer.
            description: What the user said, or None.
            model_id: The task, by its id or name. None means the relay's own.
        """
        if self.settings.disabled:
            return
        values: dict[str, Any] = {SCORE: liked}
        if description is not None:
            values[DESCRIPTION] = description
        try:
            found = run_id if isinstance(run_id, UUID) else UUID(run_id)
            model = self._model_id(model_id)
            open_run = self._host.open_runs.find(run_key(found, model))
            trace_id = self._host.tracing.trace_of(found, open_run)
        except Exception:  # noqa: BLE001 - nothing may be raised into the application
            self._host.lose_unreadable()
            return
        self.log_ground_truth(trace_id, values, model_id=model)

    def resubmit(self, letter: DeadLetter) -> None:
        """Send a dead letter once more, unchanged. Returns at once, as `capture` does.

        Arthur Engine would store a span a second time, so it is first asked whether it has the
        span, if the key may read.

        Raises:
            ConfigurationError: The letter is for the other one of Arthur's products.
        """
        if self.settings.disabled:
            return
        product = product_of_row(letter.body)
        if product not in (None, self._host.product):
            raise ConfigurationError(
                f"The dead letter of {letter.inference_id!r} is a row for {product}, and this relay"
                f" sends to {self._host.product}."
            )
        # Of a letter whose answer was lost, the Engine may have the span. Arthur Scope says so
        # itself, by the status of another inference with the same id: that is not to be believed
        # of one that was rejected.
        known = History(attempts=1) if product is Product.ENGINE else NO_HISTORY
        row = Row(
            letter.inference_id, letter.model_id, letter.body, kind=letter.kind, history=known
        )
        self._host.submit(CapturedRow(row))

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters that are kept, oldest first. Any thread may call it.

        Raises:
            OSError: The spool can't be read.
            sqlite3.Error: The spool is damaged, or can't be read.
        """
        return self._host.pipeline.dead_letters.letters()

    def connect(self, model_id: str) -> None:
        """Ask Arthur for a model, unless it is known or was asked for before.

        Returns when Arthur has answered, or after `connect_timeout_seconds`. If Arthur can't be
        reached, that is logged, the worker keeps asking, and inferences wait.

        Args:
            model_id: The model's id; with Arthur Engine, the task.

        Raises:
            CredentialsError: Arthur refused the login or the key.
            ModelError: Arthur has no such model, or it is not an LLM.
        """
        if not self.settings.disabled:
            self._host.connect(model_id)

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Wait until all earlier captures are delivered, rejected or dropped.

        That includes rows that an earlier process left in the spool. Any thread may call it; in a
        callback of the relay, on the worker's own thread, it returns at once.

        Args:
            timeout: The longest wait in seconds. None means `shutdown_timeout_seconds`.
        """
        return self._host.flush(self._seconds(timeout))

    def close(self, timeout: float | None = None) -> FlushResult:
        """Take no more captures, deliver the queue, and end the worker, all within one deadline.

        Captures that are left at the deadline are dropped and counted, or stay in the spool if
        there is one. What earlier processes left in the spool is not waited for. Closing again
        changes nothing. An interrupt ends the wait and is raised.

        Args:
            timeout: The longest wait in seconds. None means `shutdown_timeout_seconds`.
        """
        deadline = monotonic() + self._seconds(timeout)
        self._host.begin_close()
        return self._host.finish_close(deadline)

    def stats(self) -> Stats:
        """Return a snapshot of all counts. Any thread may call it."""
        return self._host.stats()

    def health(self) -> Health:
        """Say how delivery is going, in one word and one sentence. Any thread may call it."""
        return self._host.pipeline.health(
            disabled=self.settings.disabled,
            unreadable=self._host.events.unreadable.value(),
            lacks_model=self._lacks_model,
        )

    def _model_id(self, given: str | None) -> str:
        """Return the model of a capture; empty when there is none: then the capture is rejected."""
        model_id = given or self.model_id or ""
        if not isinstance(model_id, str):
            raise TypeError
        return model_id

    def _checked(self, model_id: str) -> str:
        # An empty id means none, and a relay that is switched off checks nothing.
        return model_id if self.settings.disabled or not model_id else check_model_id(model_id)

    def _seconds(self, timeout: float | None) -> float:
        seconds = self.settings.shutdown_timeout_seconds if timeout is None else timeout
        return min(max(0.0, seconds), threading.TIMEOUT_MAX)


def host_of(relay: Relay) -> RelayHost:
    """Return what a relay works with, for the rest of this package; users have no need of it."""
    return relay._host  # noqa: SLF001 - the one way to it from outside
