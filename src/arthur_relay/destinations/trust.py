"""Whose certificates are trusted: read from the environment's files, and again when they change."""

from __future__ import annotations

import os
import ssl
from typing import Any

import httpx

from arthur_relay.errors import ConfigurationError

_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class Trust:
    """The authorities that one client trusts. One loop.

    Those of a directory are looked up by OpenSSL itself, at each handshake.

    Args:
        verify: Whether certificates are checked.
    """

    def __init__(self, *, verify: bool) -> None:
        self._verify = verify
        self._context: ssl.SSLContext | None = None
        self._seen: Any = None

    def context(self) -> ssl.SSLContext:
        """Return the context for new connections; the same one until a file changes.

        Raises:
            ConfigurationError: The files can't be loaded, and never could.
        """
        seen = _state()
        if self._context is not None and seen == self._seen:
            return self._context
        try:
            self._context = httpx.create_ssl_context(verify=self._verify, trust_env=True)
        except (OSError, ValueError) as error:  # an ssl.SSLError is an OSError
            if self._context is not None:
                return self._context  # the file is being written at this moment: next time
            named = _variables_set()
            advice = f": check {named}" if named else ""
            raise ConfigurationError(
                "The certificates of the authorities that are trusted can't be loaded"
                f" ({type(error).__name__}: {error}){advice}."
            ) from error
        self._seen = seen
        return self._context

    @property
    def has_changed(self) -> bool:
        """Whether the next context is another one."""
        return self._context is not None and _state() != self._seen


def _state() -> Any:
    """Return what changes when the file is written anew, or a link to it is set elsewhere."""
    path = os.environ.get("SSL_CERT_FILE")
    if not path:
        return None
    try:
        found = os.stat(path)  # noqa: PTH116 - no Path is needed
    except OSError:
        return path, None
    return path, found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size


def _variables_set() -> str:
    """Return those of the variables that are set, as they are written there, or ""."""
    found = [name for name in sorted(os.environ) if name.upper() in _VARIABLES and os.environ[name]]
    return " and ".join(found)
