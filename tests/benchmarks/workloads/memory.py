"""Figure 5: memory through an outage, what is kept of it, and whether anything grows."""

from __future__ import annotations

import gc
import uuid
from dataclasses import dataclass

from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk

from tests.benchmarks.bench import Bench, forget_peak, peak_mib, resident_mib
from tests.benchmarks.chat_model import FakeChat, result_of
from tests.benchmarks.inferences import pair
from tests.benchmarks.lineup import Lineup, Stage
from tests.benchmarks.markdown import (
    Section,
    Table,
    at_least,
    at_most,
    value_text,
)
from tests.benchmarks.ratios import Spread
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.sink import Mode
from tests.benchmarks.workloads.throughput import arrived
from tests.benchmarks.workloads.workload import Commands, Workload

OUTAGE = "outage"
RUNS = "runs"
TOKENS = "tokens"
MOST_MIB = 64.0
MOST_GROWTH_MIB = 4.0
"""What the allocator may make of it; the smallest leak, a pointer a run or token, is 6 MiB."""

_FLUSH_SECONDS = 180.0
_LIMIT_SECONDS = 600.0
_BACKLOG_SETTLE_SECONDS = 10.0
_RUNS_BETWEEN_FLUSHES = 2_000


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    warm_up_records: int
    records: int
    runs: int
    abandoned_runs: int
    tokens: int


FULL = Size(
    warm_up_records=1_000,
    records=60_000,
    runs=1_000_000,
    abandoned_runs=10_000,
    tokens=1_000_000,
)
QUICK = Size(warm_up_records=100, records=500, runs=20_000, abandoned_runs=200, tokens=20_000)


# In the measuring process.


def converse(bench: Bench, *, first: int, count: int) -> Sample:
    """Make calls whose prompt and answer are 2 KB of text, of which no two are alike."""
    model = FakeChat()
    config = bench.config
    for seed in range(first, first + count):
        prompt, model.answer = pair(seed)
        model.invoke([HumanMessage(content=prompt)], config)
    return {}


def memory(bench: Bench, *, forget: bool) -> Sample:
    """What this process holds now, and held at most since it was told to forget that."""
    gc.collect()
    found = {"resident_mib": resident_mib(), "peak_mib": peak_mib()}
    if forget:
        forget_peak()
    return found


def drive(bench: Bench, *, runs: int, abandoned: int) -> Sample:
    """Drive a handler through runs, of which the first ones to be abandoned never end."""
    [handler] = bench.peer.callbacks
    captured = handler.relay.stats().captured
    prompt, answer = pair(0)
    messages = [[HumanMessage(content=prompt)]]
    chunk = ChatGenerationChunk(message=AIMessageChunk(content="token "))
    result = result_of(answer)
    for number in range(runs):
        run_id = uuid.uuid4()
        handler.on_chat_model_start({}, messages, run_id=run_id, metadata={"session": "one"})
        handler.on_llm_new_token("token ", run_id=run_id, chunk=chunk)
        if number >= abandoned:
            handler.on_llm_end(result, run_id=run_id)
        # At full speed the queue would overflow, which is another matter.
        if number % _RUNS_BETWEEN_FLUSHES == 0:
            bench.flush()
    bench.flush()
    gc.collect()
    # Among them are runs that were abandoned and have made room for others.
    captured = handler.relay.stats().captured - captured
    return {"resident_mib": resident_mib(), "emitted": captured}


def stream_tokens(bench: Bench, *, tokens: int) -> Sample:
    """Hand the tokens of one endless run to a handler, and return what it kept of them."""
    [handler] = bench.peer.callbacks
    run_id = uuid.uuid4()
    prompt, _ = pair(0)
    handler.on_chat_model_start({}, [[HumanMessage(content=prompt)]], run_id=run_id)
    gc.collect()
    before = resident_mib()
    for number in range(tokens):
        text = f"{number} "
        chunk = ChatGenerationChunk(message=AIMessageChunk(content=text))
        handler.on_llm_new_token(text, run_id=run_id, chunk=chunk)
    gc.collect()
    return {"growth_mib": resident_mib() - before}


COMMANDS: Commands = {
    "converse": converse,
    "memory": memory,
    "drive": drive,
    "stream_tokens": stream_tokens,
}

# In the run.


def run(stage: Stage) -> Cells:
    """Measure. Peers take their turn once: memory does not have the machine's moods."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    for peer in stage.peers:
        stage.sink.mode(Mode.UP)
        with stage.lineup(cells, peers=[peer]) as lineup:
            sample = _outage(stage, lineup, peer, size)
            if sample is not None:
                cells.cell(OUTAGE, peer).samples.append(sample)
    stage.sink.mode(Mode.UP)
    with stage.lineup(cells, peers=["relay"]) as lineup:
        sample = _growth(stage, lineup, size)
        if sample is not None:
            cells.cell(RUNS, "relay").samples.append(sample)
        lineup.measure(
            "relay", TOKENS, "stream_tokens", limit_seconds=_LIMIT_SECONDS, tokens=size.tokens
        )
    return cells


def _outage(stage: Stage, lineup: Lineup, peer: str, size: Size) -> Sample | None:
    """Refuse everything for a while, then take it again."""

    def ask(command: str, **arguments: object) -> Sample | None:
        return lineup.ask(peer, OUTAGE, command, limit_seconds=_LIMIT_SECONDS, **arguments)

    ask("converse", first=0, count=size.warm_up_records)
    ask("flush", flush_seconds=_FLUSH_SECONDS)
    idle = ask("memory", forget=True)
    stage.sink.mode(Mode.REFUSING)
    ask("converse", first=size.warm_up_records, count=size.records)
    outage = ask("memory", forget=False)
    stage.sink.reset()
    stage.sink.mode(Mode.UP)
    ask("flush", flush_seconds=_FLUSH_SECONDS)
    after = ask("memory", forget=False)
    if idle is None or outage is None or after is None:
        return None
    found = {
        "idle_mib": idle["resident_mib"],
        "outage_mib": outage["peak_mib"] - idle["resident_mib"],
        "peak_mib": after["peak_mib"] - idle["resident_mib"],
        "records": size.records,
    }
    if lineup.delivers(peer):
        settle_seconds = 0.0 if stage.quick else _BACKLOG_SETTLE_SECONDS
        found["kept"] = arrived(stage, size.records, settle_seconds=settle_seconds)
    return found


def _growth(stage: Stage, lineup: Lineup, size: Size) -> Sample | None:
    """Drive runs; those to be abandoned are all open at the first mark, where growth begins."""
    marks = []
    stage.sink.reset()
    for runs, abandoned in (
        (size.runs // 5, size.abandoned_runs),
        (size.runs - size.runs // 5, 0),
    ):
        sample = lineup.ask(
            "relay", RUNS, "drive", limit_seconds=_LIMIT_SECONDS, runs=runs, abandoned=abandoned
        )
        if sample is None:
            return None
        marks.append(sample)
    return {
        "runs": size.runs,
        "abandoned_runs": size.abandoned_runs,
        "growth_mib": marks[1]["resident_mib"] - marks[0]["resident_mib"],
        "emitted": sum(mark["emitted"] for mark in marks),
        "delivered": stage.sink.counts().records,
    }


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    others = [
        kept
        for peer in cells.peers(OUTAGE)
        if peer != "relay"
        for kept in cells.find(OUTAGE, peer).values("kept")
    ]
    figures = [
        at_most(
            "resident memory above idle, at the peak of the outage and of what follows",
            MOST_MIB,
            "MiB",
            cells.spread(OUTAGE, "relay", "peak_mib"),
        ),
        at_least(
            "records kept through the outage (demanded: as many as the best peer keeps)",
            max(others, default=0),
            "records",
            cells.spread(OUTAGE, "relay", "kept"),
        ),
        at_most(
            _runs_text(cells.spread(RUNS, "relay", "runs")),
            MOST_GROWTH_MIB,
            "MiB",
            cells.spread(RUNS, "relay", "growth_mib"),
        ),
        at_most(
            "growth over the tokens of one run",
            MOST_GROWTH_MIB,
            "MiB",
            cells.spread(TOKENS, "relay", "growth_mib"),
        ),
    ]
    rows = [
        (
            peer,
            value_text(cells, OUTAGE, peer, "idle_mib", "MiB"),
            value_text(cells, OUTAGE, peer, "outage_mib", "MiB"),
            value_text(cells, OUTAGE, peer, "peak_mib", "MiB"),
            value_text(cells, OUTAGE, peer, "kept"),
        )
        for peer in cells.peers(OUTAGE)
    ]
    records = max(
        (
            count
            for peer in cells.peers(OUTAGE)
            for count in cells.find(OUTAGE, peer).values("records")
        ),
        default=0,
    )
    header = ("peer", "idle", "+ in the outage", "+ until all is delivered", "records kept")
    return Section(
        title="5. Memory",
        text=(
            f"Through an outage in which every connection is refused, {records:,.0f} `invoke`s with"
            " 2 KB of prompt and answer are made: phrases of real prose, no two alike. Then the"
            " sink is up again, and a flush has"
            f" {_FLUSH_SECONDS:.0f} s. Memory is the resident set of the process, above what it"
            " is after a warm-up; `none` is what the calls themselves take."
        ),
        figures=figures,
        tables=[Table(f"{records:,.0f} records of 2 KB while refused", header, rows)],
    )


def _runs_text(runs: Spread | None) -> str:
    if runs is None:
        return "growth over many runs"
    return (
        f"growth from a fifth of {runs.median:,.0f} runs to their end; one in a hundred of all"
        " never ended, and these came first"
    )


WORKLOAD = Workload("memory", run, section)
