"""Secrets that are in files: what a variable `X_FILE` names, and what systemd hands over."""

import os
from collections.abc import Mapping
from pathlib import Path

from arthur_relay.errors import CredentialsError

_SECRETS = {"ARTHUR_API_KEY": "arthur-api-key", "ARTHUR_PASSWORD": "arthur-password"}
"""The variables that can be in a file, and the names of systemd's credentials for them."""

DIRECTORY = "CREDENTIALS_DIRECTORY"
"""Where systemd puts a unit's credentials: see `LoadCredential=` in systemd.exec(5)."""


def with_files(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return an environment in which the secrets are that are in files.

    A variable wins over a credential of systemd's; together with its own `_FILE` it is an error,
    because nobody can say which of the two was meant.

    Raises:
        CredentialsError: A file can't be read, is empty, or both are set. No content is quoted.
    """
    found = dict(environment)
    for name, credential in _SECRETS.items():
        given = found.get(name, "").strip() != ""
        named = found.pop(f"{name}_FILE", "").strip()
        if given and named:
            raise CredentialsError(f"Both {name} and {name}_FILE are set: set one of them.")
        if given:
            continue
        directory = found.get(DIRECTORY)
        path = Path(named) if named else Path(directory, credential) if directory else None
        if path is not None and (named or path.exists()):
            found[name] = _read(path, f"{name}_FILE" if named else f"the credential {credential}")
    return found


def _read(path: Path, what: str) -> str:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise CredentialsError(
            f"The file {os.fspath(path)} ({what}) can't be read: {reason}."
        ) from None
    secret = content.strip("\r\n")  # editors end files with a newline
    if not secret.strip():
        raise CredentialsError(f"The file {os.fspath(path)} ({what}) is empty.")
    return secret
