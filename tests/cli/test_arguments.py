"""What can be typed: help with examples, misuse, `-h`, `--version`, and the shell's completion."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import typer

from arthur_relay import cli
from arthur_relay.cli import app as app_module
from arthur_relay.daemon.settings import RoleName
from tests import command_page
from tests.command_page import Found, commands, examples_of
from tests.readme import page

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Run

pytestmark = pytest.mark.one_python

FOUND = commands()
LEAVES = [found for found in FOUND if not found.is_group]
EXAMPLES = [(found, line) for found in FOUND for line in examples_of(found)]
NEEDS = {"migrate": ["."], "dead-letters show": ["id"], "spool adopt": ["0.spool"]}
"""The arguments that a command does not run without."""


def named(found: Found) -> str:
    return found.name


def arguments(found: Found) -> list[str]:
    return [*found.path, *NEEDS.get(" ".join(found.path), [])]


def test_all_commands_are_looked_at() -> None:
    names = {" ".join(found.path) for found in FOUND}
    assert {"", "serve", "check", "dead-letters", "dead-letters replay", "spool adopt"} <= names
    assert len(LEAVES) >= 14


def test_the_page_is_made_from_the_command() -> None:
    assert page("docs/command.md") == command_page.page()


@pytest.mark.parametrize("found", FOUND, ids=named)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_an_example_and_shows_flags_as_flags(found: Found, flag: str, run: Run) -> None:
    result = run(*found.path, flag)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Examples:\n" in result.stdout
    for line in examples_of(found):
        assert f"    {line}\n" in result.stdout, "whole, in a line of its own"
    _, _, options = result.stdout.partition("\nOptions:\n")
    assert not re.search(r"(?i)\bbool(ean)?\b|--no-|<\w", options)
    assert "..." not in re.sub(r"[\]}]\.\.\.", "", result.stdout), "nothing is cut"
    for option in found.options:
        if option.is_flag:
            for name in option.opts:
                assert re.search(rf"{name}(,| {{2,}}|\n)", result.stdout), f"{name} takes no value"
        else:
            assert re.search(rf"{option.opts[0]} [A-Z]", result.stdout), f"{option.opts[0]} VALUE"


@pytest.mark.parametrize(("found", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_an_example_is_one_of_its_command_and_parses(found: Found, line: str) -> None:
    words = shlex.split(line)
    name, path = words[0], words[1 : 1 + len(found.path)]
    assert (name, path) == ("arthur-relay", found.path)
    root: Any = app_module.command()  # made anew, so that it can be changed
    if found.is_group and words[1].startswith("-"):  # an option that does something at once
        assert words[1] in {name for option in found.options for name in option.opts}
        return
    command = root
    for part in words[1:]:
        if part not in getattr(command, "commands", {}):
            break
        command = command.commands[part]
    runs: list[dict[str, Any]] = []
    command.callback = lambda **values: runs.append(values)
    for parameter in command.params:
        parameter.callback = None  # it would read the file
    root.main(words[1:], prog_name=name, standalone_mode=False)
    assert len(runs) == 1


@pytest.mark.parametrize("found", FOUND, ids=named)
def test_a_wrong_option_is_a_misuse(found: Found, run: Run) -> None:
    result = run(*found.path, "--nonsense")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No such option: --nonsense" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("found", LEAVES, ids=named)
def test_a_missing_argument_or_one_too_many_is_a_misuse(found: Found, run: Run) -> None:
    given = arguments(found)
    lacking = given[:-1] if len(given) > len(found.path) else [*given, "too much"]
    result = run(*lacking)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(r"Missing argument|unexpected extra argument", result.stderr)


@pytest.mark.parametrize("found", LEAVES, ids=named)
def test_a_file_that_is_not_there_is_a_misuse(found: Found, run: Run, tmp_path: Path) -> None:
    files = [option for option in found.options if "FILE" in (option.metavar or "")]
    there = tmp_path / "nowhere" / "file"
    for option in files:
        more = ["--daemon"] if found.path == ["check"] else []
        result = run(*arguments(found), *more, option.opts[0], str(there))
        where = result.stdout if found.path == ["check"] else result.stderr  # it is a finding
        assert result.exit_code == 2
        assert str(there) in where
        assert "Traceback" not in result.output


READ_NO_SETTINGS = {"sandbox", "healthcheck", "top", "migrate", "demo"}
"""The demo has settings of its own, for the sandbox that it runs."""


@pytest.mark.parametrize(
    "found", [each for each in LEAVES if each.path[0] not in READ_NO_SETTINGS], ids=named
)
@pytest.mark.parametrize(
    "variable", ["ARTHUR_RELAY_QUEUE_BYTES", "ARTHUR_RELAY_REDACTS"], ids=["value", "name"]
)
def test_a_setting_that_is_not_allowed_is_one_sentence(
    found: Found, variable: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "lots")
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", "/nowhere/at/all")
    result = run(*arguments(found))
    if found.path == ["check"]:  # it is what it looks for: the answer is no
        assert result.exit_code == 1
        assert variable in result.stdout
        return
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("arthur-relay: ")
    assert variable in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_address_that_is_none(run: Run) -> None:
    result = run("top", "--once", "--url", "ftp://nowhere")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--url can't be 'ftp://nowhere'" in result.stderr


@pytest.mark.parametrize(
    "found",
    [each for each in LEAVES if each.path[0] not in {"sandbox", "demo", "migrate"}],
    ids=named,
)
@pytest.mark.parametrize(
    "address", ["tls://ada:{}@broker:x", "tls://ada:p/@{}@broker:4222", "ada:{}@broker:4222"]
)
def test_no_command_shows_the_credentials_in_an_address(
    found: Found, address: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the address can be used or not: a sentence quotes what can't be."""
    given = address.format("canary")
    monkeypatch.setenv("ARTHUR_RELAY_BROKER_URL", given)
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_ROLE", "gateway")
    monkeypatch.setenv("ARTHUR_ENDPOINT_URL", given)
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_LISTEN", given)
    more = ["--daemon"] if found.path in (["check"], ["settings"]) else []
    url = ["--url", given] if found.path[0] in ("healthcheck", "top") else []
    once = ["--once"] if found.path == ["top"] else []
    result = run(*arguments(found), *more, *url, *once)
    assert "canary" not in result.stdout + result.stderr
    assert result.exit_code in (1, 2)


@pytest.mark.parametrize("command", ["top --once", "healthcheck", "spool list", "check"])
def test_ctrl_c_ends_in_a_sentence(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    for name in ("top.run_top", "daemon_client.run_healthcheck", "spool.run_list"):
        monkeypatch.setattr(f"arthur_relay.cli.{name}", interrupt)
    monkeypatch.setattr("arthur_relay.cli.check.run_check", interrupt)
    result = run(*command.split())
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "arthur-relay: interrupted.\n"


def test_the_version_needs_no_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "arthur_relay.cli.app", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.setattr(sys, "argv", ["arthur-relay", "--version"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert re.fullmatch(r"arthur-relay \S+\n", capsys.readouterr().out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_s_completion(
    shell: str, command: tuple[list[str], dict[str, str]]
) -> None:
    program, environment = command
    environment["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    result = subprocess.run(
        [*program, "--show-completion", shell],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "_ARTHUR_RELAY_COMPLETE" in result.stdout
    assert result.stderr == ""


def completed(line: str, run_app: typer.Typer) -> list[str]:
    """Return what bash is offered at the end of a line."""
    from typer.testing import CliRunner

    words = line.split(" ")
    environment = {
        "_ARTHUR_RELAY_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    result = CliRunner().invoke(run_app, [], prog_name="arthur-relay", env=environment)
    return result.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("arthur-relay s", {"sandbox", "serve", "settings", "spool"}),
        ("arthur-relay dead-letters ", {"list", "show", "replay", "purge"}),
        ("arthur-relay serve --m", {"--metrics-listen"}),
        ("arthur-relay serve --role ", {role.value for role in RoleName}),
        ("arthur-relay serve --role w", {"worker"}),
    ],
)
def test_what_a_shell_completes(line: str, offered: set[str]) -> None:
    assert set(completed(line, app_module._app)) == offered
