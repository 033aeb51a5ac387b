"""Credentials for Arthur: a key or a login, from arguments or from the SDK's variables."""

import getpass
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from ipaddress import ip_address
from urllib.parse import urlsplit

from arthur_relay.errors import ConfigurationError, CredentialsError
from arthur_relay.row import RowOwner
from arthur_relay.settings.credential_files import SecretFile, secret_file, with_files
from arthur_relay.system.operating_system import check_unix_sockets

DEFAULT_URL = "https://app.arthur.ai"

ENGINE_URL = "http://localhost:3030"
"""Where Arthur Engine listens by default."""

ENGINE_KEY = "ARTHUR_ENGINE_API_KEY"
"""The variable of the Engine's key where both products are served."""

UNIX = "unix://"
"""The prefix of a Unix socket's address, that of a relay on this host: `unix:///run/x.sock`."""

_ANY_KEY = "arthur-relay"
"""The key that is sent to a Unix socket, which needs none: its permissions say who may use it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Arthur's address, and an API key or a login with its password.

    Secrets are left out of `repr()`, so that no log line or traceback shows them.

    Attributes:
        secret_file: The file that the key or the password was read from, if any.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    organization_id: str | None = None
    verify_ssl: bool = True
    secret_file: SecretFile | None = None

    def renewed(self) -> "Credentials":
        """Return them with the current secret of their file; unchanged if it can't be read.

        Never raises: a file that is being replaced is read again later.
        """
        if self.secret_file is None:
            return self
        try:
            secret = self.secret_file.read()
            if self.login is not None:
                return replace(self, password=secret)
            key = _header_value("ARTHUR_API_KEY", {"ARTHUR_API_KEY": secret})
        except CredentialsError:
            return self
        return replace(self, api_key=key or self.api_key)

    @property
    def owner(self) -> RowOwner:
        """The owner of the rows that are captured with these credentials."""
        who = self.login if self.api_key is None else self.api_key
        text = "\n".join([self.login or "", who or "", self.organization_id or ""])
        digest = blake2b(text.encode(), digest_size=8, person=b"arthur-relay")
        return RowOwner(self.url, self.organization_id, digest.hexdigest())


def resolve_credentials(  # noqa: PLR0913 - keyword-only; the last three are for tests
    *,
    url: str | None,
    login: str | None,
    password: str | None,
    allow_insecure: bool,
    environment: Mapping[str, str] = os.environ,
    ask: Callable[[str], str] | None = None,
    can_ask: Callable[[], bool] | None = None,
) -> Credentials:
    """Find the credentials, in the order of the old handler and the SDK.

    The key and the password may also be in files: see `credential_files`. A Unix socket needs
    neither.

    The address is the argument, else `ARTHUR_ENDPOINT_URL`, else Arthur's own. With a login, the
    password is the argument, else `ARTHUR_PASSWORD`, else the user is asked for it if there is a
    terminal or a notebook. Without a login, the key is `ARTHUR_API_KEY`. An empty variable counts
    as not set.

    Raises:
        CredentialsError: There is no key and no login; the message says what to set.
        ConfigurationError: The URL or `VERIFY_SSL` can't be used.
    """
    given, environment = environment, with_files(environment)
    if url is None:
        url = environment.get("ARTHUR_ENDPOINT_URL", "").strip() or DEFAULT_URL
    checked = check_url(url, allow_insecure=allow_insecure)
    organization = _header_value("ARTHUR_ORGANIZATION_ID", environment)
    verify = _verify_ssl(environment.get("VERIFY_SSL"))
    if login is None:
        key = _header_value("ARTHUR_API_KEY", environment)
        if not key and checked.startswith(UNIX):
            key = _ANY_KEY
        if not key:
            raise CredentialsError(
                "No Arthur authentication was given: either give a login (arthur_login=..., or"
                " ARTHUR_LOGIN with from_env) or set ARTHUR_API_KEY in the environment."
            )
        return Credentials(
            checked,
            api_key=key,
            organization_id=organization,
            verify_ssl=verify,
            secret_file=secret_file("ARTHUR_API_KEY", given),
        )
    file = secret_file("ARTHUR_PASSWORD", given) if password is None else None
    if password is None:
        password = environment.get("ARTHUR_PASSWORD") or None
    if password is None:
        if not (can_ask or _can_ask)():
            raise _no_password(login, "there is no terminal to ask at")
        # Looked up at the call, because an application may have replaced getpass.
        password = _ask_for_password(login, ask or getpass.getpass)
    return Credentials(
        checked,
        login=login,
        password=password,
        organization_id=organization,
        verify_ssl=verify,
        secret_file=file,
    )


def credentials_from_environment(
    *, allow_insecure: bool, environment: Mapping[str, str] = os.environ
) -> Credentials:
    """Read everything from the environment, as the SDK does: a key wins over a login.

    Raises:
        CredentialsError: Neither `ARTHUR_API_KEY` nor `ARTHUR_LOGIN` is set.
        ConfigurationError: `ARTHUR_ENDPOINT_URL` or `VERIFY_SSL` can't be used.
    """
    found = with_files(environment)
    has_key = found.get("ARTHUR_API_KEY", "").strip() != ""
    login = environment.get("ARTHUR_LOGIN", "").strip() or None
    return resolve_credentials(
        url=None,
        login=None if has_key else login,
        password=None,
        allow_insecure=allow_insecure,
        environment=environment,
    )


def means_engine(environment: Mapping[str, str]) -> bool:
    """Return whether the environment means Arthur Engine, and not Arthur Scope.

    Raises:
        ConfigurationError: It has variables for both.
    """
    of_engine = [
        name for name in ("ARTHUR_BASE_URL", "ARTHUR_TASK_ID") if environment.get(name, "").strip()
    ]
    if of_engine and environment.get("ARTHUR_MODEL_ID", "").strip():
        raise ConfigurationError(
            f"{of_engine[0]} is for Arthur Engine and ARTHUR_MODEL_ID for Arthur Scope: unset one"
            " of them, or use from_engine or from_credentials."
        )
    return bool(of_engine)


def means_both(environment: Mapping[str, str]) -> bool:
    """Return whether the environment is that of a daemon for both products.

    It then has a key for the Engine beside that for Scope. The addresses don't say it: the one of
    Scope is often set where the Engine alone is meant.

    Raises:
        CredentialsError: It has the Engine's key twice.
    """
    given = environment.get(ENGINE_KEY, "").strip() != ""
    return secret_file(ENGINE_KEY, environment) is not None or given


def resolve_engine_credentials(
    *,
    url: str | None = None,
    api_key: str | None = None,
    allow_insecure: bool,
    environment: Mapping[str, str] = os.environ,
    key_variable: str = "ARTHUR_API_KEY",
) -> Credentials:
    """Find the address and the key of Arthur Engine, as its SDK does.

    The address is the argument, else `ARTHUR_BASE_URL`, else `ENGINE_URL`; the key is the argument,
    else that of `key_variable`, which may be in a file: see `credential_files`. A Unix socket needs
    no key. An empty variable counts as not set.

    Raises:
        CredentialsError: There is no key; the message says what to set.
        ConfigurationError: The URL or `VERIFY_SSL` can't be used.
    """
    found = with_files(environment)
    if url is None:
        url = found.get("ARTHUR_BASE_URL", "").strip() or ENGINE_URL
    checked = check_url(url, allow_insecure=allow_insecure)
    key = _header_value(key_variable, found if api_key is None else {key_variable: api_key})
    if not key and checked.startswith(UNIX):
        key = _ANY_KEY
    if not key:
        raise CredentialsError(
            "No key for Arthur Engine was given: give api_key=..., or set ARTHUR_API_KEY in the"
            " environment."
        )
    return Credentials(
        checked,
        api_key=key,
        verify_ssl=_verify_ssl(found.get("VERIFY_SSL")),
        secret_file=secret_file(key_variable, environment) if api_key is None else None,
    )


def check_url(url: object, *, allow_insecure: bool) -> str:
    """Return the URL without a trailing slash or the path of an API; a Unix socket's as it is.

    Raises:
        ConfigurationError: It is no text; its scheme is missing or neither http nor https; its
            host is missing or invalid; it has a user, a query, an invalid port or white space; or
            it is plain HTTP to another machine without `allow_insecure`. The message quotes no part
            that could be a secret.
    """
    example = "write it like 'https://app.arthur.ai'."
    if not isinstance(url, str):
        raise ConfigurationError(
            f"Arthur's URL must be a text, not of type {type(url).__name__}: {example}"
        )
    try:
        parts = urlsplit(url.strip())
        secretive = "@" in url or bool(parts.query or parts.fragment)
        port = parts.port
        # The resolver does the same, and would fail at each attempt.
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise ConfigurationError(f"Arthur's URL can't be used ({error}): {example}") from None
    if secretive:
        raise ConfigurationError(
            f"Arthur's URL must not have a user, a query or a fragment: {example}"
        )
    if "://" not in url and parts.scheme != "unix":
        raise ConfigurationError(
            f"Arthur's URL {url!r} has no scheme: write it like 'https://{url.strip()}'."
        )
    # Looked for in the original: urlsplit removes line breaks and tabs.
    if any(character.isspace() for character in url.strip()):
        raise ConfigurationError(f"Arthur's URL {url!r} has white space in it: {example}")
    if parts.scheme == "unix":
        if "://" not in url or parts.netloc or not parts.path.strip("/"):
            raise ConfigurationError(
                f"Arthur's URL {url!r} does not name a socket: write it like"
                " 'unix:///run/arthur-relay/relay.sock', with three slashes."
            )
        check_unix_sockets(f"Arthur's URL {url!r}")
        return f"{UNIX}{parts.path}"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigurationError(f"Arthur's URL {url!r} can't be used: {example}")
    if parts.scheme == "http" and not allow_insecure and not is_loopback(parts.hostname):
        raise ConfigurationError(
            f"Arthur's URL {url!r} is plain HTTP, which would show prompts and credentials to the"
            " network: use https://, or set ARTHUR_RELAY_ALLOW_INSECURE=true if you mean it."
        )
    path = parts.path.rstrip("/").removesuffix("/api/v3").removesuffix("/api/v1/traces")
    return f"{parts.scheme}://{parts.netloc}{path}"


def socket_path(url: str) -> str | None:
    """Return the path of the Unix socket that a checked URL names, or None."""
    return url.removeprefix(UNIX) if url.startswith(UNIX) else None


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _header_value(name: str, environment: Mapping[str, str]) -> str | None:
    """Read a variable whose value becomes an HTTP header."""
    value = (environment.get(name) or "").strip()  # files of secrets end in a newline
    if not (value.isascii() and value.isprintable()):
        raise CredentialsError(
            f"{name} has characters that can't be in it, such as a line break or an accent:"
            " copy it again."
        )
    return value or None


def _verify_ssl(value: str | None) -> bool:
    if not value:
        return True
    match value.strip().lower():
        case "true" | "t" | "1":
            return True
        case "false" | "f" | "0":
            return False
        case _:
            raise ConfigurationError(
                f"VERIFY_SSL can't be {value!r}: it is true, t, 1, false, f or 0."
            )


def _can_ask() -> bool:
    """Return whether a user can be asked: at a terminal, or through a replaced getpass.

    A notebook's kernel has no terminal, and replaces `getpass.getpass` by an input field in the
    notebook (ipykernel.ipkernel.IPythonKernel._forward_input).
    """
    if getattr(getpass.getpass, "__module__", None) != "getpass":
        return True
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:  # it is closed
        return False


def _ask_for_password(login: str, ask: Callable[[str], str]) -> str:
    try:
        return ask(f"Please enter password for {login}: ")
    except EOFError:
        raise _no_password(login, "the input ended when it was asked for") from None
    except (NotImplementedError, OSError, ValueError) as error:
        # A notebook that runs without a user raises IPython's StdinNotImplementedError, which is a
        # NotImplementedError; a closed standard input raises a ValueError.
        raise _no_password(login, "it can't be asked for here") from error


def _no_password(login: str, why: str) -> CredentialsError:
    return CredentialsError(
        f"No password was given for {login}, and {why}: give arthur_password=... or set"
        " ARTHUR_PASSWORD in the environment."
    )
