"""The files that are looked at: which of a directory's, how they are read and written."""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import libcst as cst

from arthur_relay.migration.findings import Finding, Verdict
from arthur_relay.migration.notebooks import NotANotebook, Notebook
from arthur_relay.migration.rewriting import rewrite

_SUFFIXES = frozenset({".py", ".pyi", ".ipynb"})
_SKIPPED = frozenset({"__pycache__", "build", "dist", "node_modules", "site-packages", "venv"})
_WORDS = (b"arthur", b"Arthur")
"""A file that has none of these has nothing of Arthur, and is not parsed."""


class UnreadableError(Exception):
    """A file can't be read, or is not Python."""


class Source:
    """One file, read and looked through.

    Args:
        path: The file.

    Raises:
        UnreadableError: It can't be read, or it names Arthur and is not Python.

    Attributes:
        path: The file.
        findings: In the order of their places.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings: tuple[Finding, ...] = ()
        try:
            self._before = path.read_bytes()
        except OSError as error:
            raise UnreadableError(f"it can't be read ({error.strerror})") from error
        self._after = self._before
        self._notebook: Notebook | None = None
        self._is_writable = True
        if any(word in self._before for word in _WORDS):
            self._look()

    def _look(self) -> None:
        try:
            if self.path.suffix == ".ipynb":
                self._look_at_notebook()
            else:
                found = rewrite(self._before)
                self._after, self.findings = found.code, tuple(found.findings)
        except NotANotebook as error:
            raise UnreadableError(str(error)) from error
        except cst.ParserSyntaxError as error:
            raise UnreadableError(
                f"it is not Python that can be read: {self.place_of_line(error.raw_line)}"
            ) from error
        except (UnicodeDecodeError, SyntaxError) as error:  # an encoding that there isn't
            raise UnreadableError(f"its encoding can't be read ({error})") from error
        except RecursionError as error:
            raise UnreadableError("its expressions are nested too deep") from error

    def _look_at_notebook(self) -> None:
        notebook = self._notebook = Notebook(self._before.decode())
        before = notebook.source
        found = rewrite(before.encode())
        self.findings = tuple(found.findings)
        after = found.code.decode()
        if after != before:
            self._after = notebook.with_source(after).encode()

    @property
    def is_changed(self) -> bool:
        """Whether something is certain."""
        return self._after != self._before

    def count(self, verdict: Verdict) -> int:
        """Return how many findings there are of a kind."""
        return sum(finding.verdict is verdict for finding in self.findings)

    def place_of_line(self, line: int) -> str:
        """Return a line's place, in a notebook that of its cell."""
        if self._notebook is None:
            return f"line {line}"
        place = self._notebook.place(line)
        return f"cell {place.cell}, line {place.line}"

    def diff(self) -> Iterator[str]:
        """Return what is certain as a unified diff, without ends of lines."""
        before, after = (
            [Notebook(text.decode()).shown for text in (self._before, self._after)]
            if self._notebook is not None
            else [cst.parse_module(code).code for code in (self._before, self._after)]
        )
        yield from difflib.unified_diff(
            before.splitlines(), after.splitlines(), str(self.path), str(self.path), lineterm=""
        )

    def write(self) -> None:
        """Write what is certain; the file is replaced at once, with its permissions.

        Raises:
            OSError: It can't be written, or has changed since it was read.
        """
        path = self.path.resolve()
        if path.read_bytes() != self._before:
            raise OSError("it has changed since it was read")
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._after)
            shutil.copymode(path, name)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """Return the Python files and notebooks of some files and directories, each once.

    A file that is named is taken whatever its name ends in. In directories, links, hidden
    directories, virtual environments and what others have built are left out.
    """
    seen: set[Path] = set()
    for path in paths:
        for file in [path] if path.is_file() else _walk(path):
            resolved = file.resolve()
            if resolved not in seen:
                seen.add(resolved)
                yield file


def _walk(directory: Path) -> Iterator[Path]:
    for root, directories, files in os.walk(directory):
        here = Path(root)
        directories[:] = sorted(
            name
            for name in directories
            if not name.startswith(".")
            and name not in _SKIPPED
            and not (here / name / "pyvenv.cfg").exists()
        )
        for name in sorted(files):
            file = here / name
            if file.suffix in _SUFFIXES and not file.is_symlink():
                yield file
