"""The command `arthur-relay`: a local Arthur, a check of the set-up, and a demo to look at.

It imports little, because the packages of the extra `daemon` may be missing.
"""

import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NoReturn

from arthur_relay.cli.first import prepare_process
from arthur_relay.system.extras import MissingExtraError, needed_by
from arthur_relay.system.terminal import printable

INTERRUPTED: Final = "interrupted."


def version_line() -> str:
    """Return what `--version` prints."""
    try:
        number = version("arthur-relay")
    except PackageNotFoundError:  # run from a source tree that is not installed
        number = "unknown"
    return f"arthur-relay {number}"


def main() -> None:
    """Run the command with the process's arguments; what the entry point calls.

    Raises:
        SystemExit: Always; 0 when all went well, 1 when something did not, 2 when the command was
            not understood or the extra that it needs is not installed.
    """
    prepare_process()
    if sys.argv[1:] == ["--version"]:  # also where the packages of the extra are missing
        print(version_line())
        raise SystemExit(0)
    try:
        with needed_by("the command"):
            from arthur_relay.cli.app import run  # noqa: PLC0415 - needs packages of an extra

            run()
    except KeyboardInterrupt:  # while it was being imported
        print(f"arthur-relay: {INTERRUPTED}", file=sys.stderr)
        raise SystemExit(130) from None
    except MissingExtraError as error:
        print(f"arthur-relay: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def fail(message: str, *, code: int = 1) -> NoReturn:
    """Print one line to stderr and end the command.

    Raises:
        typer.Exit: Always, with the code.
    """
    import typer  # noqa: PLC0415 - this module is imported before it is known to be there

    with suppress(OSError):  # nobody reads stderr; the exit code is enough
        typer.echo(f"arthur-relay: {printable(message)}", err=True)
    raise typer.Exit(code)


def is_interactive() -> bool:
    """Return whether somebody at a terminal can be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
