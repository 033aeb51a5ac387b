"""The commands of deploy/README.md, by the names that stand before them."""

from __future__ import annotations

import re

from tests import readme

GUIDE = "https://github.com/arthur-relay/arthur-relay/blob/main/deploy/README.md"
"""Where people read it, and alerts lead; after a move, replace it in the alerts and their tests."""

README = readme.page("deploy/README.md")


def anchors() -> set[str]:
    """Return what links to its sections end in."""
    return {
        heading.lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }


def command(name: str) -> str:
    """Return the block of commands that stands behind `<!-- command: NAME -->`."""
    return readme.command(name, "deploy/README.md")
