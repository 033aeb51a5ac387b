"""`arthur-relay sandbox`: a local Arthur, and the lines that make others use it."""

import contextlib
import os
import shlex
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from arthur_relay.cli import fail
from arthur_relay.sandbox import ArthurSandbox
from arthur_relay.system.terminal import printable


def run_sandbox(*, host: str, port: int, data: Path | None, model_id: str | None = None) -> None:
    """Print the lines to export and the page's address, then serve until SIGINT or SIGTERM.

    Raises:
        typer.Exit: The address can't be listened on, or the data can't be used; stderr says so.
        SystemExit: With 0, when a signal came while the server was starting or stopping.
    """
    with _ending_quietly():
        sandbox = open_sandbox(host=host, port=port, data=data, model_id=model_id)
        with sandbox:
            for name, value in sandbox.environment().items():
                print(f"export {name}={shlex.quote(value)}")
            # A comment, so that all of it can be pasted into a shell.
            print(f"# page: {sandbox.url}/")
            # Not exported beside the others, which are Arthur Scope's: who has both has to choose.
            engine = sandbox.engine_environment()
            names = " ".join(f"{name}={shlex.quote(value)}" for name, value in engine.items())
            print(f"# as an Arthur Engine: export {names}", flush=True)
            if sys.stderr.isatty():
                kept = f"kept in {printable(str(data))}" if data else "in memory, gone at the end"
                print(f"The data is {kept}. Ctrl-C ends the sandbox.", file=sys.stderr)
            sandbox.wait()


def open_sandbox(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    data: Path | None = None,
    model_id: str | None = None,
) -> ArthurSandbox:
    """Return a sandbox that runs already; entering it changes nothing, leaving it stops it.

    Raises:
        typer.Exit: The address can't be listened on, or the data can't be used; stderr says so.
    """
    # Clients send the organisation of their environment, which is likely ours too.
    organization = os.environ.get("ARTHUR_ORGANIZATION_ID") or "sandbox-org"
    try:
        sandbox = ArthurSandbox(
            host=host, port=port, data=data, organization_id=organization, model_id=model_id
        )
    except ValueError as error:  # the data has another id
        fail(f"can't use {model_id!r} as the model's id: {error}", code=2)
    except (OSError, sqlite3.Error) as error:
        fail(f"can't use {data} for the sandbox's data: {error}", code=2)
    try:
        sandbox.start()
    except (OSError, UnicodeError) as error:  # the latter for a host name that can't be one
        reason = getattr(error, "strerror", None) or error
        if str(reason).startswith("can't listen"):
            fail(f"the sandbox {reason}")
        fail(f"the sandbox can't listen on {host}:{port}: {reason}")
    return sandbox


@contextlib.contextmanager
def _ending_quietly() -> Iterator[None]:
    """Inside of the block, SIGINT and SIGTERM end the process with status 0.

    The sandbox handles them itself, but only while it waits; whoever reads the lines may send one
    before.
    """

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
