"""Secrets in files: those that a variable `X_FILE` names, and systemd's credentials."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from arthur_relay.errors import CredentialsError

SECRETS = {
    "ARTHUR_API_KEY": "arthur-api-key",
    "ARTHUR_ENGINE_API_KEY": "arthur-engine-api-key",
    "ARTHUR_PASSWORD": "arthur-password",
}
"""The variables whose values can be in a file, with the names of systemd's credentials."""

DIRECTORY = "CREDENTIALS_DIRECTORY"
"""Where systemd puts a unit's credentials: see `LoadCredential=` in systemd.exec(5)."""


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file with one secret in it, which may be replaced at any time.

    Attributes:
        path: The file.
        what: The variable or credential that names it, for messages.
    """

    path: Path
    what: str

    def read(self) -> str:
        """Return the secret that the file holds now.

        Raises:
            CredentialsError: The file can't be read, or is empty.
        """
        try:
            content = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise CredentialsError(
                f"The file {os.fspath(self.path)} ({self.what}) can't be read: {reason}."
            ) from None
        secret = content.strip("\r\n")  # editors end files with a newline
        if not secret.strip():
            raise CredentialsError(f"The file {os.fspath(self.path)} ({self.what}) is empty.")
        return secret


def with_files(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment with the secrets from files added.

    A variable wins over systemd's credential. A variable together with its own `_FILE` is an error,
    because nobody can say which of the two was meant.

    Raises:
        CredentialsError: A file can't be read, is empty, or both are set. No content is quoted.
    """
    found = dict(environment)
    for name in SECRETS:
        file = secret_file(name, environment)
        found.pop(f"{name}_FILE", None)
        if file is not None:
            found[name] = file.read()
    return found


def secrets_in(environment: Mapping[str, str]) -> list[str]:
    """Return the secrets in the environment and in the files that it names; never raises.

    What can't be read is no secret that anything could show. Of a variable and its `_FILE`, which
    are not allowed together, both are returned.
    """
    found = []
    for name in SECRETS:
        found.append(environment.get(name, ""))
        with suppress(CredentialsError):
            file = secret_file(name, {**environment, name: ""})
            found.append("" if file is None else file.read())
    return [secret for secret in found if secret]


def secret_file(name: str, environment: Mapping[str, str]) -> SecretFile | None:
    """Return the file that holds a variable's secret, or None if no file does.

    Raises:
        CredentialsError: Both the variable and its `_FILE` are set.
    """
    credential = SECRETS[name]
    given = environment.get(name, "").strip() != ""
    named = environment.get(f"{name}_FILE", "").strip()
    if given and named:
        raise CredentialsError(f"Both {name} and {name}_FILE are set: set one of them.")
    if given:
        return None
    if named:
        return SecretFile(Path(named), f"{name}_FILE")
    directory = environment.get(DIRECTORY)
    path = Path(directory, credential) if directory else None
    if path is None or not path.exists():
        return None
    return SecretFile(path, f"the credential {credential}")
