"""Programs in processes of their own, whose children are ended with them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from tests import warm
from tests.process.scripts import Ended, preamble, uses_langchain
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

LIMIT_SECONDS = 90.0


def wait_until(condition: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> None:
    """Wait for a condition."""
    wait_for(condition, seconds)


LEFT_OUT = ("ARTHUR", "COVERAGE_PROCESS")
"""Variables that a program does not get.

With the latter its coverage would be measured, by a tracer, and that hangs:

- Its tracer holds `Collector.data_lock` for a moment whenever a function of ours is called, and
  nothing makes that anew in a forked child. One that is forked while another thread holds it waits
  in `Collector.lock_data` for ever: beside a thread that does nothing but call, about one in three.
  Coverage's `patch = ["fork"]` mends `os.fork`, but not a fork that runs no hooks.
- An exception that is set in a thread from another may come while it holds that lock, which then
  stays held.
- In CPython 3.11, not 3.12, a traced thread that enters a function loops there until an exception
  that was set in another thread is raised: for ever, if that one is at rest.
"""


class Program:
    """A running program. What it and its children print goes to a file, not to a pipe, which a
    child that is left over would keep open.
    """

    def __init__(
        self,
        start: Callable[..., subprocess.Popen[Any] | warm.WarmProcess],
        *,
        environment: Mapping[str, str],
        directory: Path,
    ) -> None:
        self.log = directory / f"{len(list(directory.glob('*.log')))}.log"
        with self.log.open("wb") as file:
            self.process = start(
                environment={
                    **{k: v for k, v in os.environ.items() if not k.startswith(LEFT_OUT)},
                    "PYTHONPATH": os.pathsep.join(sys.path),
                    **environment,
                },
                cwd=directory,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        """What has been printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until something is printed."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(re.finditer(pattern, self.printed))
            assert found or self.process.poll() is None, f"it ended first: {self.printed}"
            return bool(found)

        try:
            wait_until(look)
        except AssertionError as error:
            raise AssertionError(f"{pattern!r} is not in: {self.printed}") from error
        return found[-1]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, but not to its children."""
        self.process.send_signal(number)

    def end(self, seconds: float = LIMIT_SECONDS) -> Ended:
        """Wait for its end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.printed}") from None
        return Ended(self.process.returncode, self.printed, self.printed)

    def kill(self) -> None:
        """Make sure that it is gone, and so are its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Programs:
    """Starts programs that find a sandbox in their environment, and leaves none behind."""

    def __init__(self, sandbox: ArthurSandbox, directory: Path) -> None:
        self._directory = directory
        # By name, not by number: a child that can't resolve names any more must show.
        url = sandbox.url.replace("127.0.0.1", "localhost")
        self.environment = {**sandbox.environment(), "ARTHUR_ENDPOINT_URL": url}
        self._started: list[Program] = []

    def start(self, *command: str, **environment: str) -> Program:
        """Start a program."""

        def popen(**options: Any) -> subprocess.Popen[bytes]:
            options["env"] = options.pop("environment")
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)

        return self._start(popen, environment)

    def _start(
        self,
        start: Callable[..., subprocess.Popen[Any] | warm.WarmProcess],
        environment: Mapping[str, str],
    ) -> Program:
        program = Program(
            start, environment={**self.environment, **environment}, directory=self._directory
        )
        self._started.append(program)
        return program

    def script(self, body: str, **settings: object) -> Program:
        """Start a script with the preamble before it."""
        source = preamble(body, settings) + body
        return self._start(
            partial(warm.python, source, with_langchain=uses_langchain(body), strict=False), {}
        )

    def source(self, text: str) -> Program:
        """Start a program of a page as it is written there."""
        return self._start(partial(warm.python, text, with_langchain=True, strict=False), {})

    def run(self, body: str, **settings: object) -> Ended:
        """Run a script to its end."""
        return self.script(body, **settings).end()

    def kill_all(self) -> None:
        """Leave nothing behind but what they printed, which pytest shows if the test failed."""
        for program in self._started:
            program.kill()
            sys.stdout.write(program.printed)
