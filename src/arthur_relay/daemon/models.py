"""What Arthur says of models, for clients: asked for now and then, else the kept copy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from arthur_relay.daemon.measurements import QuestionOutcome
from arthur_relay.daemon.responses import NOT_ALLOWED, answer_error, answer_json
from arthur_relay.errors import CredentialsError, RelayError, UnreachableError
from arthur_relay.sentences import unreachable
from arthur_relay.system.worker_logs import WorkerLogger

if TYPE_CHECKING:
    from starlette.responses import Response

    from arthur_relay.daemon.auth import Principal
    from arthur_relay.daemon.measurements import Questions
    from arthur_relay.worker.model_inquiries import ModelAnswer
    from arthur_relay.worker.pipeline import Pipeline

logger = WorkerLogger("arthur_relay.daemon.models")

FRESH_SECONDS = 30.0
"""How long an answer of Arthur's is given to others as well: a server's workers start together."""

AWAY_SECONDS = 5.0
"""How long Arthur is not asked again after it was found away, for a model that is kept."""

FIRST_SECONDS = 1.0
"""How long the first rows of a model wait for Arthur to say whether there is such a model."""

NO_MODEL = "no such model"

_Key = tuple[str, bool]


class _NoModelError(Exception):
    """There is no model to answer with; `response` is the answer then."""

    def __init__(self, response: Response) -> None:
        self.response = response


class SharesModels(Protocol):
    """Keeps descriptions of models for other daemons. For the daemon's loop only."""

    async def find(self, name: str, *, by_partner_id: bool) -> dict[str, Any] | None:
        """Return what Arthur has said of a model, or None. Never raises."""
        ...

    def keep(self, name: str, document: dict[str, Any], *, by_partner_id: bool) -> None:
        """Keep what Arthur says of a model, soon."""
        ...


@dataclass(slots=True, eq=False)
class Models:
    """Answers clients by what the pipeline finds out of models. Belongs to the daemon's loop.

    Attributes:
        pipeline: Asks Arthur, and remembers what it said.
        timeout_seconds: How long Arthur may take.
        shared: What others have learnt of models; None where there are none.
    """

    pipeline: Pipeline
    timeout_seconds: float
    shared: SharesModels | None = None

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
        """Return why rows of a model can never be taken, or "" as far as is known.

        Arthur is asked of a model that is new here, and has a moment to answer.
        """
        key = (model_id, False)
        latest = self._latest(key)
        if latest is not None and self._is_fresh(latest):
            return _refusal(latest)
        if (latest is not None and latest.document is not None) or self._kept(key) is not None:
            return ""  # whatever has become of it, it was one
        if self._is_away():
            return ""
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                answer = await self._ask(key)
            if self.shared is not None and answer.document is not None:
                self.shared.keep(model_id, answer.document, by_partner_id=False)
            return _refusal(answer)
        except (TimeoutError, RelayError):
            self.pipeline.inquiries.waited_in_vain()
            return ""

    async def describe(self, name: str) -> dict[str, Any] | None:
        """Return what Arthur says of a model, or has said; None when there is no such model.

        Raises:
            UnreachableError: It can't be asked, and has said nothing before.
            CredentialsError: It refused the daemon, and has said nothing before.
        """
        key = (name, False)
        return await self._description(key, self._kept(key))

    def kept(self) -> list[dict[str, Any]]:
        """Return the descriptions of the models that are known."""
        return [schema.to_json() for schema in self.pipeline.known_models()]

    async def _find(self, key: _Key, principal: Principal) -> dict[str, Any]:
        """Return Arthur's description of a model, or the kept one.

        Raises:
            _NoModelError: There is neither.
        """
        kept = self._kept(key)
        if kept is not None and not _allows(principal, kept):
            kept = None
        try:
            found = await self._description(key, kept)
        except UnreachableError as error:
            sentence = f"the model is not known yet, as {error}"
            raise _NoModelError(answer_error(503, sentence, retry_after_seconds=5)) from None
        except CredentialsError:
            sentence = "Arthur refused the daemon's own credentials"
            raise _NoModelError(answer_error(503, sentence, retry_after_seconds=30)) from None
        if found is None:
            raise _NoModelError(answer_error(404, NO_MODEL))
        return found

    async def _description(self, key: _Key, kept: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return what Arthur says of a model, or the kept copy while it can't be asked.

        Raises:
            RelayError: As `describe` does.
        """
        latest = self._latest(key)
        if latest is None or not self._is_fresh(latest):
            if self._is_away() and (found := kept or await self._of_others(key)) is not None:
                return found
            try:
                latest = await self._ask(key)
            except (UnreachableError, CredentialsError):
                if (found := kept or await self._of_others(key)) is not None:
                    return found
                raise
            if self.shared is not None and latest.document is not None:
                self.shared.keep(key[0], latest.document, by_partner_id=key[1])
        return latest.document

    async def _of_others(self, key: _Key) -> dict[str, Any] | None:
        if self.shared is None:
            return None
        return await self.shared.find(key[0], by_partner_id=key[1])

    def _latest(self, key: _Key) -> ModelAnswer | None:
        name, by_partner_id = key
        return self.pipeline.inquiries.latest(name, by_partner_id=by_partner_id)

    def _is_fresh(self, answer: ModelAnswer) -> bool:
        return self.pipeline.inquiries.age_of(answer) <= FRESH_SECONDS

    def _is_away(self) -> bool:
        """Return whether Arthur was found away, or rows waited for it in vain, a moment ago."""
        return self.pipeline.inquiries.is_away(AWAY_SECONDS)

    async def _ask(self, key: _Key) -> ModelAnswer:
        """Have Arthur asked, once for all who want to know the same.

        Raises:
            UnreachableError: It can't be asked.
            CredentialsError: It refused the daemon.
        """
        name, by_partner_id = key
        answer = self.pipeline.inquire(name, by_partner_id=by_partner_id)
        try:
            # A little longer than the question itself may take: the worker may have died meanwhile.
            async with asyncio.timeout(self.timeout_seconds + FIRST_SECONDS):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            raise UnreachableError(unreachable("no answer came in time")) from None

    def _kept(self, key: _Key) -> dict[str, Any] | None:
        name, by_partner_id = key
        for schema in self.pipeline.known_models():
            document = schema.to_json()
            found = document.get("partner_model_id") if by_partner_id else schema.model_id
            if found == name:
                return document
        return None


@dataclass(frozen=True, slots=True)
class InquiryLog:
    """Counts and logs how questions for models ended; see `ObservesInquiries`.

    Attributes:
        questions: The counts.
    """

    questions: Questions

    def on_inquiry(self, error: RelayError | None) -> None:
        """Count a question; log when Arthur begins, or ceases, to answer."""
        failure = ""
        match error:
            case None:
                outcome = QuestionOutcome.ANSWERED
            case CredentialsError():
                outcome = QuestionOutcome.REFUSED
                failure = "Arthur refused the daemon's credentials"
            case _:
                outcome, failure = QuestionOutcome.UNAVAILABLE, str(error)
        if not self.questions.note(outcome, failure):
            return
        if failure:
            logger.warning("clients ask for models in vain: %s", failure)
        else:
            logger.info("Arthur answers questions for models again")


def _refusal(answer: ModelAnswer) -> str:
    return NO_MODEL if answer.document is None else ""


def _allows(principal: Principal, document: dict[str, Any]) -> bool:
    return principal.allows(str(document.get("id", "")))
