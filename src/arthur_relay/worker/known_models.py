"""The models that a relay was given, or has asked Arthur for."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING

from arthur_relay.encoding.run_fields import Wanted
from arthur_relay.errors import ConfigurationError, UnreachableError
from arthur_relay.sentences import named
from arthur_relay.system import native

if TYPE_CHECKING:
    from arthur_relay.encoding.model import Schema
    from arthur_relay.encoding.product import RowWords
    from arthur_relay.worker.pipeline import Pipeline

logger = logging.getLogger("arthur_relay")

MODELS_KEPT = 1000
"""Models that are remembered as asked for, at most, and questions that wait for an answer: an
application may name any number of models that there are not."""


class KnownModels:
    """Outlives a fork, unlike the pipeline that asks. Any thread.

    Args:
        words: What the log calls a model.

    Attributes:
        wanted: By model, what of a run its inferences can have; only what Arthur has said is in
            here.
    """

    def __init__(self, words: RowWords) -> None:
        self._words = words
        self.wanted: dict[str, Wanted] = {}
        self._answers: dict[str, Future[None]] = {}
        self._asked: dict[str, None] = {}  # in the order in which they were
        self._given: dict[str, Schema] = {}

    def give(self, schema: Schema, pipeline: Pipeline) -> None:
        """Make a model known, so that Arthur need not be asked for it."""
        if schema.model_id not in self._given:  # attributes can't be added to a saved model
            self._given[schema.model_id] = schema
            pipeline.give_model(schema)

    def give_all(self, pipeline: Pipeline) -> None:
        """Make known to a new pipeline what was given before; it asks for the others itself.

        The answers are not looked at: the parent's worker may hold the lock of one for ever.
        """
        self._answers = {}
        for schema in self._given.values():
            pipeline.give_model(schema)

    def ask(self, model_id: str, pipeline: Pipeline, *, timeout_seconds: float) -> None:
        """Wait until Arthur has described a model; it is asked once.

        While very many questions have no answer, no other is asked here: the worker asks for a
        model itself when there is an inference of it.

        Raises:
            ConfigurationError: Arthur refused the model, or who we are.
        """
        if model_id in self._given or model_id in self._asked:
            return
        answer = self._answers.get(model_id)
        if answer is None:
            if not self._has_room():
                return
            answer = self._answers[model_id] = pipeline.ask_for_model(model_id)
        native.wait_for_any((answer,), timeout_seconds)
        try:
            answer.result(0)
        except ConfigurationError:
            self._forget(model_id, answer)  # someone may put it right and try again
            raise
        except UnreachableError:
            self._forget(model_id, answer)  # the worker has logged it, and goes on asking
        except FutureTimeoutError:
            logger.warning(
                "arthur-relay: Arthur has not answered within %g s, the limit of %s; will keep"
                " asking for %s %s",
                timeout_seconds,
                named("connect_timeout_seconds"),
                self._words.model,
                model_id,
            )
        else:
            self._forget(model_id, answer)
        # Whoever comes from now on does not wait, as a handler is made for each request.
        self._asked[model_id] = None
        # Copies are one step of C code: other threads may change these meanwhile.
        for oldest in list(self._asked)[:-MODELS_KEPT]:
            self._asked.pop(oldest, None)

    def _has_room(self) -> bool:
        """Return whether one more question may wait for its answer."""
        if len(self._answers) >= MODELS_KEPT:
            for model_id, answer in list(self._answers.items()):
                if answer.done():
                    self._forget(model_id, answer)
        return len(self._answers) < MODELS_KEPT

    def _forget(self, model_id: str, answer: Future[None]) -> None:
        """Drop an answer that came, unless it is asked again by now."""
        if self._answers.get(model_id) is answer:
            self._answers.pop(model_id, None)

    def learn(self, model_id: str, schema: Schema) -> None:
        """Let the handlers of a model keep nothing of a run but what can be sent."""
        self.wanted[model_id] = Wanted.of(frozenset(schema.types))
