"""The entry point: help, version, and an environment without the extra."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

import pytest

from arthur_relay import cli
from arthur_relay.cli import app as app_module
from arthur_relay.cli import main

if TYPE_CHECKING:
    from .conftest import Run


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_a_missing_extra_is_one_line(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(sys.modules):
        if name.startswith(("arthur_relay.cli.", f"{package}.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys, "argv", ["arthur-relay", "check"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "pip install 'arthur-relay[daemon]'" in told


def test_a_missing_package_of_another_kind_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ModuleNotFoundError("No module named 'other'", name="other")

    monkeypatch.setattr(app_module, "run", broken)
    with pytest.raises(ModuleNotFoundError, match="other"):
        main()


def test_main_runs_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["arthur-relay", "check"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "✗" in capsys.readouterr().out


def test_a_terminal_without_check_marks_gets_question_marks(
    command: tuple[list[str], dict[str, str]],
) -> None:
    arguments, environment = command
    environment["PYTHONIOENCODING"] = "ascii"
    found = subprocess.run(
        [*arguments, "check"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.returncode, found.stderr) == (1, "")
    assert " ?  Model" in found.stdout


def test_help_names_the_commands(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in ("sandbox", "check", "demo"):
        assert name in result.output


@pytest.mark.parametrize("installed", [True, False])
def test_version(run: Run, monkeypatch: pytest.MonkeyPatch, *, installed: bool) -> None:
    def version(name: str) -> str:
        if installed:
            return "1.2.3"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(cli, "version", version)
    result = run("--version")
    assert result.exit_code == 0
    assert result.output == f"arthur-relay {'1.2.3' if installed else 'unknown'}\n"
