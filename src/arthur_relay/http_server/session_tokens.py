"""The tokens that a login returns: JSON web tokens (RFC 7519), signed with HMAC-SHA256."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHM = "HS256"


def sign_token(claims: Mapping[str, Any], key: bytes) -> str:
    """Return a token with these claims.

    Args:
        claims: Its content. `sub` is a string, `exp` seconds since the epoch.
        key: The key that signs it: 32 bytes or more (RFC 7518, 3.2).
    """
    return jwt.encode(dict(claims), key, ALGORITHM)


def read_token(token: str, key: bytes, *, now: float) -> dict[str, Any] | None:
    """Return the claims of a token, or None when it has expired or was not signed with this key.

    Never raises, whatever the client has sent.

    Args:
        token: The token, as the client sent it.
        key: The key that signed it.
        now: Seconds since the epoch.
    """
    # The caller's clock decides, not the library's.
    options: Any = {"verify_exp": False, "verify_iat": False, "require": ["exp"]}
    try:
        claims: dict[str, Any] = jwt.decode(token, key, [ALGORITHM], options=options)
    except (jwt.PyJWTError, UnicodeEncodeError, RecursionError):
        # The header is parsed before the signature is checked, and PyJWT raises more than its own
        # errors: for half a character, and up to 2.12 for deep nesting.
        return None
    return claims if claims["exp"] > now else None
