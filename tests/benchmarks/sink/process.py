"""A server in a process of its own as its owner sees it: starts it, commands it, and ends it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from tests.benchmarks.sink.state import Counts, Mode

_ROOT: Final = Path(__file__).parents[3]
_START_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 30.0
_END_SECONDS: Final = 10.0


class ServerProcess:
    """A server in a process of its own, from `with` to its end; used from one thread.

    A process that is measured needs the `url` only.

    Args:
        module: What runs there: `python -m MODULE DESCRIPTOR ARGUMENTS`. See `control`.
        arguments: More for its command line.

    Raises:
        TimeoutError: from each call: the server does not answer.
        ConnectionError: from each call: the server has ended.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self.url = ""
        self._module = module
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            self._control = ours
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, str(theirs.fileno()), *self._arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=_ROOT,
                # A Ctrl-C is for the owner, who ends the server after all that uses it.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "src")])},
            )
        try:
            self.url = f"http://127.0.0.1:{self._read(_START_SECONDS)}"
        except OSError:
            self.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process. Idempotent."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def ask(self, command: str, argument: object = None) -> Any:
        """Have the server obey a command, and return what it answers."""
        if self._control is None:
            raise ConnectionError("the server is not running")
        self._control.settimeout(_ANSWER_SECONDS)
        self._control.sendall(json.dumps([command, argument]).encode() + b"\n")
        return self._read(_ANSWER_SECONDS)

    def _read(self, timeout: float) -> Any:
        assert self._control is not None
        self._control.settimeout(timeout)
        line = bytearray()
        while not line.endswith(b"\n"):
            piece = self._control.recv(4096)
            if not piece:
                raise ConnectionError("the server has ended by itself")
            line += piece
        return json.loads(line)


class Sink(ServerProcess):
    """The benchmark's sink."""

    def __init__(self) -> None:
        super().__init__("tests.benchmarks.sink.server")

    def mode(self, mode: Mode) -> None:
        """Put a mode in force; it is when this returns."""
        self.ask("mode", mode)

    def counts(self) -> Counts:
        """What has arrived since the last reset, exact for all that was answered so far."""
        return Counts(*self.ask("counts"))

    def reset(self) -> None:
        """Let it forget what has arrived. The mode stays."""
        self.ask("reset")

    def cpu_seconds(self) -> float:
        """CPU time of the sink's process since it started, user and system."""
        return float(self.ask("cpu"))

    def limit(self, steps: Sequence[tuple[int, float]] | None) -> None:
        """Let it serve only so many requests at once, each time for so many seconds.

        The first of these steps begins with the next request that carries records; None ends them.
        """
        self.ask("limit", steps)

    def tallies(self) -> list[dict[str, Any]]:
        """What came in each of the steps that have begun; see `Tally`."""
        found: list[dict[str, Any]] = self.ask("tallies")
        return found
