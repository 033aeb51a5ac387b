"""Measuring processes, as the run sees them: each answers within its time, or is ended.

A peer may hang, die or take the interpreter lock for good. It has a process of its own, so that it
costs its own cells only.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]

_FOREIGN = ("ARTHUR", "LANGCHAIN", "LANGSMITH", "LANGFUSE", "OTEL", "PYTHON")
_KEPT = ("PYTHONHASHSEED", "PYTHONPYCACHEPREFIX")
_READ_BYTES = 1 << 16


class ChildError(Exception):
    """A measuring process did not answer, or answered that it can't; the text says which.

    Attributes:
        is_over: Whether the process is gone.
    """

    def __init__(self, reason: str, *, is_over: bool) -> None:
        super().__init__(reason)
        self.is_over = is_over


class Deadline:
    """When the whole run has to be over.

    Args:
        seconds: From now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left_seconds(self) -> float:
        """What is left, 0 at least."""
        return max(0.0, self._end - time.monotonic())

    def within(self, limit_seconds: float) -> float:
        """The limit, or what is left when that is less."""
        return min(limit_seconds, self.left_seconds())


def environment() -> dict[str, str]:
    """The environment variables of a measuring process: nothing that sets a peer up, no proxy.

    Bytecode is cached, whatever the caller has set: an import that compiles is another measurement.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if (not name.startswith(_FOREIGN) or name in _KEPT) and not name.lower().endswith("_proxy")
    }
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}


class Child:
    """A measuring process.

    Args:
        python: The interpreter.
        peer: What it measures.
        url: Where the sink is.
        deadline: Of the whole run; no answer is waited for beyond it.
    """

    def __init__(self, python: str, *, peer: str, url: str, deadline: Deadline) -> None:
        self.peer = peer
        self.delivers: bool | None = None
        """Whether its records arrive at the sink; None while the peer is not open."""
        self._deadline = deadline
        self._read = b""
        self._process = subprocess.Popen(
            [python, "-m", "tests.benchmarks.measure", peer, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=ROOT,
            env=environment(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    def ask(self, command: str, limit_seconds: float, **arguments: object) -> dict[str, Any]:
        """Have it do something and return what it answers.

        Raises:
            ChildError: it could not, or did not answer in time; then it is gone.
        """
        seconds = self._deadline.within(limit_seconds)
        if seconds <= 0:
            self.kill()
            raise ChildError("not measured: the time of the whole run was over", is_over=True)
        request = json.dumps({"command": command, "arguments": arguments}) + "\n"
        try:
            self._stdin().write(request.encode())
            answer = self._answer(seconds)
        except (BrokenPipeError, EOFError):
            status = self._reap()
            raise ChildError(f"its process ended with status {status}", is_over=True) from None
        except TimeoutError:
            self.kill()
            raise ChildError(f"did not end within {seconds:.0f} s", is_over=True) from None
        if "error" in answer:
            raise ChildError(answer["error"], is_over=False)
        found: dict[str, Any] = answer["value"]
        return found

    def leave(self, limit_seconds: float) -> float | None:
        """Have it return from its main module, and wait for its end as the peer wants it.

        Returns:
            The seconds that it took, or None: it had not ended by then, and was killed.
        """
        begun = time.monotonic()
        with suppress(BrokenPipeError):  # it is gone already
            self._stdin().write(b'{"command": "leave", "arguments": {}}\n')
        try:
            self._process.wait(self._deadline.within(limit_seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        return time.monotonic() - begun

    def kill(self) -> None:
        """End it, whatever it does. Killing it again does nothing."""
        if self._process.poll() is None:
            self._process.kill()
        self._reap()

    def _reap(self) -> int:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:  # it closed its end of the pipes and goes on
            self._process.kill()
            return self._process.wait()

    def _stdin(self) -> Any:
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise BrokenPipeError
        return self._process.stdin

    def _answer(self, seconds: float) -> dict[str, Any]:
        """Read a line.

        Raises:
            TimeoutError: it did not come in time.
            EOFError: the process has closed its end.
        """
        assert self._process.stdout is not None
        fileno = self._process.stdout.fileno()
        end = time.monotonic() + seconds
        while b"\n" not in self._read:
            readable, _, _ = select.select([fileno], [], [], max(0.0, end - time.monotonic()))
            if not readable:
                raise TimeoutError
            piece = os.read(fileno, _READ_BYTES)
            if not piece:
                raise EOFError
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


def run_fresh(python: str, source: str, *, limit_seconds: float) -> Mapping[str, float]:
    """Run a few lines in a fresh interpreter and return the JSON object that they print.

    Raises:
        ChildError: they failed, or did not end in time.
    """
    try:
        done = subprocess.run(
            [python, "-c", source],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
            timeout=limit_seconds,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise ChildError(f"did not end within {limit_seconds:.0f} s", is_over=True) from None
    except subprocess.CalledProcessError as error:
        reason = f"its process ended with status {error.returncode}"
        raise ChildError(reason, is_over=True) from None
    found: Mapping[str, float] = json.loads(done.stdout)
    return found


def tell(line: str) -> None:
    """Say how far the run is, on standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
