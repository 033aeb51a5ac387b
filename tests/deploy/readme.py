"""The commands of deploy/README.md, by the names that stand before them."""

from __future__ import annotations

import re

from .tools import DEPLOY

README = (DEPLOY / "README.md").read_text(encoding="utf-8")


def command(name: str) -> str:
    """Return the block of commands that stands behind `<!-- command: NAME -->`."""
    found = re.search(rf"<!-- command: {name} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found is not None, f"deploy/README.md has no command {name}"
    return found[1]
