"""Figure 1: what a streamed call costs the caller, and what the handler's methods cost alone."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from itertools import pairwise

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from tests.benchmarks import texts
from tests.benchmarks.bench import Bench, Clocks, settle
from tests.benchmarks.chat_model import MODEL_NAME, FakeChat, history, result_of, short_conversation
from tests.benchmarks.lineup import ROOM, Repetitions, Stage
from tests.benchmarks.markdown import TIMES, Section, Table, at_most, number, ratio_text, value_text
from tests.benchmarks.ratios import paired_ratios, spread
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.workloads.workload import Commands, Workload

NAME = "caller_path"
FIRST_FORM = "stream"
FORMS = {"stream": "stream", "astream": "astream", "crowd": "50 astreams at once"}
CROWD = 50
TOKENS = 200
CLOCKS = {
    "thread_cpu_ms": "CPU of the calling thread",
    "process_cpu_ms": "CPU of the process, delivery included",
    "wall_ms": "wall clock",
}
MESSAGES = 10
MESSAGE_CHARACTERS = 170
METADATA = {
    "ls_provider": "fake",
    "ls_model_name": MODEL_NAME,
    "ls_model_type": "chat",
    "ls_temperature": 0.1,
}
OPTIONS = {"stop": None}
LONGER = 100
"""How many times as long the long texts are."""
SHORT, LONG = "methods, short texts", "methods, long texts"

MOST_RATIO = 1.10
MOST_RUN_MICROSECONDS = 15.0
MOST_TOKEN_MICROSECONDS = 0.3
_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    calls: int
    crowds: int
    repetitions: Repetitions
    runs: int
    method_repetitions: int
    long_runs: int


FULL = Size(
    calls=100,
    crowds=2,
    repetitions=Repetitions(40, 5),
    runs=500,
    method_repetitions=80,
    long_runs=100,
)
QUICK = Size(
    calls=10,
    crowds=1,
    repetitions=Repetitions(2, 1),
    runs=100,
    method_repetitions=3,
    long_runs=20,
)


# In the measuring process.


def calls(bench: Bench, *, form: str, count: int) -> Sample:
    """Make streamed calls and return the cost of one by each clock."""
    tokens = texts.tokens(1, TOKENS)
    messages = short_conversation()
    config = bench.config
    # The crowd takes turns at each token, else its streams would run one after the other.
    model = FakeChat(tokens=tokens, think_seconds=0.0 if form == "crowd" else None)

    async def stream_through() -> None:
        async for _ in model.astream(messages, config):
            pass

    async def one_by_one() -> None:
        for _ in range(count):
            await stream_through()

    async def crowds() -> None:
        for _ in range(count // CROWD):
            await asyncio.gather(*[stream_through() for _ in range(CROWD)])

    settle()
    begun = Clocks.now()
    match form:
        case "stream":
            for _ in range(count):
                for _ in model.stream(messages, config):
                    pass
        case "astream":
            bench.run(one_by_one())
        case _:
            bench.run(crowds())
    ended = Clocks.now()
    bench.flush()
    delivered = Clocks.now()
    return {
        "thread_cpu_ms": (ended.thread - begun.thread) / count * 1e3,
        "process_cpu_ms": (delivered.process - begun.process) / count * 1e3,
        "wall_ms": (ended.wall - begun.wall) / count * 1e3,
    }


def methods(bench: Bench, *, runs: int, longer: int) -> Sample:
    """Call a handler's methods as LangChain does, and return the CPU time of one call of each."""
    [handler] = bench.peer.callbacks
    text = texts.text(2, MESSAGE_CHARACTERS * longer)
    messages = [history(MESSAGES, text)]
    params = {"model": MODEL_NAME, "_type": "fake-chat"}
    chunk = ChatGenerationChunk(message=AIMessageChunk(content="token "))
    tags: list[str] = []
    ids = [uuid.uuid4() for _ in range(runs)]
    results = [result_of(text) for _ in ids]
    clock = time.thread_time
    settle()
    moments = [clock()]
    for run_id in ids:
        handler.on_chat_model_start(
            {},
            messages,
            run_id=run_id,
            parent_run_id=None,
            tags=tags,
            metadata=METADATA,
            invocation_params=params,
            options=OPTIONS,
            name="FakeChat",
        )
    moments.append(clock())
    # The first token of a run is noted, the others are not.
    for _ in range(2):
        for run_id in ids:
            handler.on_llm_new_token(
                "token ", run_id=run_id, parent_run_id=None, tags=tags, chunk=chunk
            )
        moments.append(clock())
    for run_id, result in zip(ids, results, strict=True):
        handler.on_llm_end(result, run_id=run_id, parent_run_id=None, tags=tags)
    moments.append(clock())
    bench.flush()
    start_us, first_us, token_us, end_us = (
        (after - before) / runs * 1e6 for before, after in pairwise(moments)
    )
    return {
        "start_us": start_us,
        "first_token_us": first_us,
        "token_us": token_us,
        "end_us": end_us,
        "run_us": start_us + end_us,
    }


COMMANDS: Commands = {"calls": calls, "methods": methods}

# In the run.


def run(stage: Stage) -> Cells:
    """Measure."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    with stage.lineup(cells) as lineup:
        for form in FORMS:
            lineup.rounds(
                form,
                "calls",
                size.repetitions,
                limit_seconds=_LIMIT_SECONDS,
                form=form,
                count=size.crowds * CROWD if form == "crowd" else size.calls,
            )
    methods_of = [peer for peer in ("pass-inline", "relay") if peer in stage.peers]
    with stage.lineup(cells, peers=methods_of, settings=ROOM) as lineup:
        for case, runs, longer in (
            ("methods", size.runs, 1),
            (SHORT, size.long_runs, 1),
            (LONG, size.long_runs, LONGER),
        ):
            lineup.rounds(
                case,
                "methods",
                Repetitions(size.method_repetitions, 0),
                limit_seconds=_LIMIT_SECONDS,
                runs=runs,
                longer=longer,
            )
    return cells


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    figures = [
        at_most(
            f"{label}: {CLOCKS[metric]}, over the inline `pass` handler's",
            MOST_RATIO,
            TIMES,
            cells.ratio(form, "relay", metric, to="pass-inline"),
        )
        for metric in ("thread_cpu_ms", "process_cpu_ms")
        for form, label in FORMS.items()
    ]
    figures += [
        at_most(
            f"start, end and capture of a run, {MESSAGES} messages of history",
            MOST_RUN_MICROSECONDS,
            "µs",
            cells.spread("methods", "relay", "run_us"),
        ),
        at_most(
            "a token",
            MOST_TOKEN_MICROSECONDS,
            "µs",
            cells.spread("methods", "relay", "token_us"),
        ),
        at_most(
            f"a run with texts {LONGER} times as long, over one with short ones, each over the"
            " inline `pass` handler's of its round",
            MOST_RATIO,
            TIMES,
            spread(paired_ratios(_over_pass(cells, LONG), _over_pass(cells, SHORT))),
        ),
    ]
    tables = [_form_table(cells, metric) for metric in CLOCKS]
    return Section(
        title="1. On the caller's path",
        text=(
            f"A fake chat model without think time streams {TOKENS} tokens a call. Of the methods,"
            " which are called directly, in loops, a token is one after the first."
        ),
        figures=figures,
        tables=[*tables, _method_table(cells)],
    )


def _over_pass(cells: Cells, case: str) -> list[float]:
    """The relay's runs over those of the inline handler, which have no length to depend on."""
    return paired_ratios(
        cells.find(case, "relay").values("run_us"), cells.find(case, "pass-inline").values("run_us")
    )


def _form_table(cells: Cells, metric: str) -> Table:
    rows = []
    for peer in cells.peers("stream"):
        row = [peer]
        for form in FORMS:
            row.append(ratio_text(cells, form, peer, metric, to="pass-inline"))
            if peer == "none":
                row.append(value_text(cells, form, peer, metric, "ms"))
            else:
                row.append(ratio_text(cells, form, peer, metric, to="none"))
        rows.append(tuple(row))
    header = [
        part
        for label in FORMS.values()
        for part in (f"{label}, {TIMES} pass-inline", f"{TIMES} none")
    ]
    return Table(f"{CLOCKS[metric]}, a call", ("peer", *header), rows)


def _method_table(cells: Cells) -> Table:
    cases = ("methods", SHORT, LONG)
    parts = {
        "start_us": "start",
        "end_us": "end and capture",
        "run_us": "start, end and capture",
        "first_token_us": "first token",
        "token_us": "token",
    }
    rows = []
    for case in cases:
        for peer in cells.peers(case):
            row = [f"{peer}, {case}"]
            for metric in parts:
                values = cells.find(case, peer).values(metric)
                least = f", least {number(min(values))}" if values else ""
                row.append(value_text(cells, case, peer, metric) + least)
            rows.append(tuple(row))
    return Table("The methods, µs of CPU of the calling thread", ("", *parts.values()), rows)


WORKLOAD = Workload(NAME, run, section)
