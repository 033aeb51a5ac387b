"""The pages lead to each other: every link and anchor resolves, and the README stays short."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.readme import ROOT, page, pages

pytestmark = pytest.mark.one_python

README_BYTES = 8_000
"""What does not fit belongs on a page of docs/."""

LINKED = [
    *pages(),
    "deploy/README.md",
    "tests/broker/faults.md",
    "tests/end_to_end/faults.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]

NOT_FOR_SOMEBODY = {"README.md", "CHANGELOG.md"}
"""The first is for everybody, the second is a list."""

MAX_FOR_WHOM_CHARACTERS = 200

_FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(<?([^)\s>]+)>?[^)]*\)")
_LINKED = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")


def prose(path: str) -> str:
    """A page without its blocks of code, in which no link is one."""
    return _FENCED.sub("", page(path))


@cache
def anchors(path: str) -> frozenset[str]:
    """The names by which a page's headings can be linked to, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+?)\s*$", prose(path), re.MULTILINE):
        text = _LINKED.sub(r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        name, number = slug, 0
        while name in found:
            number += 1
            name = f"{slug}-{number}"
        found.add(name)
    return frozenset(found)


def links(path: str) -> list[tuple[str, str]]:
    """A page's links within the repository: the path from the top, and the anchor or ""."""
    found = []
    for target in _LINK.findall(_CODE.sub("code", prose(path))):
        if _ELSEWHERE.match(target):
            continue
        file, _, anchor = target.partition("#")
        there = (ROOT / path).parent / unquote(file) if file else ROOT / path
        resolved = there.resolve()
        assert resolved.is_relative_to(ROOT.resolve()), f"{path} links out of the tree: {target}"
        found.append((resolved.relative_to(ROOT.resolve()).as_posix(), anchor))
    return found


@pytest.mark.parametrize("path", LINKED)
def test_every_link_leads_somewhere(path: str) -> None:
    for file, anchor in links(path):
        assert (ROOT / file).exists(), f"{path} links to {file}, which is not there"
        if anchor:
            assert Path(file).suffix == ".md", f"{path} links to a heading of {file}"
            assert anchor in anchors(file), f"{path} links to {file}#{anchor}, which is not there"


def test_links_are_found() -> None:
    assert ("docs/usage.md", "without-langchain") in links("README.md")
    assert ("tests/benchmarks/report/figure.svg", "") in links("docs/performance.md")


def test_the_readme_is_short() -> None:
    assert len(page("README.md").encode()) <= README_BYTES


@pytest.mark.parametrize("path", [path for path in LINKED if path not in NOT_FOR_SOMEBODY])
def test_a_page_says_first_whom_it_is_for(path: str) -> None:
    found = re.match(r"# [^\n]+\n\n(For [^.:]+)[.:]\s", _LINKED.sub(r"\1", page(path)))
    assert found is not None, f"{path} begins with something else than its title and `For …`"
    assert len(found[1]) <= MAX_FOR_WHOM_CHARACTERS, found[1]


def test_every_page_is_linked_from_the_start() -> None:
    found = {file for start in ("README.md", "docs/README.md") for file, _ in links(start)}
    assert set(pages()) <= found
