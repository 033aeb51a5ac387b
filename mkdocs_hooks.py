"""What MkDocs does beyond mkdocs.yml, so that pages are the same in the repository and in the site.

In the repository they link to files all over it. In the site a file that the nav names is a page, a
picture is copied, and every other file is a link to the repository. Headings have the names, and
lists the indentation, that they have in the repository. A public name leads to the reference.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit
from xml.etree.ElementTree import Element

from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown import Markdown
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

TOP: Final = Path(__file__).resolve().parent
PICTURES: Final = frozenset({".gif", ".jpg", ".jpeg", ".png", ".svg"})
LINKS: Final = {"a": "href", "img": "src"}
NOT_LINKED: Final = frozenset({"a", "autoref", "h1", "h2", "h3", "h4", "h5", "h6", "pre"})

# Below MkDocs's own logger, so that `--strict` counts the warnings.
logger = logging.getLogger("mkdocs.hooks.arthur_relay")

_CODE_SPACES = 4
_FENCE = re.compile(r"`{3,}|~{3,}")
_ITEM = re.compile(r"(?:[-*+]|\d+\.) +")
_DOCUMENTED = re.compile(r"^::: (arthur_relay\.[\w.]+)$", re.MULTILINE)
_NAME = re.compile(r"(?:arthur_relay\.)?([A-Z]\w+)((?:\.[a-z]\w+)?)(?:\(\))?")
_LOADED = re.compile(
    r"<(?:link|script|img|iframe|source)\b[^>]*?\b(?:href|src)=\"?((?:https?:)?//[^\"\s>]+)"
)


class RepositoryLinks(Extension):  # type: ignore[misc]  # Markdown has no types
    """Resolves a page's links as the repository has them.

    Attributes:
        page: The page that is rendered now.
    """

    def __init__(self, config: MkDocsConfig) -> None:
        super().__init__()
        self.page: Page | None = None
        self._config = config
        self._files: Files | None = None
        self._by_path: dict[Path, File] = {}
        self._documented: dict[str, str] = {}

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - Markdown's name
        """Come before MkDocs's own processor of links, whose priority is 0."""
        md.treeprocessors.register(_Resolver(self), "repository_links", 1)

    def take(self, files: Files) -> None:
        """Add what the nav names outside of docs/, and learn what the reference documents."""
        self._files = files
        self._by_path = {Path(file.abs_src_path): file for file in files if file.abs_src_path}
        for uri in _pages(self._config.nav):
            if files.get_file_from_path(uri) is None and (TOP / uri).is_file():
                self._add(uri)
        for file in files.documentation_pages():
            for found in _DOCUMENTED.findall(file.content_string):
                self._documented[found.rpartition(".")[2]] = found

    def resolve(self, url: str) -> str:
        """Return a link of the page as MkDocs understands it, or as a browser does."""
        parts = urlsplit(url)
        if self.page is None or parts.scheme or parts.netloc or not parts.path:
            return url
        here = self.page.file
        there = Path(posixpath.normpath(Path(here.abs_src_path or "").parent / unquote(parts.path)))
        if not there.is_relative_to(TOP) or not there.exists():
            return url  # MkDocs says so
        anchor = f"#{parts.fragment}" if parts.fragment else ""
        uri = there.relative_to(TOP).as_posix()
        if there not in self._by_path and there.suffix in PICTURES:
            self._add(uri)
        if there in self._by_path:
            found = self._by_path[there].src_uri
            return quote(posixpath.relpath(found, posixpath.dirname(here.src_uri) or ".")) + anchor
        kind = "tree" if there.is_dir() else "blob"
        return f"{self._config.extra['repository']}/{kind}/main/{quote(uri)}{anchor}"

    def documented(self, code: str) -> str | None:
        """Return what the reference documents under a name, or None."""
        found = _NAME.fullmatch(code)
        return (
            self._documented[found[1]] + found[2]
            if found and found[1] in self._documented
            else None
        )

    def _add(self, uri: str) -> None:
        assert self._files is not None
        config = self._config
        file = File(uri, str(TOP), config.site_dir, config.use_directory_urls)
        self._files.append(file)
        self._by_path[TOP / uri] = file


class _Resolver(Treeprocessor):  # type: ignore[misc]  # Markdown has no types
    def __init__(self, links: RepositoryLinks) -> None:
        super().__init__()
        self._links = links

    def run(self, root: Element) -> None:
        for element in root.iter():
            name = LINKS.get(element.tag)
            url = None if name is None else element.get(name)
            if name is not None and url is not None:
                element.set(name, self._links.resolve(url))
        self._refer(root)

    def _refer(self, parent: Element) -> None:
        """Have the names of the reference lead there."""
        for index, each in enumerate(parent):
            if each.tag in NOT_LINKED:
                continue
            found = self._links.documented(each.text or "") if each.tag == "code" else None
            if found is None:
                self._refer(each)
                continue
            # What the plug-in of the reference makes a link of; of a name without an entry, none.
            link = Element("autoref", {"identifier": found, "optional": "optional"})
            link.tail, each.tail = each.tail, None
            parent[index] = link
            link.append(each)


def _pages(nav: Any) -> Iterator[str]:
    """Yield the files that a nav names, as mkdocs.yml has it."""
    match nav:
        case str():
            yield nav
        case list():
            for each in nav:
                yield from _pages(each)
        case dict():
            yield from _pages(list(nav.values()))


def indented_by_four(markdown: str) -> str:
    """Return a page with four spaces for each level of a list.

    Elsewhere what belongs to an item begins where its text does, or up to three spaces later;
    Python's Markdown takes less than four spaces for no indentation at all.
    """
    lines = []
    starts: list[int] = []  # where the texts of the items around a line begin
    fence, start = "", 0  # the block of code around a line, and where it begins
    for line in markdown.splitlines():
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        if not fence and text:
            while starts and indent < starts[-1]:
                starts.pop()
            start = starts[-1] if starts else 0
            if indent - start < _CODE_SPACES:
                start = indent
        lines.append(" " * (4 * len(starts) + max(0, indent - start)) + text if text else "")
        if fence:
            fence = "" if text.rstrip() == fence else fence
        elif opening := _FENCE.match(text):
            fence = opening[0]
        elif item := _ITEM.match(text):
            starts.append(indent + item.end())
    return "\n".join(lines) + "\n"


def heading_name(heading: str, separator: str = "-") -> str:
    """Return the name by which a heading can be linked to, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


_links: RepositoryLinks | None = None


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Have Markdown resolve links and name headings."""
    global _links  # noqa: PLW0603 - MkDocs calls functions, one build after the other
    _links = RepositoryLinks(config)
    extensions: list[Any] = config.markdown_extensions  # Markdown takes objects beside names
    extensions.append(_links)
    config.mdx_configs["toc"]["slugify"] = heading_name
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:  # noqa: ARG001 - MkDocs's arguments
    """Add the pages from outside of docs/."""
    assert _links is not None
    _links.take(files)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Remember whose links come next, and indent lists as Python's Markdown wants it."""
    assert _links is not None
    _links.page = page
    return indented_by_four(markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Warn of a page that asks another host for something when it is opened."""
    for url in _LOADED.findall(output):
        logger.warning("%s is loaded from another host: %s", page.file.src_uri, url)
    return output
