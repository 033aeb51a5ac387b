"""The report: what was measured where, a summary, and a section for each workload; pure."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.markdown import TIMES, Table, cell_text, number, spread_text, value_text
from tests.benchmarks.peers import LEAST
from tests.benchmarks.results import Cells, Results
from tests.benchmarks.workloads import WORKLOADS, caller_path, fleet, throughput

REMAINING_COST = Path(__file__).with_name("remaining_cost.md")
"""Written by hand: why the rest can't go is not to be read off a table."""

HOW_TO_READ = (
    "A number is the median of its repetitions; in brackets are the spread, which is the range of"
    " the middle half in percent of the median, and the number of repetitions. A ratio is the"
    " median of the rounds' own ratios: the peers take their turn in each round, each in a process"
    " of its own, all against one local sink in another process. Who is not judged is measured"
    " less often. A figure that is missed by less than its median may be off by (the notch of a box"
    " plot, 1.57 interquartile ranges over the root of the repetitions) is within the noise."
)
QUICK = "This is the quick form: it shows that the benchmark works. Trust no number."


def render(results: Results, *, plot: str | None, plot_missing: str | None) -> str:
    """The report in Markdown.

    Args:
        results: What was measured.
        plot: The plot's file, relative to the report, if there is one.
        plot_missing: Why there is none.
    """
    lines = ["# The cost of arthur-relay, beside its peers", ""]
    lines += [f"- {name}: {value}" for name, value in results.facts.items()]
    lines += ["", HOW_TO_READ, ""]
    if results.quick:
        lines += [QUICK, ""]
    # A run of the fleet alone has no peers: nothing to sum up, and nothing of them to explain.
    has_peers = results.workloads.keys() != {fleet.NAME}
    if has_peers:
        lines += ["## Summary", "", *_summary(results).lines()]
    if plot is not None and has_peers:
        lines += [f"![Throughput and cost as the load grows]({plot})", ""]
    elif plot_missing is not None and has_peers:
        lines += [f"There is no plot: {plot_missing}.", ""]
    for name, cells in results.workloads.items():
        lines += WORKLOADS[name].section(cells).lines()
    if REMAINING_COST.exists() and has_peers:
        text = REMAINING_COST.read_text(encoding="utf-8")
        lines += ["## What the remaining cost is", "", text]
    return "\n".join(lines).rstrip() + "\n"


def _summary(results: Results) -> Table:
    """The issue's table: a row for each peer."""
    calls = results.workloads.get(caller_path.NAME, Cells())
    invokes = results.workloads.get(throughput.NAME, Cells())
    peers = dict.fromkeys([*calls.peers(caller_path.FIRST_FORM), *invokes.peers(throughput.CASE)])
    peers.pop(LEAST, None)  # nothing that anyone can use
    rows = [
        (
            peer,
            *[_times_none(calls, form, peer) for form in caller_path.FORMS],
            value_text(invokes, throughput.CASE, peer, "emitted_per_second"),
            value_text(invokes, throughput.CASE, peer, "delivered_per_second"),
            value_text(invokes, throughput.CASE, peer, "cpu_seconds_per_1000"),
            value_text(invokes, throughput.CASE, peer, "lost_percent", "%"),
        )
        for peer in peers
    ]
    header = (
        "peer",
        *caller_path.FORMS.values(),
        "invokes emitted/s",
        "delivered/s",
        "CPU s per 1,000",
        "lost",
    )
    return Table(f"CPU of the process for a call, {TIMES} no handler; short invokes", header, rows)


def _times_none(calls: Cells, form: str, peer: str) -> str:
    metric = "process_cpu_ms"

    def show() -> str:
        if peer == "none":
            return f"1.00 = {spread_text(calls.spread(form, peer, metric), 'ms')}"
        ratio = calls.ratio(form, peer, metric, to="none")
        return "not measured" if ratio is None else number(ratio.median)

    return cell_text(calls, form, peer, show)
