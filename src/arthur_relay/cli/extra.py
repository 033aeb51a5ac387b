"""What the command needs beyond the core, and how a command ends with one clear line."""

from contextlib import suppress
from typing import Final, NoReturn

from arthur_relay.terminal import printable

DAEMON_PACKAGES: Final = frozenset(
    {"httptools", "jwt", "msgspec", "prometheus_client", "rich", "starlette", "typer", "uvicorn"}
)
"""The packages of the extra `daemon`."""


def fail(message: str, *, code: int = 1) -> NoReturn:
    """Print one line to stderr and end the command.

    Raises:
        typer.Exit: Always, with the code.
    """
    import typer  # noqa: PLC0415 - this module is imported before it is known to be there

    with suppress(OSError):  # nobody reads it; the code says enough
        typer.echo(f"arthur-relay: {printable(message)}", err=True)
    raise typer.Exit(code)
