"""Arthur Scope, REST API v3: one attempt to post a batch, and what the answer means for rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

import orjson

from arthur_relay.credentials import Credentials, is_loopback, socket_path
from arthur_relay.destinations.auth import TokenSource
from arthur_relay.destinations.http import Answer, HttpClient, TransportError
from arthur_relay.destinations.retry_after import retry_after_seconds
from arthur_relay.errors import (
    ConfigurationError,
    CredentialsError,
    ModelError,
    RelayError,
    UnreachableError,
)
from arthur_relay.row import DELIVERED, Attempt, Batch, Failure, Outcome, RowKind, Verdict
from arthur_relay.row_owner import RowOwner
from arthur_relay.schema import ModelSchema, is_path_segment
from arthur_relay.settings import RelaySettings

if TYPE_CHECKING:
    from types import TracebackType

PREFIX = "/api/v3"
_METHODS = {RowKind.INFERENCE: "POST", RowKind.GROUND_TRUTH: "PATCH"}
_RETRY = Outcome(Verdict.RETRY)


class ScopeDestination:
    """Posts rows to Arthur Scope.

    Args:
        credentials: Where Arthur is and who we are.
        connections: Connections at once, at most.
        connect_timeout_seconds: How long connecting may take.
        retry_after_max_seconds: The longest `Retry-After` that is believed.
        now: Returns the wall clock, timezone-aware.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        connections: int,
        connect_timeout_seconds: float,
        retry_after_max_seconds: float,
        now: Callable[[], datetime],
    ) -> None:
        self._credentials = credentials
        self._retry_after_max = retry_after_max_seconds
        self._now = now
        path = socket_path(credentials.url)
        self._http = HttpClient(
            (credentials.url if path is None else "http://localhost") + PREFIX,
            connections=connections,
            verify_ssl=credentials.verify_ssl,
            # A proxy can't reach what is on this machine.
            use_proxies=not is_loopback(urlsplit(credentials.url).hostname or ""),
            connect_timeout_seconds=connect_timeout_seconds,
            unix_socket=path,
        )
        self._tokens = self._token_source()
        self._organization = credentials.organization_id

    def _token_source(self) -> TokenSource:
        api_key = self._credentials.api_key
        return TokenSource(
            log_in=self._log_in if api_key is None else None,
            api_key=api_key,
            wall_clock=lambda: self._now().timestamp(),
        )

    def renew(self, credentials: Credentials) -> None:
        """Say who we are from the next request on; the address stays. Loop's thread only."""
        self._credentials = replace(credentials, url=self._credentials.url)
        self._organization = credentials.organization_id
        self._tokens = self._token_source()
        self._tokens.enter()

    @property
    def name(self) -> str:
        """Arthur's address."""
        return self._credentials.url

    @property
    def owner(self) -> RowOwner:
        """Whose the rows are: the organisation is known once Arthur was asked for it."""
        return replace(self._credentials.owner, organization=self._organization)

    async def learn_owner(self) -> None:
        """Ask Arthur for the organisation; raises what `check_access` does."""
        await self.check_access()

    @classmethod
    def of(cls, credentials: Credentials, settings: RelaySettings) -> Self:
        """Return a destination that the settings ask for."""
        return cls(
            credentials,
            connections=settings.max_in_flight + 1,
            connect_timeout_seconds=settings.request_timeout_seconds,
            retry_after_max_seconds=settings.retry_after_max_seconds,
            now=lambda: datetime.now(UTC),
        )

    async def __aenter__(self) -> Self:
        self._tokens.enter()
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(exc_type, exc_value, traceback)

    async def fetch_schema(self, model_id: str) -> ModelSchema:
        """Ask for a model. See `Destination.fetch_schema`."""
        return ModelSchema.from_json(await self.fetch_model(model_id))

    async def fetch_model(self, model_id: str, *, by_partner_id: bool = False) -> Any:
        """Ask for a model, and return Arthur's whole description.

        Args:
            model_id: Arthur's id of it, or its partner's.
            by_partner_id: Whether it is the partner's.

        Raises:
            Whatever `fetch_schema` does.
        """
        if not is_path_segment(model_id):
            raise _no_model(model_id)
        id_type = "partner_model_id" if by_partner_id else "id"
        path = f"/models/{quote(model_id, safe='')}?id_type={id_type}&expand=attributes"
        try:
            answer = await self._authorised("GET", path)
        except TransportError as error:
            raise UnreachableError(self._where(str(error))) from error
        if answer.status in (400, 404):
            raise _no_model(model_id)
        if answer.status in (401, 403):
            raise CredentialsError(
                f"Arthur refused access to model {model_id} ({answer.status}): {self._remedy()}"
            )
        if answer.status == 200:
            return _json(answer)
        if _may_pass(answer.status):
            raise self._unusable("it", answer)
        raise ConfigurationError(
            f"Arthur refused to tell of model {model_id} ({answer.status}): make sure that the id"
            f" is right, and that {self._credentials.url} is the address of Arthur."
        )

    async def check_access(self) -> None:
        """Ask Arthur who we are, to see that it is there and lets us in.

        Raises:
            CredentialsError: It does not.
            UnreachableError: It could not be asked.
        """
        try:
            answer = await self._authorised("GET", "/users/me")
        except TransportError as error:
            raise UnreachableError(self._where(str(error))) from error
        if answer.status == 401:
            raise CredentialsError(f"Arthur refused access (401): {self._remedy()}")
        if answer.status not in (200, 403):  # 403: a user of an outside identity provider
            raise self._unusable("/users/me", answer)

    async def deliver(self, batch: Batch) -> Attempt:
        """Send a batch once. See `Destination.deliver`."""
        if not is_path_segment(batch.model_id):  # it would be a request for something else
            return _refused(batch, "no such model")
        path = f"/models/{quote(batch.model_id, safe='')}/inferences"
        try:
            answer = await self._authorised(_METHODS[batch.kind], path, batch)
        except TransportError as error:
            return _whole(batch, _RETRY, Failure.UNAVAILABLE, str(error))
        except UnreachableError as error:
            failure = Failure.THROTTLED if error.throttled else Failure.UNAVAILABLE
            return _whole(batch, _RETRY, failure, str(error), error.retry_after_seconds)
        except CredentialsError as error:
            outcome = Outcome(Verdict.REJECTED, "login refused")
            return _whole(batch, outcome, Failure.REFUSED, str(error))
        return self._interpret(batch, answer)

    def _interpret(self, batch: Batch, answer: Answer) -> Attempt:
        """Say what an answer to a batch means."""
        status = answer.status
        reason = f"http {status}"
        if 200 <= status < 300:
            return interpret_results(batch, answer.body)
        if status == 413:
            outcome = Outcome(Verdict.REJECTED, reason, status)
            return _whole(batch, outcome, Failure.TOO_LARGE, reason)
        if _may_pass(status):
            again = Outcome(Verdict.RETRY, reason, status)
            failure = Failure.THROTTLED if status == 429 else Failure.UNAVAILABLE
            return _whole(batch, again, failure, reason, self._retry_after(answer))
        return _refused(batch, reason, status)

    async def _authorised(self, method: str, path: str, content: Batch | None = None) -> Answer:
        """Make a request with a token; a refused one is replaced by a login, once.

        Raises:
            TransportError: No answer came.
            CredentialsError: The login was refused, or the organisation is not clear.
            UnreachableError: The login got no answer that can be used.
        """
        token = await self._tokens.token()
        answer = await self._send(method, path, token.value, content)
        if answer.status == 401 and self._tokens.can_log_in:
            self._tokens.refused(token)
            token = await self._tokens.token()
            answer = await self._send(method, path, token.value, content)
        return answer

    async def _send(self, method: str, path: str, token: str, content: Batch | None) -> Answer:
        headers = {"Authorization": token}
        organization = await self._organization_id(token)
        if organization:
            headers["Arthur-Organization-ID"] = organization
        return await self._http.request(method, path, headers=headers, content=content)

    async def _organization_id(self, token: str) -> str:
        """Return the organisation for the header, asked for once; empty when there is none.

        Raises:
            TransportError: No answer came.
            CredentialsError: Arthur refused to say, or there are several organisations.
            UnreachableError: Arthur's answer can't be used.
        """
        if self._organization is None:
            answer = await self._http.request("GET", "/users/me", headers={"Authorization": token})
            if answer.status == 200:
                found = _json(answer)
                self._organization = str(_field(found, "organization_id") or "")
            elif answer.status == 403:  # a user of an outside identity provider
                self._organization = await self._outside_organization(token)
            elif answer.status != 401:
                raise self._unusable("/users/me", answer)
        # With a token that is refused, the request itself will say so, and make us log in again.
        return self._organization or ""

    async def _outside_organization(self, token: str) -> str | None:
        path = "/users/me/auth_info"
        answer = await self._http.request("GET", path, headers={"Authorization": token})
        if answer.status == 401:
            return None
        if answer.status != 200:
            raise self._unusable(path, answer)
        ids = _field(_json(answer), "organization_ids") or []
        if len(ids) > 1:
            known = ", ".join(str(found) for found in ids)
            raise CredentialsError(
                f"These credentials give access to several organisations ({known}):"
                " set ARTHUR_ORGANIZATION_ID to the one to use."
            )
        return str(ids[0]) if ids else ""

    async def _log_in(self) -> str:
        """Log in and return the JWT.

        Raises:
            TransportError: No answer came.
            CredentialsError: Arthur refused the login.
            UnreachableError: Arthur's answer can't be used.
        """
        who = self._credentials
        body = orjson.dumps({"login": who.login, "password": who.password})
        answer = await self._http.request("POST", "/login", content=body)
        if answer.status in (400, 401, 403):
            raise CredentialsError(
                f"Arthur refused the login {who.login}: check the login and its password"
                " (arthur_login and arthur_password, or ARTHUR_LOGIN and ARTHUR_PASSWORD)."
            )
        token = answer.cookies.get("Authorization")
        if answer.status != 200 or not token:
            raise self._unusable("/login", answer, " without a token")
        return token

    def _unusable(self, what: str, answer: Answer, more: str = "") -> RelayError:
        """Return what to raise for an answer that does not let us in, or not say where to."""
        problem = self._where(f"{what} answered {answer.status}{more}")
        if not _may_pass(answer.status):
            return CredentialsError(
                f"{problem}: make sure that this is the address of Arthur; if it is,"
                f" {self._remedy()}"
            )
        return UnreachableError(
            problem,
            retry_after_seconds=self._retry_after(answer),
            throttled=answer.status == 429,
        )

    def _retry_after(self, answer: Answer) -> float | None:
        return retry_after_seconds(
            answer.headers.get("retry-after"), now=self._now(), maximum=self._retry_after_max
        )

    def _where(self, what: str) -> str:
        return f"Arthur at {self._credentials.url}: {what}"

    def _remedy(self) -> str:
        if self._credentials.api_key is not None:
            return "check the API key (ARTHUR_API_KEY) and what it may do."
        return f"check what the login {self._credentials.login} may do."


def _no_model(model_id: str) -> ModelError:
    return ModelError(
        f"Arthur has no model with id {model_id}: make sure that the id is that of a model which is"
        " registered with your Arthur account."
    )


def _may_pass(status: int) -> bool:
    """Say whether a status that is no success may pass by itself; which do is undocumented.

    A redirect is unexpected: following one could show prompts to a stranger.
    """
    return status in (408, 425, 429) or status >= 500 or status < 400


def interpret_results(batch: Batch, body: bytes) -> Attempt:
    """Map the results of a 207 to the batch's rows, by index: they carry no id.

    An answer of another length can't be mapped, unless its counts say that all went well.
    """
    try:
        document = orjson.loads(body)
        results = document["results"]
        statuses = [int(result["status"]) for result in results]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return _whole(batch, _RETRY, Failure.MALFORMED, "malformed answer")
    if len(statuses) != len(batch.rows):
        if _all_stored(document.get("counts"), len(batch.rows)):
            return _whole(batch, DELIVERED)
        return _whole(batch, _RETRY, Failure.MALFORMED, "answer of another length")
    of_status = {status: _row_outcome(status, batch.kind) for status in set(statuses)}
    outcomes = tuple(map(of_status.__getitem__, statuses))
    return Attempt(outcomes, reason=next((o.reason for o in outcomes if o.reason), ""))


def _row_outcome(status: int, kind: RowKind) -> Outcome:
    # Arthur's message is left out: it may quote the row, and reasons must not hold a text.
    if 200 <= status < 300:
        return DELIVERED
    if status in (408, 425, 429) or status >= 500:
        verdict = Verdict.RETRY
    elif status == 404 and kind is RowKind.GROUND_TRUTH:
        verdict = Verdict.NOT_YET  # another process may have the inference, and Arthur soon
    else:
        verdict = Verdict.REJECTED
    return Outcome(verdict, f"row {status}", status)


def _all_stored(counts: object, rows: int) -> bool:
    return isinstance(counts, Mapping) and (counts.get("success"), counts.get("failure")) == (
        rows,
        0,
    )


def _whole(
    batch: Batch,
    outcome: Outcome,
    failure: Failure | None = None,
    reason: str = "",
    retry_after: float | None = None,
) -> Attempt:
    return Attempt((outcome,) * len(batch.rows), failure, reason, retry_after)


def _refused(batch: Batch, reason: str, status: int | None = None) -> Attempt:
    return _whole(batch, Outcome(Verdict.REJECTED, reason, status), Failure.REFUSED, reason)


def _json(answer: Answer) -> Any:
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError as error:
        raise UnreachableError(
            "The answer is not JSON: is ARTHUR_ENDPOINT_URL the address of Arthur?"
        ) from error


def _field(document: Any, name: str) -> Any:
    return document.get(name) if isinstance(document, Mapping) else None
