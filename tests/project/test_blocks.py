"""Every fenced block of every page is run by a test, or says beside it why it can't be.

What is not run is read all the same: Python is compiled, data parsed, a shell's syntax checked, and
each command of ours is parsed by its own parser.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import importlib
import json
import re
import shlex
import subprocess
import tomllib
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import yaml

from arthur_relay.cli.app import command as _command
from tests.readme import NOT_RUN, ROOT, Block, blocks, blocks_of, commands_of, page, pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.one_python

PAGES = [*pages(), "deploy/README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]

PAGE_OF = {"tests.readme": "README.md", "tests.deploy.readme": "deploy/README.md"}
"""By the module of `example` and `command`, the page that they take without being told one."""

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


def complaint(block: Block, taken: Mapping[tuple[str, str, str], object]) -> str | None:
    """Return what is wrong with the mark before a block, if anything is."""
    begin = f"{block.path}, the block that begins with {block.text[:60]!r}"
    if not block.language:
        return f"{begin} names no language after its fence"
    if not block.kind:
        return f"{begin} needs a comment before it: an example's or a command's name, or {NOT_RUN}"
    if block.kind == NOT_RUN:
        return None if len(block.value.split()) > 2 else f"{begin} has no reason for not being run"
    if (block.path, block.kind, block.value) not in taken:
        return f"{begin} is named {block.value!r}, and no test takes {block.kind}({block.value!r})"
    return None


@cache
def takers() -> dict[tuple[str, str, str], list[str]]:
    """Return by page, kind and name which tests take a block."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "readme import" not in text:
            continue
        for block in taken_in(text, path):
            found.setdefault(block, []).append(path.relative_to(ROOT).as_posix())
    return found


def taken_in(text: str, path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the blocks that a module of tests takes, each by its page, its kind and its name."""
    tree = ast.parse(text)
    known: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(ROOT).parts[: -node.level]) if node.level else ""
            module = ".".join(filter(None, (package, node.module)))
            if module in PAGE_OF:
                known |= {
                    each.asname or each.name: (each.name, PAGE_OF[module])
                    for each in node.names
                    if each.name in {"example", "command"}
                }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
            kind, default = known[node.func.id]
            given = [each.value for each in node.args if isinstance(each, ast.Constant)]
            assert len(given) == len(node.args), f"{path}:{node.lineno} needs literals"
            name, where = [*given, default][:2]
            yield str(where), kind, str(name)


@pytest.mark.parametrize("path", PAGES)
def test_every_block_is_run_or_says_why_not(path: str) -> None:
    taken = takers()
    assert not [told for block in blocks(path) if (told := complaint(block, taken))]


def test_every_block_that_a_test_takes_is_there_once() -> None:
    named = Counter((each.path, each.kind, each.value) for path in PAGES for each in blocks(path))
    for block, tests in takers().items():
        assert named[block] == 1, (block, tests)


@pytest.mark.parametrize("path", PAGES)
def test_every_fence_and_every_mark_belongs_to_a_block(path: str) -> None:
    text = page(path)
    assert len(re.findall(r"^ *(?:```|~~~)", text, re.MULTILINE)) == 2 * len(blocks(path))
    marks = re.findall(r"<!-- (?:example|command|not run)\b", text)
    assert len(marks) == sum(1 for each in blocks(path) if each.kind)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```sh\nls\n```\n", "needs a comment"),
        ("<!-- not run: no -->\n```sh\nls\n```\n", "no reason"),
        ("<!-- command: none -->\n```sh\nls\n```\n", "no test takes command('none')"),
        ("<!-- command: taken -->\n\n```sh\nls\n```\n", "needs a comment"),
        ("<!-- command: taken -->\n```\nls\n```\n", "no language"),
        ("   <!-- command: taken -->\n   ```sh\n   ls\n   ```\n", None),
        ("<!-- not run: needs a cluster -->\n```sh\nls\n```\n", None),
    ],
)
def test_the_rule_itself(text: str, told: str | None) -> None:
    (block,) = blocks_of(text, "page.md")
    assert block.text == "ls\n"
    found = complaint(block, {("page.md", "command", "taken"): []})
    assert found is None if told is None else told in str(found)


def test_takers_are_found() -> None:
    text = "from .readme import command\nfrom tests.readme import example as it\n"
    text += "command('a'); it('b', 'c.md'); other.command('d')"
    found = set(taken_in(text, ROOT / "tests" / "deploy" / "test_it.py"))
    assert found == {("deploy/README.md", "command", "a"), ("c.md", "example", "b")}


def read_ini(text: str) -> None:
    configparser.ConfigParser(interpolation=None).read_string(text)


READERS: dict[str, Callable[[str], object]] = {
    "python": lambda text: compile(text, "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT),
    "yaml": yaml.safe_load,
    "toml": tomllib.loads,
    "json": json.loads,
    "ini": read_ini,
    "text": str,
    "sh": str,  # below, all at once
}


@pytest.mark.parametrize("path", PAGES)
def test_every_block_can_be_read(path: str) -> None:
    for block in blocks(path):
        READERS[block.language](block.text)


def scripts() -> Iterator[tuple[str, str]]:
    """Yield each block of a shell, and what the examples say of how to run them; with its place."""
    for path in PAGES:
        yield from ((path, each.text) for each in blocks(path) if each.language == "sh")
    for file in sorted((ROOT / "docs" / "examples").rglob("*.py")):
        told = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        yield file.name, "\n".join(re.findall(r"^    (.*)$", told, re.MULTILINE))
    notebook = json.loads(page("docs/examples/notebook.ipynb"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for block in blocks_of("".join(cell["source"]), "notebook.ipynb"):
                yield block.path, block.text


def test_a_shell_understands_every_script() -> None:
    script = "\n".join(f"# {path}\n{text}" for path, text in scripts())
    done = subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_words_of_commands() -> None:
    script = "sudo -u me env A=1 \\\n  /opt/x/arthur-relay top --once | cat && B=2 ls 'a b' # no"
    top = ["/opt/x/arthur-relay", "top", "--once"]
    assert list(commands_of(script)) == [top, ["cat"], ["ls", "a b"]]


def parse(words: list[str]) -> None:
    """Have the command's own parser parse words, and run nothing.

    Raises:
        Exception: There is no such command, no such option, or an argument is missing.
    """
    command: Any = _command()
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    if words == ["--help"]:
        return
    if hasattr(command, "commands"):  # a group's options end the process at once
        assert set(words) <= {name for each in command.params for name in each.opts}, words
        return
    for parameter in command.params:
        parameter.callback = None  # a file that is named is not read
    command.make_context(command.name, words)


@pytest.mark.parametrize(
    ("path", "script"),
    [pytest.param(*each, id=f"{number}-{each[0]}") for number, each in enumerate(scripts())],
)
def test_every_command_of_ours_can_be_typed(path: str, script: str) -> None:
    for words in commands_of(script):
        if words[0].rpartition("/")[2] == "arthur-relay":
            parse(words[1:])
        if words[:2] == ["pip", "install"]:
            for extras in re.findall(r"\[([a-z,]+)\]", " ".join(words)):
                assert set(extras.split(",")) <= EXTRAS.keys(), path


INLINE = re.compile(r"`(?:[A-Z_]+=\S+ )*arthur-relay ([^`]+)`")


@pytest.mark.parametrize("path", PAGES)
def test_every_command_of_ours_in_a_sentence_can_be_typed(path: str) -> None:
    for given in INLINE.findall(page(path)):
        # `[--option VALUE]` may be left out, … stands for more, and `a | b` for either.
        words = shlex.split(re.sub(r"[\[\]]|…|\|.*", "", given))
        try:
            parse(words)
        except Exception:  # noqa: BLE001 - as below; a sentence may name an option without its value
            parse([*words, "1"])


@pytest.mark.parametrize(
    "words",
    [
        ["serv"],
        ["serve", "--rolle", "worker"],
        ["dead-letters", "show"],
        ["top", "--interval", "x"],
    ],
)
def test_a_wrong_command_is_told(words: list[str]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - Typer's own click has no public names
        parse(words)


class ParsedError(Exception):
    """Ends a module's `main` once it has parsed what it was given."""


def test_every_module_that_is_run_takes_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_end(parser: argparse.ArgumentParser) -> NoReturn:
        parse_args(parser)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    seen = 0
    for path, script in scripts():
        for words in commands_of(script):
            runs_module = words[0].endswith(("python", "python3")) and words[1] == "-m"
            if not runs_module or not words[2].startswith("tests."):
                continue
            seen += 1
            try:
                module = importlib.import_module(f"{words[2]}.__main__")
            except ModuleNotFoundError:
                module = importlib.import_module(words[2])
            monkeypatch.setattr("sys.argv", [words[2], *words[3:]])
            with pytest.raises(ParsedError):
                module.main()
            assert path
    assert seen > 4


def test_every_extra_that_is_installed_exists() -> None:
    seen = 0
    for path in PAGES:
        for extras in re.findall(r"(?:arthur-relay|'\.)\[([a-z,]+)\]", page(path)):
            assert set(extras.split(",")) <= EXTRAS.keys(), (path, extras)
            seen += 1
    assert seen > 10


def extra_of(command: str) -> str:
    return "migrate" if command.startswith("migrate") else "daemon"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_says_what_to_install_before_its_first_command(path: str) -> None:
    """Without an extra, `arthur-relay` is a command that can only say which one to install."""
    for block in blocks(path):
        if block.language != "sh":
            continue
        before = page(path).partition(block.text.splitlines()[0].strip())[0] + block.text
        for words in commands_of(block.text):
            if words[0] == "arthur-relay":
                assert re.search(rf"\[[a-z,]*{extra_of(words[1])}[a-z,]*\]", before), (path, words)


def test_the_readme_says_what_to_install_before_it_names_a_command() -> None:
    text = page("README.md")
    for found in INLINE.finditer(text):
        before = text[: found.start()]
        extra = extra_of(found[1])
        assert re.search(rf"\[[a-z,]*{extra}[a-z,]*\]", before), found[0]
