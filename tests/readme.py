"""The parts of the README and of the pages in docs/, for the tests that run what they say."""

from __future__ import annotations

import re
import textwrap
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


@cache
def page(path: str) -> str:
    """The text of a page, by its path from the top of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def pages() -> list[str]:
    """The paths of the README and of all pages in docs/."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("**/*.md"))
    return ["README.md", *found]


def python_block(number: int, path: str = "README.md") -> str:
    """One of a page's programs, from 0, as it is written there."""
    return textwrap.dedent(python_blocks(path)[number])


def python_blocks(path: str) -> list[str]:
    """All of them, with the indentation that they have there."""
    return re.findall(r"^ *```python\n(.*?)^ *```", page(path), re.DOTALL | re.MULTILINE)


def command(name: str, path: str = "README.md") -> str:
    """The command that a page gives under a name."""
    found = re.search(rf"<!-- command: {name} -->\n *```sh\n *([^\n]+)\n *```", page(path))
    assert found is not None, f"{path} has no command {name}"
    return found[1]


def example(name: str, path: str = "README.md") -> str:
    """The block that a page gives under a name."""
    found = re.search(rf"<!-- example: {name} -->\n```\w*\n(.*?)^```$", page(path), re.S | re.M)
    assert found is not None, f"{path} has no example {name}"
    return found[1]


def marked(name: str, path: str) -> str:
    """What stands between the two marks of a name, such as a table that is made by code."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", page(path), re.DOTALL)
    assert found is not None, f"{path} has no marks of {name}"
    return found[1]


def first_cells(table: str) -> list[str]:
    """What stands between backticks in the first cell of each row."""
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def quoted(text: str) -> set[str]:
    """What stands between backticks."""
    return set(re.findall(r"`([^`]+)`", text))
