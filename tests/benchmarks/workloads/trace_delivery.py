"""Figure 14: what is lost of traces under load, and at an exit with a hanging server."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.benchmarks.bench import Bench, settle
from tests.benchmarks.lineup import Lineup, Stage
from tests.benchmarks.markdown import (
    NOTHING,
    Section,
    Table,
    at_most,
    cell_text,
    number,
    value_text,
)
from tests.benchmarks.peers import ENGINE
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.sink import Mode
from tests.benchmarks.workloads.throughput import arrived
from tests.benchmarks.workloads.tracing import TRACERS
from tests.benchmarks.workloads.workload import Commands, Workload

LOAD, EXIT = "load", "exit"
MOST_EXIT_SECONDS = 5.5
"""The deadline of `shutdown_timeout_seconds`, and half a second for the interpreter's own end."""
EXIT_LIMIT_SECONDS = 60.0
_LIMIT_SECONDS = 240.0
_FLUSH_SECONDS = 30.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    load_runs: int
    load_repetitions: int
    exit_runs: int
    tracers_exit: bool
    """Whether the other tracers' exits are measured too, which take half a minute."""


FULL = Size(load_runs=700, load_repetitions=2, exit_runs=50, tracers_exit=True)
QUICK = Size(load_runs=30, load_repetitions=1, exit_runs=5, tracers_exit=False)


# In the measuring process.


def agent_load(bench: Bench, *, count: int, flush: bool) -> Sample:
    """Run the agent again and again, and have everything delivered if it is asked for."""
    from tests.benchmarks.agent import SPANS, agent, question  # others need no LangGraph

    graph = agent(is_async=False)
    asked = question()
    settle()
    begun = time.perf_counter()
    for _ in range(count):
        graph.invoke(asked, bench.config)
    emitted = time.perf_counter()
    if flush:
        bench.flush()
    return {"emitted": count * SPANS, "emit_seconds": emitted - begun}


COMMANDS: Commands = {"agent_load": agent_load}

# In the run.


def run(stage: Stage) -> Cells:
    """Measure; of the peers that were asked for, those that trace."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    stage.sink.mode(Mode.UP)
    peers = (ENGINE, *[peer for peer in TRACERS if peer in stage.peers])
    with stage.lineup(cells, peers=peers) as lineup:
        for _ in range(size.load_repetitions):
            for peer in peers:
                _load(stage, lineup, cells, peer, size.load_runs)
    for peer in peers if size.tracers_exit else (ENGINE,):
        _exit(stage, cells, peer, size.exit_runs)
    stage.sink.mode(Mode.UP)
    return cells


def _load(stage: Stage, lineup: Lineup, cells: Cells, peer: str, count: int) -> None:
    stage.sink.reset()
    sample = lineup.ask(
        peer, LOAD, "agent_load", limit_seconds=_LIMIT_SECONDS, count=count, flush=True
    )
    if sample is None:
        return
    emitted = int(sample["emitted"])
    delivered = arrived(stage, emitted)
    cells.cell(LOAD, peer).samples.append(
        {
            "emitted": emitted,
            "delivered": delivered,
            "lost_percent": 100 * (emitted - delivered) / emitted,
            "spans_per_second": emitted / sample["emit_seconds"],
        }
    )


def _exit(stage: Stage, cells: Cells, peer: str, count: int) -> None:
    """Capture while the sink hangs, return from the main module, and wait for the end."""
    stage.sink.mode(Mode.UP)
    with stage.lineup(cells, peers=[peer], unspoilt=False) as lineup:
        emitted = 0.0
        for mode in (Mode.UP, Mode.HANGING):
            stage.sink.mode(mode)
            done = lineup.ask(
                peer,
                EXIT,
                "agent_load",
                limit_seconds=_FLUSH_SECONDS,
                count=count,
                flush=mode is Mode.UP,
            )
            if done is None:
                return
            emitted = done["emitted"]
        seconds = lineup.child(peer).leave(EXIT_LIMIT_SECONDS)
        sample: Sample = {"spans": emitted}
        if seconds is not None:
            sample["exit_seconds"] = seconds
        cells.cell(EXIT, peer).samples.append(sample)


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    figures = [
        at_most("lost under load", 0, "%", cells.spread(LOAD, ENGINE, "lost_percent")),
        at_most(
            "an exit while the sink hangs",
            MOST_EXIT_SECONDS,
            "s",
            cells.spread(EXIT, ENGINE, "exit_seconds"),
        ),
    ]
    rows = [
        (
            peer,
            value_text(cells, LOAD, peer, "spans_per_second"),
            value_text(cells, LOAD, peer, "lost_percent", "%"),
            _exit_text(cells, peer),
        )
        for peer in cells.peers(LOAD)
    ]
    header = ("peer", "spans/s emitted", "lost", "exit while the sink hangs")
    return Section(
        title="14. Traces under load, and at an exit",
        text=(
            "The agent of section 12 runs again and again, then a flush; what the sink has not got"
            " by then is lost. For the exit, a process runs it while the sink hangs, and returns"
            f" from its main module, without a flush. After {EXIT_LIMIT_SECONDS:.0f} s it is"
            " killed. The relay's deadline is 5 s, its default; half a second is left for the"
            " interpreter's own end."
        ),
        figures=figures,
        tables=[Table("Delivery", header, rows)],
    )


def _exit_text(cells: Cells, peer: str) -> str:
    if peer not in cells.peers(EXIT):
        return NOTHING

    def show() -> str:
        seconds = cells.find(EXIT, peer).values("exit_seconds")
        return f"{number(seconds[0])} s" if seconds else f"not in {EXIT_LIMIT_SECONDS:.0f} s"

    return cell_text(cells, EXIT, peer, show)


WORKLOAD = Workload("trace_delivery", run, section)
