"""How far long work is: shown on a terminal, gone at the end, and nowhere else."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from arthur_relay.cli.progress import files_looked_at, progress

pytestmark = pytest.mark.one_python


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def watched(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Have standard error be a terminal. Within a test: pytest sets its own before each."""
    found = Screen()
    monkeypatch.setattr(sys, "stderr", found)
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return found


def test_a_terminal_sees_counts_and_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = watched(monkeypatch)
    paths = [Path(str(number)) for number in range(3)]
    assert list(files_looked_at(paths)) == paths
    shown = screen.getvalue()
    assert "of 3 files looked at" in shown
    assert shown.endswith("\x1b[2K"), "the line is taken away"


def test_without_an_end_the_count_alone_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = watched(monkeypatch)
    with progress("files looked at") as done:
        done(1500)
    assert "1,500 files looked at" in screen.getvalue()


@pytest.mark.parametrize("variables", [{"CI": "true"}, {"TERM": "dumb"}])
def test_nobody_watches_there(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    screen = watched(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    list(files_looked_at([Path("a")]))
    assert screen.getvalue() == ""


def test_a_pipe_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    list(files_looked_at([Path("a")]))
    assert pipe.getvalue() == ""
