"""Arthur's access token: an API key, or the JWT of a login, refreshed before it expires."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Protocol

import anyio
import orjson

from arthur_relay.system.clocks import Clock

REFRESH_SECONDS = 300.0
"""A token is refreshed this long before it expires, as the SDK does it (arthurai.client.auth)."""

REFRESH_FRACTION = 0.5
"""A token of less than twice that life is refreshed at half of it; the SDK's rule never ends."""


@dataclass(frozen=True, slots=True)
class Token:
    """What goes into the header `Authorization`.

    Attributes:
        value: The API key or the JWT.
        refresh_at: When to get another one, in seconds since the epoch, or None for never.
    """

    value: str
    refresh_at: float | None = None

    def __repr__(self) -> str:
        return "Token(...)"


class LogsIn(Protocol):
    """Has a login and a password."""

    async def log_in(self) -> str:
        """Return a new JWT; raises the same errors as `Destination.fetch_schema`."""
        ...


class TokenSource:
    """Holds the token in force; concurrent requests make one login together.

    Args:
        login: Logs in; None when there is an API key instead.
        api_key: The API key, or None when there is a login instead.
        clock: The wall clock, to compare with a JWT's `exp`.
    """

    def __init__(
        self,
        *,
        login: LogsIn | None,
        api_key: str | None,
        clock: Clock,
    ) -> None:
        self._login = login
        self._clock = clock
        self._token = Token(api_key) if api_key is not None else None
        self._lock: anyio.Lock | None = None

    def enter(self) -> None:
        """Get ready for a loop; the token stays."""
        self._lock = anyio.Lock()

    @property
    def can_log_in(self) -> bool:
        """Whether a refused token can be replaced by another one."""
        return self._login is not None

    @property
    def held(self) -> str:
        """The token in force, or "" when there is none."""
        return self._token.value if self._token is not None else ""

    async def token(self) -> Token:
        """Return a token that should be valid, after a login if one is needed.

        Raises:
            Whatever `log_in` does.
        """
        if self._is_good():
            assert self._token is not None
            return self._token
        assert self._lock is not None
        async with self._lock:
            if not self._is_good():
                assert self._login is not None
                value = await self._login.log_in()
                self._token = Token(
                    value, refresh_time(value, now=self._clock.utc_now().timestamp())
                )
            assert self._token is not None
            return self._token

    def refused(self, token: Token) -> None:
        """Forget a token that Arthur refused, unless another one is in force already."""
        if self._login is not None and self._token is token:
            self._token = None

    def _is_good(self) -> bool:
        token = self._token
        if token is None:
            return False
        return token.refresh_at is None or self._clock.utc_now().timestamp() < token.refresh_at


def refresh_time(jwt: str, *, now: float) -> float | None:
    """Return when to replace a JWT, in seconds since the epoch, or None when it does not say.

    The signature is not checked: the token is ours to send, not to believe.
    """
    parts = jwt.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expires = float(payload["exp"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None
    life = max(0.0, expires - now)
    return now + max(life - REFRESH_SECONDS, life * REFRESH_FRACTION)
