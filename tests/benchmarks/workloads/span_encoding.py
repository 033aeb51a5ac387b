"""Figure 13: what it takes to encode a span, beside OpenTelemetry's own encoder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.bench import Bench, settle
from tests.benchmarks.lineup import Stage
from tests.benchmarks.markdown import TIMES, Section, Table, at_most, ratio_text, value_text
from tests.benchmarks.peers import ENGINE, TASK_ID
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.workloads.tracing import OPENINFERENCE
from tests.benchmarks.workloads.workload import Commands, Workload

CASE = "spans"
MOST_RATIO = 1.0
_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    traces: int
    repetitions: int


FULL = Size(traces=50, repetitions=40)
QUICK = Size(traces=5, repetitions=2)


# In the measuring process.


def encode_rows(bench: Bench, *, traces: int) -> Sample:
    """Encode captured runs as the worker does: from the runs to the bytes of rows."""
    from arthur_relay.destinations.engine.encoder import EngineRowFormat
    from arthur_relay.destinations.engine.task import Task
    from arthur_relay.encoding.omissions import NoOmissions

    encoder = EngineRowFormat().encoder(Task.named(TASK_ID), omissions=NoOmissions(), privacy=None)
    captured = _captured_runs(traces)
    settle()
    begun = time.thread_time()
    rows = [row for run in captured for row in encoder.encode(run, 0)]
    ended = time.thread_time()
    return {
        "encode_us": (ended - begun) / len(rows) * 1e6,
        "bytes": sum(len(row.body) for row in rows) / len(rows),
    }


def encode_spans(bench: Bench, *, traces: int) -> Sample:
    """Encode spans that have ended as OpenTelemetry's exporter does, before it sends them."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode

    spans = _ended_spans(traces)
    settle()
    begun = time.thread_time()
    size = len(encode(spans).SerializeToString())
    ended = time.thread_time()
    return {"encode_us": (ended - begun) / len(spans) * 1e6, "bytes": size / len(spans)}


def _captured_runs(traces: int) -> list[Any]:
    from arthur_relay import ArthurCallbackHandler, Relay
    from arthur_relay.testing import MemoryEngine

    kept: list[Any] = []

    class Keeping(ArthurCallbackHandler):
        """Keeps captured runs instead of handing them to the worker."""

        def _submit(self, run: Any) -> None:
            kept.append(run)

    with Relay(MemoryEngine(), model_id=TASK_ID) as relay:
        _run_agents(traces, [Keeping(relay=relay)])
    return kept


def _ended_spans(traces: int) -> list[Any]:
    from openinference.instrumentation.langchain import LangChainInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        _run_agents(traces, [])
    finally:
        instrumentor.uninstrument()
        provider.shutdown()
    return list(exporter.get_finished_spans())


def _run_agents(traces: int, callbacks: list[Any]) -> None:
    from tests.benchmarks.agent import agent, question  # others need no LangGraph

    graph = agent(is_async=False)
    for _ in range(traces):
        graph.invoke(question(), {"callbacks": callbacks})


COMMANDS: Commands = {"encode_rows": encode_rows, "encode_spans": encode_spans}

# In the run.


def run(stage: Stage) -> Cells:
    """Measure, in processes in which nothing is sent."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    commands = {ENGINE: "encode_rows"}
    if OPENINFERENCE in stage.peers:
        commands[OPENINFERENCE] = "encode_spans"
    with stage.lineup(cells, peers=["none"], unspoilt=False) as lineup:
        for repetition in range(-1, size.repetitions):
            for peer, command in commands.items():
                sample = lineup.ask(
                    "none", CASE, command, limit_seconds=_LIMIT_SECONDS, traces=size.traces
                )
                if sample is None:
                    return cells
                if repetition >= 0:
                    cells.cell(CASE, peer).samples.append(sample)
    return cells


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    figures = []
    if OPENINFERENCE in cells.peers(CASE) or not cells.cases:
        figures.append(
            at_most(
                "encoding a span, over OpenTelemetry's encoder",
                MOST_RATIO,
                TIMES,
                cells.ratio(CASE, ENGINE, "encode_us", to=OPENINFERENCE),
            )
        )
    rows = [
        (
            peer,
            value_text(cells, CASE, peer, "encode_us"),
            ratio_text(cells, CASE, peer, "encode_us", to=OPENINFERENCE),
            value_text(cells, CASE, peer, "bytes"),
        )
        for peer in cells.peers(CASE)
    ]
    header = ("", "µs a span", f"{TIMES} {OPENINFERENCE}", "bytes a span")
    return Section(
        title="13. Encoding spans",
        text=(
            "The spans of the agent's runs of section 12, without delivery. The relay's worker"
            " makes a span of a captured run: it finds the attributes, writes inputs, outputs and"
            " messages as JSON and text, and encodes them. OpenInference's tracer has done all but"
            " the last before a span ends, on the thread of the application; of it, OpenTelemetry's"
            " encoder alone is measured, by which its exporter makes bytes of spans that have"
            " ended."
        ),
        figures=figures,
        tables=[Table("Encoding", header, rows)],
    )


WORKLOAD = Workload("span_encoding", run, section)
