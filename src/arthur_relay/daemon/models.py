"""What Arthur tells of models, for clients: asked for now and then, else the kept copy."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from arthur_relay.daemon.measurements import QuestionOutcome
from arthur_relay.daemon.responses import NOT_ALLOWED, answer_error, answer_json
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.errors import (
    ConfigurationError,
    CredentialsError,
    ModelError,
    RelayError,
    UnreachableError,
)

if TYPE_CHECKING:
    from starlette.responses import Response

    from arthur_relay.daemon.auth import Principal
    from arthur_relay.daemon.measurements import Questions
    from arthur_relay.destinations.scope.client import ScopeDestination
    from arthur_relay.worker.pipeline import Pipeline

logger = logging.getLogger("arthur_relay.daemon.models")

FRESH_SECONDS = 30.0
"""How long an answer of Arthur's is given to others as well: a server's workers start together."""

AWAY_SECONDS = 5.0
"""How long Arthur is not asked again after it was found away, for a model that is kept."""

FIRST_SECONDS = 1.0
"""How long the first rows of a model wait for Arthur to say whether there is such a model."""

ANSWERS_KEPT = 1000
"""Models whose answers are kept, at most: clients may ask for any that there are not."""

_Key = tuple[str, bool]


@dataclass(frozen=True, slots=True)
class _Told:
    """What Arthur told when it was asked: of a model, or that there is none."""

    until: float
    document: dict[str, Any] | None = None
    refusal: str = ""


class _NoModelError(Exception):
    """There is no model to answer with; `response` is the answer then."""

    def __init__(self, response: Response) -> None:
        self.response = response


@dataclass(slots=True, eq=False)
class Models:
    """Belongs to the daemon's loop.

    Attributes:
        arthur: Asked; entered on this loop, and not the worker's.
        parts: The worker's, which keeps copies in the spool.
        timeout_seconds: How long Arthur may take.
        questions: Told how each question ended.
    """

    arthur: ScopeDestination
    pipeline: Pipeline
    timeout_seconds: float
    questions: Questions
    _told: dict[_Key, _Told] = field(default_factory=dict)
    _asking: dict[_Key, asyncio.Task[_Told]] = field(default_factory=dict)
    _away_until: float = 0.0

    async def answer(self, name: str, *, by_partner_id: bool, principal: Principal) -> Response:
        """Answer `GET /models/{id}`.

        A restricted token's answer says nothing of models that it may not use, not even whether
        they exist, or are known here.
        """
        try:
            found = await self._find((name, by_partner_id), principal)
        except _NoModelError as error:
            if principal.is_restricted and error.response.status_code == 404:
                return answer_error(403, NOT_ALLOWED)
            return error.response
        if not _allows(principal, found):
            return answer_error(403, NOT_ALLOWED)
        return answer_json(found)

    async def refusal(self, model_id: str) -> str:
        """Return why rows of a model can never be taken, or "" as far as can be told.

        Arthur is asked of a model that is new here, and has a moment to answer.
        """
        key = (model_id, False)
        now = time.monotonic()
        told = self._told.get(key)
        if told is not None and now <= told.until:
            return told.refusal
        if (told is not None and not told.refusal) or self._kept(key) is not None:
            return ""  # whatever has become of it, it was one
        if now < self._away_until:
            return ""
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                return (await self._ask(key)).refusal
        except (TimeoutError, RelayError):
            self._away_until = time.monotonic() + AWAY_SECONDS
            return ""

    async def _find(self, key: _Key, principal: Principal) -> dict[str, Any]:
        """Return Arthur's description of a model, or the kept one.

        Raises:
            _NoModelError: There is neither.
        """
        kept = self._kept(key)
        if kept is not None and not _allows(principal, kept):
            kept = None
        told = self._told.get(key)
        if told is None or time.monotonic() > told.until:
            if kept is not None and time.monotonic() < self._away_until:
                return kept
            try:
                told = await self._ask(key)
            except UnreachableError as error:
                self._away_until = time.monotonic() + AWAY_SECONDS
                if kept is not None:
                    return kept
                sentence = f"Arthur can't be asked for the model now: {error}"
                raise _NoModelError(answer_error(503, sentence, retry_after_seconds=5)) from None
            except CredentialsError:
                if kept is not None:
                    return kept
                sentence = "Arthur refused the daemon's own credentials"
                raise _NoModelError(answer_error(503, sentence, retry_after_seconds=30)) from None
        if told.document is None:
            raise _NoModelError(answer_error(404, told.refusal))
        return told.document

    async def _ask(self, key: _Key) -> _Told:
        """Ask Arthur, once for all who want to know the same.

        Raises:
            UnreachableError: It can't be asked.
            CredentialsError: It refused the daemon.
        """
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._fetch(key))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def _fetch(self, key: _Key) -> _Told:
        try:
            told = await self._told_by_arthur(key)
        except CredentialsError:
            self._note(QuestionOutcome.REFUSED, "it refused the daemon's credentials")
            raise
        except UnreachableError as error:
            self._note(QuestionOutcome.UNAVAILABLE, str(error))
            raise
        self._note(QuestionOutcome.ANSWERED)
        while len(self._told) >= ANSWERS_KEPT:
            del self._told[next(iter(self._told))]
        self._told[key] = told
        return told

    def _note(self, outcome: QuestionOutcome, failure: str = "") -> None:
        """Count a question as a delivery is: for the breaker, health, metrics and the log."""
        if self.questions.note(outcome, failure):
            if failure:
                logger.warning("Arthur can't be asked for models: %s", failure)
            else:
                logger.warning("Arthur answers questions for models again")
        if outcome is not QuestionOutcome.REFUSED:  # it is there, so that probes would tell nothing
            self.pipeline.note_question(failure)

    async def _told_by_arthur(self, key: _Key) -> _Told:
        """Ask Arthur.

        Raises:
            UnreachableError: It can't be asked.
            CredentialsError: It refused the daemon.
        """
        name, by_partner_id = key
        until = time.monotonic() + FRESH_SECONDS
        try:
            async with asyncio.timeout(self.timeout_seconds):
                document = await self.arthur.fetch_model(name, by_partner_id=by_partner_id)
        except TimeoutError:
            raise UnreachableError("it has not answered in time") from None
        except ModelError:
            return _Told(until, refusal="no such model")
        except CredentialsError:
            raise
        except ConfigurationError as error:
            raise UnreachableError(str(error)) from None
        self._keep(document)
        return _Told(until, document)

    def _keep(self, document: dict[str, Any]) -> None:
        """Have the worker know the model, and keep what was told in the spool."""
        try:
            schema = ModelSchema.from_json(document)
        except RelayError:
            return  # not an LLM: its rows pass through all the same
        self.pipeline.give_model(schema)

    def _kept(self, key: _Key) -> dict[str, Any] | None:
        name, by_partner_id = key
        for schema in self.pipeline.known_models():
            document = schema.to_json()
            found = document.get("partner_model_id") if by_partner_id else schema.model_id
            if found == name:
                return document
        return None


def _allows(principal: Principal, document: dict[str, Any]) -> bool:
    return principal.allows(str(document.get("id", "")))
