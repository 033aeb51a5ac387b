"""How the demo ends: is anything missing, and how did the stream fare?"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from arthur_relay.cli.demo.recording import Pace, Recording
    from arthur_relay.stats import Stats


class Verdict(NamedTuple):
    """The last line, and whether everything is there."""

    line: str
    is_complete: bool


def judge(stats: Stats, *, answers: int, turns: int, stored: int | None) -> Verdict:
    """Say whether every run of the model was captured, delivered and stored.

    Args:
        stats: The relay's counts at the end.
        answers: How many turns were asked of the model.
        turns: How many should have been; fewer were when the model failed.
        stored: How many inferences Arthur has; None when it can't be looked at.
    """
    equation = f"captured {stats.captured} = delivered {stats.delivered}"
    there = stats.delivered if stored is None else min(stats.delivered, stored)
    if answers == stats.captured == there:
        if answers < turns:
            return Verdict(f"{equation}, but the model failed.", is_complete=False)
        return Verdict(f"{equation}: nothing is missing.", is_complete=True)
    losses = {
        "not captured": answers - stats.captured,
        "pending": stats.pending,
        "rejected": stats.rejected,
        "dropped": sum(stats.dropped.values()),
        "not stored": 0 if stored is None else max(0, stats.delivered - stored),
    }
    told = ", ".join(f"{count} {name}" for name, count in losses.items() if count)
    equation = f"asked {answers}, captured {stats.captured}, delivered {stats.delivered}"
    return Verdict(f"{equation}: {answers - there} missing ({told}).", is_complete=False)


def pace_table(recording: Recording) -> Table:
    """Return the tokens' pace with and without Arthur, beside each other."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for title in ("tokens", "tokens/s", "longest pause"):
        table.add_column(title, justify="right")
    table.add_row("Arthur there", *_cells(recording.there))
    if recording.outage_seconds:
        table.add_row("Arthur away", *_cells(recording.away), style="bold")
    return table


def story(recording: Recording, stats: Stats) -> Text | None:
    """Tell what the outage did, in a sentence or two; None when there was none."""
    if not recording.outage_seconds:
        return None
    waited = recording.most_pending
    waiters = f"{waited} inference{'' if waited == 1 else 's'}"
    away = f"Arthur was away for {recording.outage_seconds:.1f} s."
    lines = [f"{away} The stream did not wait; up to {waiters} did."]
    recovery = recording.recovery_seconds()
    if recovery is not None:
        # To the tenth of a second, which is how often samples are taken.
        lines.append(f"{max(recovery, 0.1):.1f} s after it was back, all that waited had arrived.")
    lines.append(f"Requests made again meanwhile: {stats.retries}.")
    return Text("\n".join(lines))


def _cells(pace: Pace) -> tuple[str, str, str]:
    if not pace.tokens:
        return "0", "-", "-"
    return (
        f"{pace.tokens}",
        f"{pace.per_second:.1f}",
        f"{pace.longest_pause_seconds * 1000:.0f} ms",
    )
