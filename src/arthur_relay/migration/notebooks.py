"""Notebooks as one source: their cells one after the other, and back.

What one cell defines another uses, so that they can only be understood together. A notebook is
written as Jupyter writes it, or not at all: nothing but the lines that change may change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_CELL = "# arthur-relay: cell {}"
_CELL_LINE = re.compile(r"# arthur-relay: cell (\d+)\n?")
_MAGIC = "pass  # arthur-relay: magic "
_MAGIC_LINE = re.compile(rf"^\s*{re.escape(_MAGIC)}")
_IS_MAGIC = re.compile(r"^\s*(?:(?:[\w, ]+=\s*)?(?:%{1,2}[A-Za-z]|![^=])|\?|[\w.]+\?{1,2}\s*$)")
_PYTHON_CELLS = ("%%capture", "%%prun", "%%time", "%%timeit")
"""Magics of a cell whose other lines are Python."""


class NotANotebook(Exception):  # noqa: N818 - it says what is wrong
    """A file is not a notebook that can be read, or written again as it was."""


@dataclass(frozen=True)
class Place:
    """Where a line of the source stands in its notebook; both count from 1."""

    cell: int
    line: int


class Notebook:
    """A notebook and its cells of Python.

    Args:
        text: The file's content.

    Raises:
        NotANotebook: It is none.
    """

    def __init__(self, text: str) -> None:
        try:
            self._document = json.loads(text)
            cells = self._document["cells"]
            self._cells = {
                number: _lines(cell["source"])
                for number, cell in enumerate(cells, start=1)
                if cell["cell_type"] == "code" and _is_python(_lines(cell["source"]))
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotANotebook(f"it is no notebook ({error})") from error
        self._form = _form_of(text, self._document)

    @property
    def source(self) -> str:
        """The cells as one module: a comment, then the cell's lines, with magics as comments."""
        return "".join(
            f"{_CELL.format(number)}\n{''.join(_without_magics(lines))}\n"
            for number, lines in self._cells.items()
        )

    @property
    def shown(self) -> str:
        """The cells as one text for people: a comment with each one's number, then its lines."""
        return "".join(
            f"# cell {number}\n{''.join(lines)}\n" for number, lines in self._cells.items()
        )

    def place(self, line: int) -> Place:
        """Return where a line of `source` stands."""
        at = 1
        for number, lines in self._cells.items():
            length = "".join(lines).count("\n") + 2
            if line < at + length:
                return Place(number, max(1, line - at))
            at += length
        return Place(0, 0)

    def with_source(self, source: str) -> str:
        """Return the notebook's text with the lines of a changed `source`.

        Raises:
            NotANotebook: It can't be written as it was.
        """
        if self._form is None:
            raise NotANotebook("it is not written as Jupyter writes notebooks; change it by hand")
        for number, text in _split(source):
            cell = self._document["cells"][number - 1]
            if text != "".join(self._cells[number]):
                is_text = isinstance(cell["source"], str)
                cell["source"] = text if is_text else text.splitlines(keepends=True)
        return _dump(self._document, *self._form)


def _lines(source: Any) -> Sequence[str]:
    return source.splitlines(keepends=True) if isinstance(source, str) else [*source]


def _is_python(lines: Sequence[str]) -> bool:
    first = next((line.strip() for line in lines if line.strip()), "")
    return not first.startswith("%%") or first.startswith(_PYTHON_CELLS)


def _without_magics(lines: Sequence[str]) -> Iterator[str]:
    """Return lines with each magic, and the lines that it goes on in, behind a comment."""
    indentation, goes_on = "", False
    for line in lines:
        if not goes_on and not _IS_MAGIC.match(line):
            yield line
            continue
        if not goes_on:
            indentation = line[: len(line) - len(line.lstrip(" \t"))]
        yield f"{indentation}{_MAGIC}{line}"
        goes_on = line.rstrip().endswith("\\")


def _show_magic(line: str) -> str:
    return _MAGIC_LINE.sub("", line)


def _split(source: str) -> Iterator[tuple[int, str]]:
    parts = _CELL_LINE.split(source)
    numbers, texts = parts[1::2], parts[2::2]
    # What a change put before the first cell's comment belongs into the first cell.
    texts[:1] = [parts[0] + texts[0]] if texts else []
    for number, text in zip(numbers, texts, strict=True):
        shown = "".join(map(_show_magic, text.removesuffix("\n").splitlines(keepends=True)))
        yield int(number), shown


_FORMS = tuple(
    (indent, is_ascii, end)
    for indent in (1, 2, 4)
    for is_ascii in (False, True)
    for end in ("\n", "")
)


def _form_of(text: str, document: Any) -> tuple[int, bool, str] | None:
    """Return the form in which a notebook is written, or None when it is none that is known."""
    return next((form for form in _FORMS if _dump(document, *form) == text), None)


def _dump(document: Any, indent: int, is_ascii: bool, end: str) -> str:  # noqa: FBT001 - a form
    return json.dumps(document, indent=indent, ensure_ascii=is_ascii) + end
