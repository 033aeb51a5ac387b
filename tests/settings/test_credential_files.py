"""Secrets in files: variables that name them, systemd's credentials, and what is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arthur_relay.credentials import (
    check_url,
    credentials_from_environment,
    resolve_credentials,
)
from arthur_relay.errors import ConfigurationError, CredentialsError

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.credentials import Credentials


def read(**environment: str) -> Credentials:
    return credentials_from_environment(allow_insecure=False, environment=environment)


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text("the-key\n")
    return str(path)


def test_a_key_in_a_file(key_file: str) -> None:
    found = read(ARTHUR_API_KEY_FILE=key_file, ARTHUR_LOGIN="me")
    assert (found.api_key, found.login) == ("the-key", None), "a key wins over a login"
    assert "the-key" not in repr(found)
    given = resolve_credentials(
        url=None,
        login=None,
        password=None,
        allow_insecure=False,
        environment={"ARTHUR_API_KEY_FILE": key_file},
    )
    assert given.api_key == "the-key"


def test_a_password_in_a_file_keeps_its_blanks(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(" pass word \r\n")
    found = read(ARTHUR_LOGIN="me", ARTHUR_PASSWORD_FILE=str(path))
    assert (found.login, found.password) == ("me", " pass word ")


def test_systemd_credentials(tmp_path: Path) -> None:
    (tmp_path / "arthur-api-key").write_text("from-systemd")
    assert read(CREDENTIALS_DIRECTORY=str(tmp_path)).api_key == "from-systemd"
    found = read(CREDENTIALS_DIRECTORY=str(tmp_path), ARTHUR_API_KEY="variable")
    assert found.api_key == "variable"
    (tmp_path / "arthur-api-key").unlink()
    (tmp_path / "arthur-password").write_text("secret")
    found = read(CREDENTIALS_DIRECTORY=str(tmp_path), ARTHUR_LOGIN="me")
    assert (found.login, found.password) == ("me", "secret")


def test_files_that_are_no_use(key_file: str, tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="Both ARTHUR_API_KEY and ARTHUR_API_KEY_FILE"):
        read(ARTHUR_API_KEY="k", ARTHUR_API_KEY_FILE=key_file)
    with pytest.raises(CredentialsError, match="can't be read: No such file"):
        read(ARTHUR_API_KEY_FILE=str(tmp_path / "nowhere"))
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with pytest.raises(CredentialsError, match="is empty"):
        read(ARTHUR_API_KEY_FILE=str(empty))
    empty.write_bytes(b"\xff")
    with pytest.raises(CredentialsError, match="it is not text"):
        read(ARTHUR_API_KEY_FILE=str(empty))


def test_a_socket_needs_no_key() -> None:
    assert read(ARTHUR_ENDPOINT_URL="unix:///run/x.sock").api_key
    assert read(ARTHUR_ENDPOINT_URL="unix:///run/x.sock", ARTHUR_API_KEY="k").api_key == "k"


@pytest.mark.parametrize(
    "url", ["unix://run/x.sock", "unix://", "unix:///", "unix:///a?b", "unix:/x"]
)
def test_addresses_that_name_no_socket(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Arthur's URL"):
        check_url(url, allow_insecure=False)
