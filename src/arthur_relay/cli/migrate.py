"""`arthur-relay migrate`: what to change in a program that uses the old handler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from arthur_relay.cli import fail
from arthur_relay.cli.progress import progress
from arthur_relay.migration.findings import Verdict
from arthur_relay.migration.sources import Source, UnreadableError, files_in
from arthur_relay.system.terminal import printable

_STYLES = {Verdict.CHANGE: "bold green", Verdict.DECIDE: "bold yellow", Verdict.NOTE: "dim"}
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def run_migrate(paths: Sequence[Path], *, write: bool) -> None:
    """Print what is found in files and directories, and with `write` change what is certain.

    Raises:
        typer.Exit: With 1 when something is left to do, with 2 when a path is not there, or a file
            can't be read or written.
    """
    for path in paths:
        if not path.exists():
            fail(f"There is no {path}.", code=2)
    sources, failed, looked_at = _look_through(paths)
    console = Console(highlight=False, soft_wrap=True)
    for source in sources:
        _print_findings(console, source)
    changed = [source for source in sources if source.is_changed]
    for source in changed:
        _print_diff(console, source)
    written = 0
    for source in changed if write else ():
        try:
            source.write()
            written += 1
        except OSError as error:
            failed.append(f"{source.path}: it can't be written ({error.strerror or error})")
    for sentence in failed:
        typer.echo(f"arthur-relay: {printable(sentence)}", err=True)
    left = _print_end(sources, looked_at, changed=len(changed), written=written)
    if failed:
        raise typer.Exit(2)
    if left:
        raise typer.Exit(1)


def _look_through(paths: Sequence[Path]) -> tuple[list[Source], list[str], int]:
    """Return the files in which something was found, those that can't be read, and their number."""
    sources, failed, looked_at = [], [], 0
    with progress("files looked at") as done:
        for path in files_in(paths):
            looked_at += 1
            try:
                source = Source(path)
            except UnreadableError as error:
                failed.append(f"{path}: {error}")
            else:
                if source.findings:
                    sources.append(source)
            done(1)
    return sources, failed, looked_at


def _print_findings(console: Console, source: Source) -> None:
    for finding in source.findings:
        place = source.place_of_line(finding.line).removeprefix("line ")
        console.print(
            Text.assemble(
                f"{printable(str(source.path))}:{place}: ",
                (finding.verdict, _STYLES[finding.verdict]),
                f": {printable(finding.sentence)}",
            )
        )


def _print_diff(console: Console, source: Source) -> None:
    console.print()
    for line in source.diff():
        console.print(Text(printable(line), _DIFF_STYLES.get(line[:1], "")))


def _print_end(sources: Sequence[Source], looked_at: int, *, changed: int, written: int) -> int:
    """Print what is left to do, and return how many things that are."""
    changes = sum(source.count(Verdict.CHANGE) for source in sources)
    decisions = sum(source.count(Verdict.DECIDE) for source in sources)
    print(f"\nFiles looked at: {looked_at}")
    if not changes and not decisions:
        print("Nothing is left to change.")
        return 0
    if changes and written:
        print(f"Files changed: {written} of {changed}")
    elif changes:
        print(f"Certain: {changes}, in {changed} files; --write changes them.")
    if decisions:
        print(f"Yours to decide: {decisions}")
    return decisions + (0 if written == changed else changes)
