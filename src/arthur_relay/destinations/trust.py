"""The certificates that are trusted, and our own; read again when their files change."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import httpx

from arthur_relay.errors import ConfigurationError, SettingsError
from arthur_relay.settings import RelaySettings

_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class _EncryptedKeyError(Exception):
    """The key is encrypted, and there is no password for it."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The files of our certificate, for a proxy before Arthur that asks for one.

    Attributes:
        certificate: A PEM file with the certificate and its chain.
        key: A PEM file with its key, or None when the key is in the same file.
    """

    certificate: Path
    key: Path | None = None

    @classmethod
    def of(cls, settings: RelaySettings) -> Self | None:
        """Return the certificate that the settings name, or None.

        Raises:
            SettingsError: They name a key without a certificate.
        """
        if settings.client_cert_file is not None:
            return cls(settings.client_cert_file, settings.client_key_file)
        if settings.client_key_file is not None:
            raise SettingsError(
                "client_key_file (or ARTHUR_RELAY_CLIENT_KEY_FILE) is of no use alone: set"
                " client_cert_file (or ARTHUR_RELAY_CLIENT_CERT_FILE) to the certificate's file."
            )
        return None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, each once."""
        return (self.certificate,) if self.key is None else (self.certificate, self.key)

    def load(self, context: ssl.SSLContext) -> None:
        """Load it into a context, for its connections.

        Raises:
            SettingsError: A file can't be read, or the key does not match or is encrypted.
        """
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except _EncryptedKeyError:
            reason = "its key is encrypted, and nobody is there to give the password: decrypt it"
        except ssl.SSLError as error:
            reason = _REASONS.get(error.reason or "", "it is no PEM file with a certificate")
            if self.key is None and error.reason != "KEY_VALUES_MISMATCH":
                reason += " and its key"
        except OSError as error:
            reason = error.strerror or type(error).__name__
        else:
            return
        with_key = f" with the key {self.key}" if self.key is not None else ""
        raise SettingsError(
            f"The client certificate {self.certificate}{with_key} can't be loaded: {reason}"
            " (ARTHUR_RELAY_CLIENT_CERT_FILE and ARTHUR_RELAY_CLIENT_KEY_FILE)."
        )


_REASONS = {"KEY_VALUES_MISMATCH": "the key is not that of the certificate"}


def _no_password() -> NoReturn:
    raise _EncryptedKeyError


class Trust:
    """The authorities that one client trusts, and its own certificate. One loop.

    OpenSSL itself looks up the authorities of a directory, at each handshake.

    Args:
        verify: Whether certificates are checked.
        ours: Our certificate for servers that ask for one, or None.
    """

    def __init__(self, *, verify: bool, ours: ClientCertificate | None = None) -> None:
        self._verify = verify
        self._ours = ours
        self._context: ssl.SSLContext | None = None
        self._seen: Any = None

    def context(self) -> ssl.SSLContext:
        """Return the context for new connections; the same one until a file changes.

        Raises:
            ConfigurationError: The files can't be loaded, and were not loaded before.
        """
        seen = self._state()
        if self._context is not None and seen == self._seen:
            return self._context
        try:
            self._context = self._load()
        except ConfigurationError:
            if self._context is None:
                raise
            # A file, or one of the two, may just be being written: try again next time.
        else:
            self._seen = seen
        return self._context

    def _load(self) -> ssl.SSLContext:
        try:
            context = httpx.create_ssl_context(verify=self._verify, trust_env=True)
        except (OSError, ValueError) as error:  # an ssl.SSLError is an OSError
            named = _variables_set()
            advice = f": check {named}" if named else ""
            raise ConfigurationError(
                "The certificates of the authorities that are trusted can't be loaded"
                f" ({type(error).__name__}: {error}){advice}."
            ) from error
        if self._ours is not None:
            self._ours.load(context)
        return context

    @property
    def has_changed(self) -> bool:
        """Whether the files have changed since the context was loaded."""
        return self._context is not None and self._state() != self._seen

    def _state(self) -> Any:
        named = os.environ.get("SSL_CERT_FILE")
        return _state_of([*([named] if named else []), *(self._ours.paths if self._ours else ())])


def _state_of(paths: Iterable[str | Path]) -> Any:
    """Return a value that changes when a file is written, or a link points elsewhere."""
    state: list[Any] = []
    for path in paths:
        try:
            found = os.stat(path)  # noqa: PTH116 - most are no Path
        except OSError:
            state.append((path, None))
        else:
            state.append((path, found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size))
    return state


def _variables_set() -> str:
    """Return the names of the variables that are set, as they are spelled there, or ""."""
    found = [name for name in sorted(os.environ) if name.upper() in _VARIABLES and os.environ[name]]
    return " and ".join(found)
