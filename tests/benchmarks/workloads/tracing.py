"""Figure 12: what traces for Arthur Engine cost the caller and the process."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.bench import Bench, Clocks, settle
from tests.benchmarks.lineup import ROOM, Repetitions, Stage
from tests.benchmarks.markdown import (
    TIMES,
    Figure,
    Section,
    Table,
    at_most,
    cell_text,
    ratio_text,
    spread_text,
    value_text,
)
from tests.benchmarks.peers import ENGINE, ENGINE_LLM
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.workloads.caller_path import CLOCKS, CROWD, FORMS
from tests.benchmarks.workloads.workload import Commands, Workload

AGENTS = {"invoke": "an agent's run, `invoke`", "ainvoke": "an agent's run, `ainvoke`"}
PASS = "pass-inline"
LANGSMITH, OPENINFERENCE = "langsmith", "openinference"
TRACERS = (LANGSMITH, OPENINFERENCE)

MOST_CALL_RATIO = 1.10
MOST_THREAD_RATIOS = {OPENINFERENCE: 0.30, LANGSMITH: 0.6}
MOST_PROCESS_RATIOS = {OPENINFERENCE: 0.4}
_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    calls: int
    crowds: int
    call_repetitions: int
    agents: int
    agent_repetitions: int


FULL = Size(calls=50, crowds=1, call_repetitions=24, agents=30, agent_repetitions=16)
QUICK = Size(calls=10, crowds=1, call_repetitions=2, agents=4, agent_repetitions=2)


# In the measuring process.


def agents(bench: Bench, *, form: str, count: int) -> Sample:
    """Run an agent and return the cost of a run by each clock."""
    from tests.benchmarks.agent import agent, question  # others need no LangGraph

    config = bench.config
    graph = agent(is_async=form == "ainvoke")
    asked = question()

    async def one_by_one() -> None:
        for _ in range(count):
            await graph.ainvoke(asked, config)

    settle()
    begun = Clocks.now()
    if form == "ainvoke":
        bench.run(one_by_one())
    else:
        for _ in range(count):
            graph.invoke(asked, config)
    ended = Clocks.now()
    bench.flush()
    delivered = Clocks.now()
    return {
        "thread_cpu_ms": (ended.thread - begun.thread) / count * 1e3,
        "process_cpu_ms": (delivered.process - begun.process) / count * 1e3,
        "wall_ms": (ended.wall - begun.wall) / count * 1e3,
    }


COMMANDS: Commands = {"agents": agents}

# In the run.


def run(stage: Stage) -> Cells:
    """Measure; of the peers that were asked for, those that trace."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    with stage.lineup(cells, peers=("none", PASS, ENGINE_LLM), settings=ROOM) as lineup:
        for form in FORMS:
            lineup.rounds(
                form,
                "calls",
                Repetitions(size.call_repetitions, size.call_repetitions),
                limit_seconds=_LIMIT_SECONDS,
                form=form,
                count=size.crowds * CROWD if form == "crowd" else size.calls,
            )
    peers = ("none", PASS, ENGINE, *[peer for peer in TRACERS if peer in stage.peers])
    with stage.lineup(cells, peers=peers, settings=ROOM) as lineup:
        for form in AGENTS:
            lineup.rounds(
                form,
                "agents",
                Repetitions(size.agent_repetitions, size.agent_repetitions),
                limit_seconds=_LIMIT_SECONDS,
                form=form,
                count=size.agents,
            )
    return cells


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    figures = [
        at_most(
            f"{label}: {CLOCKS['thread_cpu_ms']}, over the inline `pass` handler's",
            MOST_CALL_RATIO,
            TIMES,
            cells.ratio(form, ENGINE_LLM, "thread_cpu_ms", to=PASS),
        )
        for form, label in FORMS.items()
    ]
    for metric, limits in (
        ("thread_cpu_ms", MOST_THREAD_RATIOS),
        ("process_cpu_ms", MOST_PROCESS_RATIOS),
    ):
        figures += [
            _above(cells, form, metric, peer, most)
            for peer, most in limits.items()
            for form in AGENTS
            if peer in cells.peers(form) or not cells.cases
        ]
    return Section(
        title="12. Traces to Arthur Engine",
        text=(
            f"`{ENGINE_LLM}` is the relay that `from_engine` makes with `trace = llm`, in the calls"
            f" of section 1; `{ENGINE}` is that with `trace = full`, in runs of a LangGraph agent"
            " of three model calls and two tools: 14 spans. The models and tools answer at once,"
            " on the thread that calls the agent. LangSmith's and OpenInference's tracers make the"
            " same spans of the same runs. What a peer costs is what it takes above no handler."
        ),
        figures=figures,
        tables=[_call_table(cells), *[_agent_table(cells, metric) for metric in CLOCKS]],
    )


def _above(cells: Cells, form: str, metric: str, peer: str, most: float) -> Figure:
    return at_most(
        f"{AGENTS[form]}: {CLOCKS[metric]}, above no handler, over {peer}'s",
        most,
        TIMES,
        cells.ratio_above(form, ENGINE, metric, to=peer),
    )


def _call_table(cells: Cells) -> Table:
    rows = []
    for peer in cells.peers(next(iter(FORMS))):
        row = [peer]
        for form in FORMS:
            row += [
                ratio_text(cells, form, peer, metric, to=PASS)
                for metric in ("thread_cpu_ms", "process_cpu_ms")
            ]
        rows.append(tuple(row))
    header = [
        part
        for label in FORMS.values()
        for part in (f"{label}, calling thread", f"{label}, process")
    ]
    return Table(f"CPU of a streamed call, {TIMES} {PASS}", ("peer", *header), rows)


def _agent_table(cells: Cells, metric: str) -> Table:
    rows = []
    for peer in cells.peers("invoke"):
        row = [peer]
        for form in AGENTS:
            row.append(value_text(cells, form, peer, metric, "ms"))
            row.append(_cost_text(cells, form, peer, metric))
        rows.append(tuple(row))
    header = [part for form in AGENTS for part in (f"`{form}`", "above none")]
    return Table(f"{CLOCKS[metric]}, a run of the agent", ("peer", *header), rows)


def _cost_text(cells: Cells, form: str, peer: str, metric: str) -> str:
    def show() -> str:
        return spread_text(cells.difference(form, peer, metric, to="none"), "ms")

    return cell_text(cells, form, peer, show)


WORKLOAD = Workload("tracing", run, section)
