"""Starts Python processes that have imported other people's packages already.

Most of what such a process costs is those imports. So one process of each set of packages makes
them once, and forks whenever a test wants a process. It runs no other thread, and it has imported
nothing of arthur_relay: whatever a test starts imports that itself, and ends as `python -c` does,
by the interpreter's own way out of its main module. What is not the same is the order of imports
and the process's parent; a test for which these matter has its process cold.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PACKAGES = (
    "anyio._backends._asyncio",
    "asyncio",
    "concurrent.futures.thread",
    "cryptography.hazmat.primitives.ciphers.algorithms",
    "cryptography.hazmat.primitives.serialization.ssh",
    "cryptography.x509",
    "getpass",
    "httpx",
    "jwt",
    "logging.handlers",
    "msgspec",
    "orjson",
    "prometheus_client.core",
    "pydantic_settings",
    "sqlite3",
    "starlette.applications",
    "starlette.datastructures",
    "starlette.requests",
    "starlette.responses",
    "starlette.routing",
    "tenacity",
    "typer",
    "typer.rich_utils",
    "uvicorn",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
)
"""What a relay and a daemon import; an environment may be without some of it."""

LANGCHAIN = ("langchain_core.language_models.fake_chat_models", "langchain_core.callbacks")

_SOURCE = Path(__file__).with_name("warm_parent.py")


def python(
    source: str,
    *arguments: str,
    environment: Mapping[str, str],
    stdout: IO[Any] | int,
    stderr: IO[Any] | int,
    with_langchain: bool = False,
    strict: bool = True,
    cold: bool = False,
    prefix: Sequence[str] = (),
    cwd: Path | None = None,
    start_new_session: bool = False,
) -> subprocess.Popen[str] | WarmProcess:
    """Run `python -c SOURCE ARGUMENT...`, in a warm process unless it has to be cold.

    A warning is an error where that is strict.
    Behind a prefix, a command that ends by running the one given to it, it is always cold.
    """
    # Coverage measures from the start of an interpreter on.
    measured = any(name.startswith("COVERAGE_PROCESS") for name in os.environ)
    if cold or prefix or measured:
        return subprocess.Popen(
            [
                *(*prefix, sys.executable),
                *(["-W", "error"] if strict else []),
                *("-c", source, *arguments),
            ],
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=start_new_session,
            text=True,
        )
    order = {
        "source": source,
        "arguments": arguments,
        "environment": dict(environment),
        "strict": strict,
        "cwd": str(cwd or Path.cwd()),
        "new_session": start_new_session,
    }
    parent = _parent((*PACKAGES, *(LANGCHAIN if with_langchain else ())))
    return WarmProcess(parent, order, stdout, stderr)


class _Parent:
    """The process that forks, and the socket on which it is told to."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours = {k: v for k, v in os.environ.items() if not k.startswith("ARTHUR")}
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", _SOURCE.read_text(encoding="utf-8")),
                    *(str(theirs.fileno()), *packages),
                ],
                env={**ours, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def fork(self, order: dict[str, Any], descriptors: list[int]) -> int:
        """Have it fork, and return the number of the child."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(order).encode()], descriptors)
            answer = self._socket.recv(64)
        assert answer, "the process that forks has ended"
        return int(answer)

    def end(self) -> None:
        """Have it end, by the end of its socket; its children go on."""
        self._socket.close()
        self._process.wait()


_parents: dict[tuple[str, ...], _Parent] = {}
_parents_lock = threading.Lock()


def _parent(packages: tuple[str, ...]) -> _Parent:
    with _parents_lock:
        if packages not in _parents:
            _parents[packages] = _Parent(packages)
            atexit.register(_parents[packages].end)
        return _parents[packages]


class WarmProcess:
    """A process that is used as a `subprocess.Popen` in text mode is.

    Args:
        parent: What forks it.
        order: What it does.
        stdout: A file, or `subprocess.PIPE`.
        stderr: A file, or `subprocess.PIPE`.
    """

    def __init__(
        self, parent: _Parent, order: dict[str, Any], stdout: IO[Any] | int, stderr: IO[Any] | int
    ) -> None:
        self._ended: int | None = None
        self._status, status = os.pipe()
        theirs = [status]
        pipes: list[int] = []
        self.stdout, self.stderr = (self._output(each, theirs, pipes) for each in (stdout, stderr))
        try:
            self.pid = parent.fork(order, theirs)
        finally:
            for descriptor in (status, *pipes):
                os.close(descriptor)

    @staticmethod
    def _output(wanted: IO[Any] | int, theirs: list[int], pipes: list[int]) -> IO[str] | None:
        if wanted != subprocess.PIPE:
            theirs.append(wanted if isinstance(wanted, int) else wanted.fileno())
            return None
        ours, writable = os.pipe()
        theirs.append(writable)
        pipes.append(writable)
        return os.fdopen(ours, encoding="utf-8", errors="replace")

    @property
    def returncode(self) -> Any:
        """Its status if it is known to have ended, of the type that `subprocess.Popen` gives it."""
        return self._ended

    def poll(self) -> int | None:
        """Return its status if it has ended."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return its status."""
        status = self._look(timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("python", timeout)
        return status

    def _look(self, timeout: float | None) -> int | None:
        if self._ended is None and select.select([self._status], [], [], timeout)[0]:
            status = os.read(self._status, 64)
            os.close(self._status)
            assert status, "the process that forks has ended"
            self._ended = int(status)
        return self._ended

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read what it prints until its end."""
        until = None if timeout is None else time.monotonic() + timeout
        texts = ["", ""]

        def read(number: int, pipe: IO[str]) -> None:
            if not pipe.closed:
                texts[number] = pipe.read()
                pipe.close()

        readers = [
            threading.Thread(target=read, args=(number, pipe), daemon=True)
            for number, pipe in enumerate((self.stdout, self.stderr))
            if pipe is not None
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(None if until is None else max(0.0, until - time.monotonic()))
            if reader.is_alive():
                assert timeout is not None
                raise subprocess.TimeoutExpired("python", timeout)
        self.wait(None if until is None else max(0.0, until - time.monotonic()))
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it by force."""
        self.send_signal(signal.SIGKILL)
