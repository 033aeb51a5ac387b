"""Runs a script of a user's in a process of its own, against a sandbox, and tells how it ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests import warm

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox

PREAMBLE = """
import asyncio, atexit, os, signal, sys, threading, time
from arthur_relay import Inference, Relay, RelaySettings

# Nothing leaves by itself: only the exit's flush can deliver, over a connection not yet opened.
settings = RelaySettings(flush_interval_seconds=3600, connect="lazy", **{settings})

def ready():
    print("ready", flush=True)

def ready_for_a_signal():
    ready()
    # Not one wait without an end: CPython does not see a signal that comes between its last look
    # and the system call, until that returns.
    while True:
        threading.Event().wait(0.05)
"""

LANGCHAIN = """
from arthur_relay import ArthurCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel

def handler():
    return ArthurCallbackHandler.from_env(settings=settings)

def chat(*handlers):
    return FakeListChatModel(responses=["answer"], callbacks=list(handlers))
"""


def uses_langchain(body: str) -> bool:
    """Say whether a script uses LangChain, whose models take longer to import than all the rest."""
    return re.search(r"\bhandler\(|CallbackHandler|\bchat\(|langchain", body) is not None


def preamble(body: str, settings: dict[str, object]) -> str:
    """Return what stands before a script, with LangChain where the script uses it."""
    before = PREAMBLE.replace("{settings}", repr(settings))
    return before + LANGCHAIN if uses_langchain(body) else before


@dataclass
class Ended:
    """How a process ended."""

    status: int
    stdout: str
    stderr: str


class Script:
    """A running script; leaves nothing behind."""

    def __init__(
        self,
        sandbox: ArthurSandbox,
        body: str,
        *,
        environment: dict[str, str],
        cold: bool,
        **settings: object,
    ) -> None:
        # By name, not by number: an exit that can't resolve names any more must show.
        url = sandbox.url.replace("127.0.0.1", "localhost")
        # Coverage's lock may be held at a fork, and hangs the child: see tests/hosts/programs.py.
        left_out = ("ARTHUR", "COVERAGE_PROCESS") if "os.fork" in body else ("ARTHUR",)
        source = preamble(body, settings) + textwrap.dedent(body)
        self.process = warm.python(
            source,
            environment={
                **{k: v for k, v in os.environ.items() if not k.startswith(left_out)},
                **sandbox.environment(),
                "ARTHUR_ENDPOINT_URL": url,
                "PYTHONPATH": os.pathsep.join(sys.path),
                **environment,
            },
            with_langchain=uses_langchain(body),
            cold=cold,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wait_until_ready(self) -> None:
        """Wait until the script says so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        raise AssertionError(f"the script ended first: {self.end()}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self, seconds: float = 60.0) -> Ended:
        """Wait for its end."""
        stdout, stderr = self.process.communicate(timeout=seconds)
        return Ended(self.process.returncode, stdout, stderr)

    def kill(self) -> None:
        """Make sure that it is gone."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Scripts:
    """Starts scripts, and ends those that a failed test left."""

    def __init__(self, sandbox: ArthurSandbox) -> None:
        self.sandbox = sandbox
        self._started: list[Script] = []

    def start(
        self,
        body: str,
        environment: dict[str, str] | None = None,
        *,
        cold: bool = False,
        **settings: object,
    ) -> Script:
        """Start a script with the preamble before it."""
        script = Script(self.sandbox, body, environment=environment or {}, cold=cold, **settings)
        self._started.append(script)
        return script

    def run(
        self,
        body: str,
        environment: dict[str, str] | None = None,
        *,
        cold: bool = False,
        **settings: object,
    ) -> Ended:
        """Run a script to its end."""
        return self.start(body, environment, cold=cold, **settings).end()

    def kill_all(self) -> None:
        """Leave nothing behind."""
        for script in self._started:
            script.kill()
