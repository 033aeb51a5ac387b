"""The commands of deploy/README.md, by the names that stand before them."""

from __future__ import annotations

from tests import readme

README = readme.page("deploy/README.md")


def command(name: str) -> str:
    """Return the block of commands that stands behind `<!-- command: NAME -->`."""
    return readme.command(name, "deploy/README.md")
