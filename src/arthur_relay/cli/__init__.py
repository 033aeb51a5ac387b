"""The command `arthur-relay`: a local Arthur, a check of the set-up, and a demo to look at."""

import sys

from arthur_relay.cli.extra import DAEMON_PACKAGES
from arthur_relay.cli.first import prepare_process


def main() -> None:
    """Run the command with the process's arguments; what the entry point calls.

    Raises:
        SystemExit: Always; 0 when all went well, 1 when something did not, 2 when the command was
            not understood or the extra `daemon` is not installed.
    """
    prepare_process()
    try:
        from arthur_relay.cli.app import run  # noqa: PLC0415 - needs packages that may be missing

        run()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in DAEMON_PACKAGES:
            raise
        print(
            f"arthur-relay: the command needs {package}, which is not installed:"
            " run pip install 'arthur-relay[daemon]'.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
