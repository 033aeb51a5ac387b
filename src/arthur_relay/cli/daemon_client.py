"""Asks a daemon on this host, by its socket or an address; `arthur-relay healthcheck` among others.

Its HTTP is the standard library's: a health check runs again and again, and must load little.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from errno import ENOTSUP
from typing import Any
from urllib.parse import urlsplit

import typer

from arthur_relay.cli import fail
from arthur_relay.system.operating_system import AF_UNIX, HAS_UNIX_SOCKETS
from arthur_relay.system.terminal import printable, without_credentials

PREFIX = "ARTHUR_RELAY_DAEMON_"
DEFAULT_SOCKET = "/run/arthur-relay/relay.sock"
MOST_BYTES = 16 * 1024 * 1024


class NoAnswerError(Exception):
    """The daemon did not answer; the text is a sentence for people."""


class Daemon:
    """Where a daemon is.

    Args:
        path: Its Unix socket, or None.
        url: Its address, or None. Without both, the environment says where it is.
        timeout_seconds: How long each step of a request may take.
    """

    def __init__(
        self, path: str | None = None, url: str | None = None, *, timeout_seconds: float = 3.0
    ) -> None:
        if path is None and url is None:
            path, url = _from_environment()
        if url is not None and not _is_address(url):
            fail(
                f"--url can't be {without_credentials(url)!r}: it has to be http://host:port.",
                code=2,
            )
        self._path = path
        self._url = url
        self._timeout = timeout_seconds

    @property
    def name(self) -> str:
        """Where it is, for people."""
        return without_credentials(self._url or str(self._path))

    def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of an answer.

        Raises:
            NoAnswerError: There is none.
        """
        try:
            connection = self._connection()
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read(MOST_BYTES)
            finally:
                connection.close()
        except TimeoutError:
            problem = f"no answer within {self._timeout:g} s"
        except (OSError, ValueError, http.client.HTTPException) as error:
            problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NoAnswerError(f"The daemon at {self.name} does not answer: {problem}.")

    def status(self) -> dict[str, Any]:
        """Return what `/status` says.

        Raises:
            NoAnswerError: It says nothing that can be used.
        """
        status, body = self.get("/status")
        try:
            found = json.loads(body)
            if status == 200 and "state" in found:
                return dict(found)
            if status == 403:
                raise NoAnswerError(f"{self.name} shows nothing to us: {found['error']}.")
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        raise NoAnswerError(
            f"{self.name} answers {status} to /status: it is no daemon's socket, nor the address of"
            " its ARTHUR_RELAY_DAEMON_METRICS_LISTEN."
        )

    def _connection(self) -> http.client.HTTPConnection:
        if self._url is None:
            assert self._path is not None, "there is either"
            return _UnixConnection(self._path, self._timeout)
        parts = urlsplit(self._url if "://" in self._url else f"http://{self._url}")
        if parts.scheme == "unix":
            return _UnixConnection(parts.path, self._timeout)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else (http.client.HTTPConnection)
        )
        return kind(parts.hostname or "localhost", parts.port, timeout=self._timeout)


class _UnixConnection(http.client.HTTPConnection):
    """A connection by a Unix socket."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._socket_path = path

    def connect(self) -> None:
        """Connect."""
        if not HAS_UNIX_SOCKETS:
            raise OSError(ENOTSUP, "this system has no Unix sockets; give --url")
        self.sock = socket.socket(AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)


def _from_environment() -> tuple[str | None, str | None]:
    """Return the socket, or the address, that a daemon with this environment has."""
    variables = {name.upper(): value for name, value in os.environ.items() if value.strip()}
    path = variables.get(f"{PREFIX}SOCKET", DEFAULT_SOCKET)
    if path.strip().lower() != "none":
        return path, None
    listen = variables.get(f"{PREFIX}METRICS_LISTEN") or variables.get(f"{PREFIX}LISTEN", "")
    host, _, port = listen.rpartition(":")
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - not bound
    return None, f"http://{everywhere.get(host, host)}:{port}"


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return parts.scheme == "unix" or (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        )
    except ValueError:
        return False


def run_healthcheck(daemon: Daemon, *, ready: bool) -> None:
    """Ask the daemon, and print its answer.

    Raises:
        typer.Exit: With 1 when the answer is no, or when there is none.
    """
    try:
        status, body = daemon.get("/readyz" if ready else "/healthz")
    except NoAnswerError as error:
        fail(str(error))
    sentence = _sentence(body)
    if status != 200:
        fail(sentence or f"{daemon.name} answers {status}.")
    typer.echo(printable(sentence))


def _sentence(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
