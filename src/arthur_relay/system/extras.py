"""Which extra brings a package, for the error where it is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

PACKAGES: Final[Mapping[str, frozenset[str]]] = {
    "daemon": frozenset(
        {
            "httptools",
            "jwt",
            "msgspec",
            "prometheus_client",
            "rich",
            "starlette",
            "typer",
            "uvicorn",
        }
    ),
    "migrate": frozenset({"libcst"}),  # beside those of `daemon`
}
"""By extra, the packages that it brings, by the names that they are imported by."""


class MissingExtraError(ModuleNotFoundError):
    """A package is missing that an extra brings; the message says which one to install."""


@contextmanager
def needed_by(subject: str) -> Iterator[None]:
    """Have a missing package's error say which extra brings it.

    Args:
        subject: What needs it, at the beginning of a sentence.

    Raises:
        MissingExtraError: The block imports a package that is missing, and that an extra brings.
        ModuleNotFoundError: It imports another one that is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        for extra, packages in PACKAGES.items():
            if package in packages:
                raise MissingExtraError(
                    f"{subject} needs {package}, which is not installed:"
                    f" run pip install 'arthur-relay[{extra}]'.",
                    name=error.name,
                ) from None
        raise
