"""Authentication: API keys, login and its tokens (JWT, HS256), organisations."""

from __future__ import annotations

import hmac
import math
import secrets
import time
from typing import TYPE_CHECKING, Any

from arthur_relay.http_server.session_tokens import read_token, sign_token

if TYPE_CHECKING:
    from collections.abc import Sequence


class Auth:
    """Who may call the API. Every method may be called from any thread and never raises.

    Args:
        login: The only user's name.
        password: Their password.
        api_key: The only API key.
        secret: What signs the tokens; the same secret keeps old tokens valid.
        token_seconds: How long a token is valid. Its end is rounded up to a full second, as
            servers write it.
        organization_ids: The organisations that the user belongs to; the first is their own.
        outside: Whether the user comes from an outside identity provider, to whom
            `GET /users/me` answers 403.
    """

    def __init__(  # noqa: PLR0913  # keyword-only, all of them facts about the one user
        self,
        *,
        login: str,
        password: str,
        api_key: str,
        secret: bytes,
        token_seconds: float,
        organization_ids: Sequence[str],
        outside: bool,
    ) -> None:
        self.outside = outside
        self.organization_ids = list(organization_ids)
        self._login = login
        self._password = password
        self._api_key = api_key
        self._secret = secret
        self._token_seconds = token_seconds
        self._generation = 0

    def log_in(self, login: object, password: object) -> str | None:
        """A new token, or None when login or password are wrong."""
        if not (_same(login, self._login) and _same(password, self._password)):
            return None
        now = time.time()
        claims = {
            "sub": self._login,
            "iat": int(now),
            "exp": math.ceil(now + self._token_seconds),
            "generation": self._generation,
            "jti": secrets.token_hex(8),
        }
        return sign_token(claims, self._secret)

    def expire_tokens(self) -> None:
        """Make every token issued so far invalid; API keys stay valid."""
        self._generation += 1

    def allows(self, credential: str | None) -> bool:
        """Whether a credential (API key or token) is valid now."""
        if not credential:
            return False
        return _same(credential, self._api_key) or self._is_valid_token(credential)

    def allows_organization(self, organization_id: str | None) -> bool:
        """Whether the user belongs to an organisation; None is no claim, and fine."""
        return organization_id is None or organization_id in self.organization_ids

    def user(self) -> dict[str, Any]:
        """The user, as `POST /login` and `GET /users/me` answer it."""
        return {
            "id": "00000000-0000-4000-8000-000000000001",
            "login": self._login,
            "email": f"{self._login}@sandbox.invalid",
            "first_name": "Sandbox",
            "last_name": "User",
            "organization_id": self.organization_ids[0] if self.organization_ids else None,
            "roles": ["Administrator"],
        }

    def auth_info(self) -> dict[str, Any]:
        """What `GET /users/me/auth_info` answers."""
        return {
            "issuer": "sandbox",
            "username": self._login,
            "first_name": "Sandbox",
            "last_name": "User",
            "email": f"{self._login}@sandbox.invalid",
            "roles": ["Administrator"],
            "organization_ids": self.organization_ids,
        }

    def _is_valid_token(self, token: str) -> bool:
        claims = read_token(token, self._secret, now=time.time())
        return claims is not None and claims["generation"] == self._generation


def _same(given: object, expected: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(
        given.encode(errors="replace"), expected.encode()
    )
