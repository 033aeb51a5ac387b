"""What OpenTelemetry's context says about a run, where the application uses OpenTelemetry."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from langchain_core.runnables import RunnableLambda
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider

from arthur_relay.inference import TraceScope
from tests.destinations.engine.models import chat
from tests.destinations.engine.stage import traced

TRACER = TracerProvider().get_tracer("application")

CHAIN = RunnableLambda(lambda x: x).with_config(run_name="outer") | RunnableLambda(lambda x: x)


def test_a_span_around_a_root_run_is_its_parent() -> None:
    with traced() as stage:
        with TRACER.start_as_current_span("request") as request:
            CHAIN.invoke("x", config=stage.config)
        spans = stage.spans()
    around = request.get_span_context()
    assert {span.trace_id for span in spans} == {f"{around.trace_id:032x}"}
    assert spans[-1].parent_id == f"{around.span_id:016x}"
    assert spans[0].parent_id == spans[-1].span_id
    assert spans[-1].row_id == f"{around.trace_id:032x}-{spans[-1].span_id}"


def test_llm_runs_alone_stay_roots() -> None:
    with traced(TraceScope.LLM) as stage:
        with TRACER.start_as_current_span("request"):
            chat("x").invoke("x", config=stage.config)
        assert stage.span().is_root


def test_an_invalid_span_is_no_parent() -> None:
    with traced() as stage:
        with trace.use_span(trace.NonRecordingSpan(trace.INVALID_SPAN_CONTEXT)):
            CHAIN.invoke("x", config=stage.config)
        assert stage.spans()[-1].is_root


def test_attributes_for_all_spans_are_taken() -> None:
    wanted = context.get_current()
    for name, value in {
        "session.id": "s-1",
        "user.id": "u-1",
        "metadata": '{"team": "red", "plan": "outer"}',
        "tag.tags": ["a"],
    }.items():
        wanted = context.set_value(name, value, wanted)
    with traced() as stage:
        token = context.attach(wanted)
        try:
            config: Any = {**stage.config, "metadata": {"plan": "own"}, "tags": ["b"]}
            CHAIN.invoke("x", config=config)
        finally:
            context.detach(token)
        spans = stage.spans()
    for span in spans:
        assert span.attributes["session.id"] == "s-1"
        assert span.attributes["user.id"] == "u-1"
        assert {"team": "red", "plan": "own"}.items() <= span.json("metadata").items()
        assert span.attributes["tag.tags"][:2] == ["a", "b"]


def test_it_is_never_imported_for_it() -> None:
    code = (
        "import sys; from arthur_relay.capture.otel_context import outer_span, context_attributes;"
        "assert outer_span() is None; assert context_attributes() is None;"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
