"""Decides who may send: tokens from a file, sessions made from them, and peers of the socket."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from arthur_relay.errors import SettingsError
from arthur_relay.http_server.session_tokens import read_token, sign_token
from arthur_relay.system.clocks import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from pathlib import Path

SESSION_SECONDS = 3600.0
"""How long a login lasts. Clients log in again five minutes before, as the SDK does."""

MIN_TOKEN_CHARACTERS = 16
"""Shorter tokens could be guessed."""


class Endpoint(Enum):
    """The kind of a listener."""

    SOCKET = "socket"
    TCP = "tcp"
    VIEWS = "views"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    Attributes:
        endpoint: The listener that it connected to.
        uid: The user id of the process that connected, on a Unix socket.
    """

    endpoint: Endpoint
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """What a client may do.

    Attributes:
        name: The token's name, for logs.
        models: The models that it may use; None for all.
    """

    name: str
    models: frozenset[str] | None = None

    def allows(self, model_id: str) -> bool:
        """Return whether a model may be used."""
        return self.models is None or model_id in self.models

    @property
    def is_restricted(self) -> bool:
        """Whether there are models it may not use."""
        return self.models is not None


@dataclass(frozen=True, slots=True)
class Token:
    """A line of the tokens file. The secret is left out of `repr()`."""

    principal: Principal
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a client is refused.

    Attributes:
        status: 401 or 403.
        sentence: The reason, for the client.
    """

    status: int
    sentence: str


class Authenticator:
    """Decides who may send. Immutable: a reload creates another one. Never raises. Any thread.

    Args:
        tokens: The tokens for TCP; None when anyone who can connect may send.
        allowed_uids: The users who may use the socket; None for all whom its permissions allow.
        clock: Gives the time at which sessions expire.
    """

    def __init__(
        self,
        tokens: tuple[Token, ...] | None,
        *,
        allowed_uids: frozenset[int] | None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._tokens = tokens
        self._allowed_uids = allowed_uids
        self._clock = clock
        self._guest_secret = secrets.token_bytes(32)

    @property
    def has_tokens(self) -> bool:
        """Whether TCP requires a token."""
        return self._tokens is not None

    def admit(self, peer: Peer, credential: str | None) -> Principal | Denied:
        """Return what a client may do, by its credential: a token, a session, or anything."""
        if peer.endpoint is Endpoint.SOCKET:
            if refused := self.refuse_view(peer):
                return refused
            return Principal("socket" if peer.uid is None else f"uid {peer.uid}")
        if self._tokens is None:
            return Principal("anyone")
        if credential is None:
            return Denied(401, "a token is required: set ARTHUR_API_KEY to it")
        given = credential.removeprefix("Bearer ").strip()
        found = self._by_secret(given) or self._by_session(given)
        return found or Denied(401, "the token is unknown, or the login has expired")

    def refuse_view(self, peer: Peer) -> Denied | None:
        """Return why a client gets no view, or None when it gets one. Views require no token."""
        if peer.endpoint is not Endpoint.SOCKET or self._allowed_uids is None:
            return None
        if peer.uid in self._allowed_uids:
            return None
        return Denied(403, "your user may not use this socket")

    def log_in(self, peer: Peer, name: object, secret: object) -> str | None:
        """Return a session for a token's name and the token, or None when they are wrong.

        On the socket, and where there are no tokens, any name and any token will do.
        """
        if peer.endpoint is Endpoint.SOCKET or self._tokens is None:
            return self._session("guest", self._guest_secret)
        if not (isinstance(name, str) and isinstance(secret, str)):
            return None
        found = self._by_secret(secret)
        if found is None or not _same(found.name, name):
            return None
        return self._session(name, _key_of(secret))

    def _by_secret(self, given: str) -> Principal | None:
        found = None
        for token in self._tokens or ():  # all of them, so that the time reveals nothing
            if _same(given, token.secret):
                found = token.principal
        return found

    def _session(self, name: str, key: bytes) -> str:
        """Return a JSON web token. Clients read its `exp`, to log in again in time."""
        now = int(self._clock.utc_now().timestamp())
        return sign_token({"sub": name, "iat": now, "exp": now + int(SESSION_SECONDS)}, key)

    def _by_session(self, given: str) -> Principal | None:
        """Return the principal of a session, which is signed with a token and revoked with it."""
        now = self._clock.utc_now().timestamp()
        found = None
        for token in self._tokens or ():
            if read_token(given, _key_of(token.secret), now=now) is not None:
                found = token.principal
        return found


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read the tokens file: `name:token` or `name:token:model_id,model_id` a line, `#` comments.

    Raises:
        SettingsError: It can't be read, has no token, or a line has another form; the message
            quotes no token.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"The tokens file {path} can't be read: {reason}.") from None
    tokens = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            tokens.append(_token(line.strip(), where=f"{path}, line {number}"))
    if not tokens:
        raise SettingsError(f"The tokens file {path} has no token: write `name:token` a line.")
    if len({token.secret for token in tokens}) < len(tokens):
        raise SettingsError(f"The tokens file {path} has a token twice: give each its own.")
    return tuple(tokens)


def _token(line: str, *, where: str) -> Token:
    name, _, rest = line.partition(":")
    secret, colon, models = rest.partition(":")
    name, secret = name.strip(), secret.strip()
    if not name or not secret:
        raise SettingsError(f"{where}: write `name:token` or `name:token:model_id,model_id`.")
    if len(secret) < MIN_TOKEN_CHARACTERS or not (secret.isascii() and secret.isprintable()):
        raise SettingsError(
            f"{where}: the token of {name} has to have {MIN_TOKEN_CHARACTERS} characters or more,"
            " printable ASCII; `openssl rand -hex 24` makes one."
        )
    only = frozenset(each.strip() for each in models.split(",") if each.strip())
    if colon and not only:
        raise SettingsError(f"{where}: no model is named after the second colon.")
    return Token(Principal(name, only if colon else None), secret)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode(errors="replace"))


def _key_of(secret: str) -> bytes:
    return hashlib.sha256(b"arthur-relay session\0" + secret.encode()).digest()
