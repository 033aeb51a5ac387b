"""`arthur-relay migrate`: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arthur_relay.cli import main
from tests.readme import command, commands_of

if TYPE_CHECKING:
    from .conftest import Run

pytestmark = pytest.mark.one_python

OLD = "from langchain.callbacks import ArthurCallbackHandler\n"
NEW = "from arthur_relay import ArthurCallbackHandler\n"
DECIDE = "arthur_model.send_inferences(rows)\n"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "app.py"


def test_what_is_certain_is_shown_and_not_written(app: Path, run: Run) -> None:
    app.write_text(OLD)
    ended = run("migrate", ".")
    assert ended.exit_code == 1, ended.output
    assert "app.py:1: change: import ArthurCallbackHandler from arthur_relay" in ended.stdout
    assert f"-{OLD}+{NEW}" in ended.stdout
    assert "Certain: 1, in 1 files; --write changes them." in ended.stdout
    assert app.read_text() == OLD


def test_write_changes_what_is_certain_after_it_was_shown(app: Path, run: Run) -> None:
    app.write_text(OLD)
    ended = run("migrate", "--write", "app.py")
    assert ended.exit_code == 0
    assert f"+{NEW}" in ended.stdout
    assert app.read_text() == NEW
    again = run("migrate", ".")
    assert again.exit_code == 0
    assert "Nothing is left to change." in again.stdout


def test_what_a_person_has_to_decide_is_left(app: Path, run: Run) -> None:
    app.write_text(OLD + DECIDE)
    ended = run("migrate", "--write", ".")
    assert ended.exit_code == 1, ended.output
    assert "app.py:2: decide: send_inferences" in ended.stdout
    assert "Yours to decide: 1" in ended.stdout
    assert app.read_text() == NEW + DECIDE


def test_a_file_that_can_not_be_read_costs_no_other(app: Path, run: Run) -> None:
    app.write_text(OLD)
    app.with_name("old.py").write_text(OLD + "print 'x'\n")
    ended = run("migrate", "--write", ".")
    assert ended.exit_code == 2
    assert ended.stderr == "arthur-relay: old.py: it is not Python that can be read: line 2\n"
    assert app.read_text() == NEW


def test_a_path_that_is_not_there_is_misuse(app: Path, run: Run) -> None:
    ended = run("migrate", "nowhere")
    assert ended.exit_code == 2
    assert ended.stderr == "arthur-relay: There is no nowhere.\n"


def test_a_missing_extra_is_one_line(
    app: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(sys.modules):
        if name.startswith(("arthur_relay.migration", "arthur_relay.cli.migrate", "libcst.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "libcst", None)
    monkeypatch.setattr(sys, "argv", ["arthur-relay", "migrate", "."])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("run pip install 'arthur-relay[migrate]'.\n")


def test_the_command_of_the_page(app: Path, run: Run) -> None:
    install, migrate = commands_of(command("migrate", "docs/migration.md"))
    assert install[:2] == ["pip", "install"]
    _, _, source, notes = migrate
    (app.parent / source).mkdir()
    (app.parent / source / "app.py").write_text(OLD)
    path = app.parent / notes
    path.parent.mkdir()
    cell: dict[str, object] = {
        "cell_type": "code",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    cells = [cell | {"source": [OLD]}]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(notebook, indent=1) + "\n")  # as Jupyter does
    ended = run(*migrate[1:])
    assert ended.exit_code == 1, ended.output
    assert "Certain: 2, in 2 files" in ended.stdout
