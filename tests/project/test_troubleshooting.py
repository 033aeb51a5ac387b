"""What docs/troubleshooting.md quotes is what the program prints."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from arthur_relay.stats import DropReason
from tests.readme import ROOT, page

pytestmark = pytest.mark.one_python

LEAST_CHARACTERS = 6
"""Shorter pieces between two dots say nothing."""


def quoted() -> list[str]:
    """Return what stands in backticks in the first cell of each row."""
    rows = re.findall(r"^\| (.*?) \|", page("docs/troubleshooting.md"), re.MULTILINE)
    return [text for row in rows for text in re.findall(r"`([^`]+)`", row)]


@cache
def printed() -> str:
    """Return all texts of the source, with what is put into them left out."""
    texts = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.JoinedStr(values=values):
                    parts = [
                        each.value if isinstance(each, ast.Constant) else "…" for each in values
                    ]
                    texts.append("".join(map(str, parts)))
                case ast.Constant(value=str(value)):
                    texts.append(re.sub(r"%[sdg]", "…", value))
    return "\n".join(texts)


def test_there_is_something_to_find() -> None:
    assert len(quoted()) >= 15


@pytest.mark.parametrize("text", quoted())
def test_a_quoted_message_is_printed(text: str) -> None:
    if dropped := re.fullmatch(r'dropped\["(\w+)"\]', text):
        assert dropped[1] in set(DropReason)
        return
    for piece in re.split(r"…", text):
        if len(piece.strip()) >= LEAST_CHARACTERS:
            assert piece.strip() in printed(), piece
