"""The parts of the README and of the pages in docs/, for the tests that run what they say.

Each fenced block of a page says in the comment before it how it is held to what it claims:
`<!-- example: NAME -->` or `<!-- command: NAME -->` when a test takes it by that name, else
`<!-- not run: REASON -->`. tests/project/test_blocks.py makes a rule of that.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]

NOT_RUN = "not run"
"""The word before a reason."""

_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<kind>example|command|not run): (?P<value>[^\n]*?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page.

    Attributes:
        path: The page's.
        language: What stands behind the fence, or "".
        text: What is between the fences, without the indentation of the block.
        kind: `example`, `command`, `not run`, or "" where nothing says how it is held.
        value: The name, or the reason.
    """

    path: str
    language: str
    text: str
    kind: str
    value: str


@cache
def page(path: str) -> str:
    """The text of a page, by its path from the top of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def pages() -> list[str]:
    """The paths of the README and of all pages in docs/."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("**/*.md"))
    return ["README.md", *found]


@cache
def blocks(path: str) -> tuple[Block, ...]:
    """All blocks of a page, in their order."""
    return blocks_of(page(path), path)


def blocks_of(text: str, path: str) -> tuple[Block, ...]:
    """All blocks of a text, in their order."""
    return tuple(
        Block(
            path,
            found["language"],
            textwrap.dedent(found["text"]),
            found["kind"] or "",
            found["value"] or "",
        )
        for found in _BLOCK.finditer(text)
    )


def example(name: str, path: str = "README.md") -> str:
    """The block that a page gives under a name, as it is written there."""
    return _named("example", name, path)


def command(name: str, path: str = "README.md") -> str:
    """The commands of a shell that a page gives under a name."""
    return _named("command", name, path).strip()


def _named(kind: str, name: str, path: str) -> str:
    found = [each for each in blocks(path) if (each.kind, each.value) == (kind, name)]
    assert len(found) == 1, f"{path} has {len(found)} blocks with <!-- {kind}: {name} -->"
    return found[0].text


def commands_of(script: str) -> Iterator[list[str]]:
    """Yield the commands of a script, each as its words, without what only leads to the program."""
    rest = ""
    for line in script.replace("\\\n", " ").splitlines():
        rest += line + "\n"
        lexer = shlex.shlex(rest, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            parsed = [*lexer, ";"]
        except ValueError:  # a quotation goes on in the next line
            continue
        rest = ""
        words: list[str] = []
        for word in parsed:
            if not set(word) <= set("();<>|&"):
                words.append(word)
                continue
            if found := _without_prefix(words):
                yield found
            words = []


def _without_prefix(words: list[str]) -> list[str]:
    """Return a command without the variables, `env` and `sudo` before it."""
    while words:
        if words[:2] == ["sudo", "-u"]:
            words = words[3:]
        elif words[0] in {"env", "sudo"} or re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        else:
            break
    return words


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
