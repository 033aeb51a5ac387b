"""Makes docs/command.md of the command itself: `python -m tests.command_page > docs/command.md`."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass
from typing import Any

from arthur_relay.cli import app as app_module

INTRODUCTION = """\
# The command

For whoever types `arthur-relay`. This page is made from the command's own help, by `python -m
tests.command_page > docs/command.md`, and a test holds it to that.

`pip install 'arthur-relay[daemon]'` brings the command, and `arthur-relay[migrate]` what `migrate`
needs beside it; `arthur-relay --version` works without an extra too. `-h` or `--help` after any
command shows its options and examples.

| exit status | what it means |
|---|---|
| 0 | it did what it was asked to, or the answer is yes |
| 1 | it ran, and the answer is no: something is missing, refused, left or not reachable |
| 2 | misuse: an option, argument, file or setting that can't be used; the sentence says which |
| 130 | Ctrl-C ended it |

Errors are one sentence on standard error. Work that takes long (`dead-letters replay`, `check
--daemon` and `spool list` with large spools, `migrate`, and `serve` when it drains) shows how far
it is, in a line on standard error that is gone at the end. It does so on a terminal only: in a
pipe and in CI there is none, and `serve` logs every few seconds instead how many rows are left.

## Completion

Commands, options and their values are completed by bash, zsh, fish and PowerShell, after

<!-- not run: it writes to the user's home -->
```sh
arthur-relay --install-completion
```

and a new shell. `arthur-relay --show-completion` prints the script instead, for a file of your
own, such as `/etc/bash_completion.d/arthur-relay`.
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A command: what it is typed as, after `arthur-relay`, and what it is."""

    path: list[str]
    command: Any

    @property
    def name(self) -> str:
        return " ".join(["arthur-relay", *self.path])

    @property
    def is_group(self) -> bool:
        return bool(getattr(self.command, "commands", None))

    @property
    def options(self) -> list[Any]:
        return [each for each in self.command.params if each.param_type_name == "option"]

    @property
    def arguments(self) -> list[Any]:
        return [each for each in self.command.params if each.param_type_name == "argument"]


def commands() -> list[Found]:
    """Return all commands in the order of the help, groups before what is in them."""

    def below(path: list[str], command: Any) -> list[Found]:
        found = [Found(path, command)]
        for name, each in getattr(command, "commands", {}).items():
            found += below([*path, name], each)
        return found

    return below([], app_module.command())


def examples_of(found: Found) -> list[str]:
    """Return the examples in a command's help."""
    _, _, lines = (found.command.epilog or "").partition("Examples:\n")
    return [line.strip() for line in lines.splitlines() if line.strip()]


def page() -> str:
    """Return the whole page."""
    introduction = "\n\n".join(map(_unwrapped, INTRODUCTION.split("\n\n")))
    sections = (line for found in commands() for line in _of(found))
    return "\n".join([introduction.rstrip("\n"), "", *sections]).rstrip("\n") + "\n"


def _unwrapped(paragraph: str) -> str:
    """Return a paragraph in one line, as all pages have them."""
    is_text = not paragraph.startswith(("#", "|", "<!--"))
    return " ".join(paragraph.split()) if is_text else paragraph


def _of(found: Found) -> list[str]:
    if not found.path:
        return []
    lines = [f"{'#' * (1 + len(found.path))} {found.name}", ""]
    for paragraph in inspect.cleandoc(found.command.help or "").split("\n\n"):
        lines += [_escaped(" ".join(paragraph.split())), ""]
    if not found.is_group:
        lines += _table(found)
    reason = "<!-- not run: the values are examples -->"
    return [*lines, reason, "```sh", *examples_of(found), "```", ""]


def _table(found: Found) -> list[str]:
    rows = [(f"`{each.metavar or each.name}`", each.help) for each in found.arguments]
    for option in found.options:
        value = "" if option.is_flag else f" {option.metavar}"
        usual = option.default
        shown = f" Default: {usual}." if usual and not option.is_flag else ""
        rows.append(
            (", ".join(f"`{name}{value}`" for name in option.opts), f"{option.help}{shown}")
        )
    if not rows:
        return []
    lines = [f"| {name} | {_escaped(text)} |" for name, text in rows]
    return ["| | |", "|---|---|", *lines, ""]


def _escaped(text: str) -> str:
    return re.sub(r"([*|])", r"\\\1", text)


if __name__ == "__main__":
    sys.stdout.write(page())
