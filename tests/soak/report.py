"""The outcome of a soak in Markdown; pure."""

from __future__ import annotations

from collections.abc import Mapping

from tests.soak.faults import Kind
from tests.soak.verdict import GIVEN_UP, KILLED, LOST, MIB, Verdict


def report(
    verdict: Verdict,
    *,
    seconds: float,
    rate: float,
    seed: int,
    sabotaged: Mapping[str, str] | None = None,
) -> str:
    """Tell what was found, and the numbers.

    Args:
        verdict: What was found.
        seconds: How long was captured.
        rate: Inferences a second.
        seed: Of what was drawn.
        sabotaged: What was broken on purpose: the id of the row, by what was done to it.
    """
    requests = sum(verdict.requests.values())
    faults = ", ".join(
        f"{verdict.requests[kind]} {kind}" for kind in Kind if kind in verdict.requests
    )
    twice = ", ".join(f"{verdict.duplicates[why]}: {why}" for why in (LOST, KILLED, GIVEN_UP))
    resident, spool = (
        f"{before / MIB:.1f} MiB before, {most / MIB:.1f} MiB at most, {after / MIB:.1f} MiB after"
        for before, most, after in (verdict.resident, verdict.spool)
    )
    numbers = {
        "Captured": f"{verdict.captured}, of which the spool accepted {verdict.accepted};"
        f" {verdict.arrived} arrived",
        "Killed": f"{verdict.kills} times, with {verdict.left} rows in the spool in all;"
        f" {verdict.unsafe} rows ended with the process before the spool had them, captured"
        f" {verdict.unsafe_seconds:.2f} s before the kill at most",
        "Requests with rows": f"{requests} ({faults})",
        "Rows stored once more": f"{sum(verdict.duplicates.values())} ({twice})",
        "Requests between an answer and a kill that found its rows in the spool": (
            f"{verdict.late_requests} at most"
        ),
        "Memory of the process": resident,
        "Files of the spool": spool,
    }
    if sabotaged:
        numbers["On purpose"] = ", ".join(f"{done} {row_id}" for done, row_id in sabotaged.items())
    lines = [
        f"# Soak: {'kept' if verdict.kept else 'NOT kept'}",
        "",
        f"`python -m tests.soak --seconds {seconds:g} --rate {rate:g} --seed {seed}`",
        "",
        *(f"- **{finding}**" for finding in verdict.findings()),
        *(f"- {name}: {value}." for name, value in numbers.items()),
        "",
    ]
    return "\n".join(lines)
