"""Figure 13: what it takes to encode a span, beside OpenTelemetry's own encoder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.bench import Bench, settle
from tests.benchmarks.lineup import Stage
from tests.benchmarks.markdown import (
    NOTHING,
    TIMES,
    Section,
    Table,
    at_most,
    ratio_text,
    value_text,
)
from tests.benchmarks.peers import ENGINE, TASK_ID
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.workloads.tracing import OPENINFERENCE
from tests.benchmarks.workloads.workload import Commands, Workload

CASE = "spans"
BYTES = f"{ENGINE}, of known attributes"
MOST_RATIO = 1.0
_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    traces: int
    repetitions: int


FULL = Size(traces=20, repetitions=24)
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


def write_rows(bench: Bench, *, traces: int) -> Sample:
    """Write rows of spans whose attributes are known: what OpenTelemetry's encoder does."""
    from arthur_relay.destinations.engine import span_bytes
    from arthur_relay.destinations.engine.attributes import RunAttributes, SpanTexts
    from arthur_relay.destinations.engine.hiding import Hiding
    from arthur_relay.destinations.engine.rows import row_body
    from arthur_relay.destinations.engine.task import Task
    from arthur_relay.encoding.omissions import NoOmissions

    attributes = RunAttributes(SpanTexts(None, Hiding(), NoOmissions()))
    spans = [
        span_bytes.SpanFields(
            trace_id=run.trace.trace_id,
            span_id=run.run_id.bytes[8:],
            parent_span_id=run.trace.parent_span_id,
            name=run.name,
            start=1,
            end=2,
            attributes=attributes.of(run),
        )
        for run in _captured_runs(traces)
    ]
    resource, scope = Task.named(TASK_ID).resource(), span_bytes.scope_bytes()
    settle()
    begun = time.thread_time()
    rows = [row_body(resource, scope, span_bytes.span_bytes(span)) for span in spans]
    ended = time.thread_time()
    return {
        "encode_us": (ended - begun) / len(rows) * 1e6,
        "bytes": sum(map(len, rows)) / len(rows),
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


COMMANDS: Commands = {
    "encode_rows": encode_rows,
    "write_rows": write_rows,
    "encode_spans": encode_spans,
}

# In the run.


def run(stage: Stage) -> Cells:
    """Measure, in processes in which nothing is sent."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    commands = {ENGINE: "encode_rows", BYTES: "write_rows"}
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
    is_compared = OPENINFERENCE in cells.peers(CASE)
    if is_compared or not cells.cases:
        figures = [
            at_most(
                f"{what}, over OpenTelemetry's encoder",
                MOST_RATIO,
                TIMES,
                cells.ratio(CASE, peer, "encode_us", to=OPENINFERENCE),
            )
            for what, peer in (
                ("encoding a span of known attributes", BYTES),
                ("encoding a captured run: its attributes, JSON and span", ENGINE),
            )
        ]
    rows = [
        (
            peer,
            value_text(cells, CASE, peer, "encode_us"),
            ratio_text(cells, CASE, peer, "encode_us", to=OPENINFERENCE)
            if is_compared
            else NOTHING,
            value_text(cells, CASE, peer, "bytes"),
        )
        for peer in cells.peers(CASE)
    ]
    header = ("", "µs a span", f"{TIMES} {OPENINFERENCE}", "bytes a span")
    return Section(
        title="13. Encoding spans",
        text=(
            "The spans of the agent's runs of section 12, without delivery. OpenTelemetry's"
            " encoder, by which its exporter makes bytes, gets spans whose attributes have been"
            " found by OpenInference's tracer on the application's thread. The relay's worker does"
            " both: it finds the attributes of a captured run, writes inputs, outputs and messages"
            " as JSON and text, and encodes them; the last step is measured by itself as well."
        ),
        figures=figures,
        tables=[Table("Encoding", header, rows)],
    )


WORKLOAD = Workload("span_encoding", run, section)
