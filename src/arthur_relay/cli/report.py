"""What a check has found, line by line, and how it is printed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from arthur_relay.settings.credential_files import secrets_in
from arthur_relay.system.terminal import printable

_STYLES = {"✓": "bold green", "✗": "bold red", "!": "bold yellow", "-": "dim"}

MIN_SECRET_LENGTH = 4
"""Shorter secrets can't be told from words."""


@dataclass(slots=True)
class Report:
    """The checks that were made, in order.

    Attributes:
        secrets: What must not be shown, whatever a message quotes.
        checks: Of each its mark, its subject and one sentence.
        is_disabled: Whether the settings say that nothing is to be captured: then what does not
            work is a warning, as a start goes on all the same.
        problems: How many things do not work.
    """

    secrets: tuple[str, ...] = ()
    checks: list[tuple[str, str, str]] = field(default_factory=list)
    is_disabled: bool = False
    problems: int = 0

    def fine(self, subject: str, sentence: str) -> None:
        """Note something that works."""
        self._add("✓", subject, sentence)

    def wrong(self, subject: str, sentence: str) -> None:
        """Note something that does not."""
        self.problems += 1
        self._add("!" if self.is_disabled else "✗", subject, sentence)

    def warn(self, subject: str, sentence: str) -> None:
        """Note something that works, but likely not as it was meant."""
        self._add("!", subject, sentence)

    def note(self, subject: str, sentence: str) -> None:
        """Note something that was not checked, or is good to know."""
        self._add("-", subject, sentence)

    def count(self, mark: str) -> int:
        """Return how many checks have a mark."""
        return sum(found == mark for found, _, _ in self.checks)

    def _add(self, mark: str, subject: str, sentence: str) -> None:
        for secret in self.secrets:
            sentence = _without(sentence, secret)
        sentence = printable(sentence)  # it may quote Arthur, a file, or whatever was set
        self.checks.append((mark, subject, sentence))

    def show(self, title: str) -> None:
        """Print what was found, under a title."""
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"{title}\n")
        if console.is_terminal:
            console.print(table(self), soft_wrap=False)
            return
        for mark, subject, sentence in self.checks:  # one line each, for those that search in it
            print(f" {mark}  {subject:<11}  {sentence}")
        print()

    def conclude(self, sentence: str, style: str) -> None:
        """Print the last line."""
        warnings = self.count("!")
        counted = f" ({warnings} warning{'' if warnings == 1 else 's'})" if warnings else ""
        Console(highlight=False, soft_wrap=True).print(Text(f"{sentence}{counted}.", style))


def _without(sentence: str, secret: str) -> str:
    """Return a sentence without a secret, where that stands as a word of its own.

    Within another word it is no secret that is quoted; nor is a text of one to three characters,
    which is more often a word of the sentence.
    """
    if len(secret) < MIN_SECRET_LENGTH:
        return sentence
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", "***", sentence)


def table(report: Report) -> Padding:
    """Return what was found as a table for a terminal."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for mark, subject, sentence in report.checks:
        # As Text, so that no bracket in a message is taken for markup.
        style = "dim" if mark == "-" else "bold"
        table.add_row(Text(mark, _STYLES[mark]), Text(subject, style), Text(sentence))
    return Padding(table, (0, 0, 1, 1))


def secrets() -> tuple[str, ...]:
    """Return the secrets of the environment and its files, which no message may quote."""
    addresses = [os.environ.get(name, "") for name in ("ARTHUR_ENDPOINT_URL", "ARTHUR_BASE_URL")]
    in_addresses = [re.search(r":([^:@/]+)@", address) for address in addresses]
    named = secrets_in(os.environ)
    found = (*named, *(match[1] for match in in_addresses if match))
    return tuple(secret for secret in found if secret)
