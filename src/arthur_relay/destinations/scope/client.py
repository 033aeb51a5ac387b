"""Arthur Scope, REST API v3: one attempt to post a batch, and the questions about a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import orjson

from arthur_relay.credentials import Credentials
from arthur_relay.destinations.answers import (
    RETRY,
    described_success,
    may_pass,
    refused,
    whole,
)
from arthur_relay.destinations.http import (
    Answer,
    HttpClient,
    HttpOptions,
    TransportError,
    retry_after_seconds,
)
from arthur_relay.destinations.scope.auth import Token, TokenSource
from arthur_relay.destinations.scope.encoder import ScopeRowFormat
from arthur_relay.destinations.scope.interpret import described, interpret, is_arthurs
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.encoding.model import is_path_segment
from arthur_relay.errors import (
    ConfigurationError,
    CredentialsError,
    ModelError,
    RelayError,
    UnreachableError,
)
from arthur_relay.row import Attempt, Batch, Failure, Outcome, RowKind, RowOwner, Verdict
from arthur_relay.sentences import answered, unreachable
from arthur_relay.settings import RelaySettings
from arthur_relay.system.clocks import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from types import TracebackType

PREFIX = "/api/v3"
_METHODS = {RowKind.INFERENCE: "POST", RowKind.GROUND_TRUTH: "PATCH"}


class ScopeDestination:
    """Posts rows to Arthur Scope.

    Args:
        credentials: Where Arthur is and who we are.
        options: How it is connected to.
        clock: Gives the time with which a date in a `Retry-After`, and a login's end, is compared.
    """

    row_format = ScopeRowFormat()

    def __init__(
        self,
        credentials: Credentials,
        *,
        options: HttpOptions,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._credentials = credentials
        self._principal = credentials.owner.principal
        self._retry_after_max = options.retry_after_max_seconds
        self._clock = clock
        self._http = HttpClient(
            credentials.url, path=PREFIX, verify_ssl=credentials.verify_ssl, options=options
        )
        self._tokens = self._token_source()
        self._organization = credentials.organization_id
        self._is_refused = False

    def _token_source(self) -> TokenSource:
        api_key = self._credentials.api_key
        return TokenSource(
            login=self if api_key is None else None,
            api_key=api_key,
            clock=self._clock,
        )

    def renew(self, credentials: Credentials) -> None:
        """Use other credentials from the next request on, with new connections.

        Loop's thread only.
        """
        credentials = replace(credentials, url=self._credentials.url)
        if credentials != self._credentials:
            self._take(credentials)
            self._organization = credentials.organization_id
        self._http.renew()

    @property
    def _secrets(self) -> list[str]:
        """Secrets that an answer may echo, and that must not be logged."""
        who = self._credentials
        return [each for each in (who.api_key, who.password, self._tokens.held) if each]

    def _take(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._tokens = self._token_source()
        self._tokens.enter()

    @property
    def name(self) -> str:
        """Arthur's address."""
        return self._credentials.url

    @property
    def owner(self) -> RowOwner:
        """The owner of the rows; the organisation is known once Arthur was asked for it.

        A key that is renewed while the process runs does not change the owner.
        """
        return replace(
            self._credentials.owner,
            principal=self._principal,
            organization=self._organization,
            is_refused=self._is_refused and self._organization is None,
        )

    async def learn_owner(self) -> None:
        """Ask Arthur for the organisation; raises what `check_access` does."""
        await self.check_access()

    @classmethod
    def of(cls, credentials: Credentials, settings: RelaySettings) -> Self:
        """Return the destination that the settings describe.

        Raises:
            SettingsError: They name the key of a client certificate, and not the certificate.
        """
        return cls(credentials, options=HttpOptions.of(settings))

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
        return self.schema_of(await self.fetch_model(model_id))

    def schema_of(self, document: Any) -> ModelSchema:
        """Read a description of a model. See `ModelSchema.from_json`."""
        return ModelSchema.from_json(document)

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
            raise UnreachableError(unreachable(error, self.name)) from error
        if answer.status == 200:
            return self._document(answer, "id")
        if may_pass(answer.status) or not is_arthurs(answer):
            raise self._unusable("", answer)
        if answer.status in (400, 404):
            raise _no_model(model_id)
        if answer.status in (401, 403):
            raise CredentialsError(
                f"Arthur refused access to model {model_id} ({answer.status}): {self._remedy()}"
            )
        raise ConfigurationError(
            f"Arthur refused to tell of model {model_id} ({answer.status}): make sure that the id"
            f" is right, and that {self._credentials.url} is the address of Arthur."
        )

    async def check_access(self) -> None:
        """Ask Arthur for our user, to see that it is up and accepts our credentials.

        Raises:
            CredentialsError: It does not.
            UnreachableError: It could not be asked.
        """
        try:
            answer = await self._authorised("GET", "/users/me")
        except TransportError as error:
            raise UnreachableError(unreachable(error, self.name)) from error
        if answer.status == 200:
            self._document(answer)
            return
        if answer.status == 403 and is_arthurs(answer):
            return  # that is said to a user of an outside identity provider
        if answer.status == 401 and is_arthurs(answer):
            raise CredentialsError(f"Arthur refused access (401): {self._remedy()}")
        raise self._unusable("/users/me", answer)

    async def deliver(self, batch: Batch) -> Attempt:
        """Send a batch once. See `Destination.deliver`."""
        if not is_path_segment(batch.model_id):  # the path would mean something else
            return refused(batch, "no such model")
        path = f"/models/{quote(batch.model_id, safe='')}/inferences"
        try:
            answer = await self._authorised(_METHODS[batch.kind], path, batch)
        except TransportError as error:
            arrived = error.may_have_arrived
            return whole(
                batch, RETRY, Failure.UNAVAILABLE, unreachable(error), may_have_arrived=arrived
            )
        except RelayError as error:
            return self._failed(batch, error)
        if answer.status == 404 and is_arthurs(answer):
            return await self._without_model(batch)
        return interpret(
            batch,
            answer,
            secrets=self._secrets,
            remedy=self._remedy(),
            retry_after_seconds=self._retry_after(answer),
        )

    def _failed(self, batch: Batch, error: RelayError) -> Attempt:
        """Return the attempt for a batch after another request, which it needs, has failed."""
        match error:
            case CredentialsError():
                return whole(batch, RETRY, Failure.UNAUTHORISED, str(error))
            case UnreachableError(throttled=True):
                wait = error.retry_after_seconds
                return whole(batch, RETRY, Failure.THROTTLED, str(error), wait)
            case UnreachableError():
                wait = error.retry_after_seconds
                return whole(batch, RETRY, Failure.UNAVAILABLE, str(error), wait)
            case _:
                return whole(batch, RETRY, Failure.UNAVAILABLE, str(error))

    async def _without_model(self, batch: Batch) -> Attempt:
        """Ask for the model of a batch that got a 404, which may have another reason."""
        try:
            await self.fetch_model(batch.model_id)
        except ModelError:
            return refused(batch, "http 404", 404)
        except RelayError as error:
            return self._failed(batch, error)
        reason = answered("404 for rows of a model that it has")
        return whole(batch, Outcome(Verdict.RETRY, "http 404", 404), Failure.UNAVAILABLE, reason)

    async def _authorised(self, method: str, path: str, content: Batch | None = None) -> Answer:
        """Make a request with a token; a refused token is replaced once, if there is another.

        Raises:
            TransportError: No answer came.
            CredentialsError: The login was refused, or the organisation is not clear.
            UnreachableError: The login got no answer that can be used.
        """
        token = await self._token()
        answer = await self._send(method, path, token.value, content)
        if answer.status in (402, 403) and is_arthurs(answer):
            is_other = self._is_renewed()
        else:
            is_other = answer.status == 401 and self._may_be_another(token)
        if is_other:
            token = await self._token()
            answer = await self._send(method, path, token.value, content)
        if answer.status == 401 and is_arthurs(answer) and not self._tokens.can_log_in:
            self._is_refused = True
        return answer

    async def _token(self) -> Token:
        """Return a token; if the login is refused, try again with a changed password file."""
        tokens = self._tokens
        try:
            return await tokens.token()
        except CredentialsError:
            self._read_again()
            if self._tokens is tokens:
                raise
        return await self._tokens.token()

    def _may_be_another(self, refused: Token) -> bool:
        """Forget a token that was refused, and return whether there may be another one."""
        if self._tokens.can_log_in:
            self._tokens.refused(refused)
            return True
        if self._credentials.api_key == refused.value:
            self._read_again()
        return self._credentials.api_key != refused.value

    def _is_renewed(self) -> bool:
        """Read the files of key and password again, and return whether either has changed."""
        before = self._credentials
        self._read_again()
        return self._credentials is not before

    def _read_again(self) -> None:
        """Use the key or the password that its file holds now, if it has changed."""
        found = self._credentials.renewed()
        if found != self._credentials:
            self._take(found)

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
                found = self._document(answer)
                self._organization = str(found.get("organization_id") or "")
            elif answer.status == 403 and is_arthurs(answer):
                # a user of an outside identity provider
                self._organization = await self._outside_organization(token)
            elif answer.status != 401:
                raise self._unusable("/users/me", answer)
        # If the token is refused, so is the request itself, and makes us log in again.
        return self._organization or ""

    async def _outside_organization(self, token: str) -> str | None:
        path = "/users/me/auth_info"
        answer = await self._http.request("GET", path, headers={"Authorization": token})
        if answer.status == 401:
            return None
        if answer.status != 200:
            raise self._unusable(path, answer)
        ids = self._document(answer).get("organization_ids") or []
        if len(ids) > 1:
            known = ", ".join(str(found) for found in ids)
            raise CredentialsError(
                f"These credentials give access to several organisations ({known}):"
                " set ARTHUR_ORGANIZATION_ID to the one to use."
            )
        return str(ids[0]) if ids else ""

    async def log_in(self) -> str:
        """Log in and return the JWT.

        Raises:
            TransportError: No answer came.
            CredentialsError: Arthur refused the login.
            UnreachableError: Arthur's answer can't be used.
        """
        who = self._credentials
        body = orjson.dumps({"login": who.login, "password": who.password})
        answer = await self._http.request("POST", "/login", content=body)
        if answer.status in (400, 401, 403) and is_arthurs(answer):
            raise CredentialsError(
                f"Arthur refused the login {who.login}: check the login and its password"
                " (arthur_login and arthur_password, or ARTHUR_LOGIN and ARTHUR_PASSWORD)."
            )
        token = answer.cookies.get("Authorization")
        if answer.status != 200 or not token:
            subject = "Arthur gave no token: it" if answer.status == 200 else "Arthur"
            raise self._unusable("/login", answer, who=subject)
        return token

    def _document(self, answer: Answer, key: str | None = None) -> Mapping[str, Any]:
        """Read the JSON object of a 200, which has `key` if Arthur sent it.

        Raises:
            UnreachableError: It is not a JSON object with that key, so not from Arthur.
        """
        if answer.problem:
            raise UnreachableError(
                answered(f"{answer.status}, but {answer.problem}", self._place(""))
            )
        try:
            document = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            document = None
        if isinstance(document, Mapping) and (key is None or key in document):
            return document
        kind = "not JSON" if document is None else "not Arthur's"
        said = described_success(answer, self._secrets)
        raise UnreachableError(
            f"The answer is {kind} ({said}): is ARTHUR_ENDPOINT_URL the address of Arthur?"
        )

    def _unusable(self, path: str, answer: Answer, *, who: str = "Arthur") -> RelayError:
        """Return the error for an answer that can't be used; the path of a model is not named."""
        problem = answered(described(answer, self._secrets), self._place(path), who=who)
        if not may_pass(answer.status) and is_arthurs(answer):
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
            answer.headers.get("retry-after"),
            now=self._clock.utc_now(),
            maximum=self._retry_after_max,
        )

    def _place(self, path: str) -> str:
        return f"{path} at {self.name}".lstrip()

    def _remedy(self) -> str:
        if self._credentials.api_key is not None:
            return "check the API key (ARTHUR_API_KEY) and what it may do."
        return f"check what the login {self._credentials.login} may do."


def _no_model(model_id: str) -> ModelError:
    return ModelError(
        f"Arthur has no model with id {model_id}: make sure that the id is that of a model which is"
        " registered with your Arthur account."
    )
