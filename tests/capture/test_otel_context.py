"""What OpenTelemetry's context says about a run, where the application uses OpenTelemetry."""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.runnables import RunnableLambda
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider

from arthur_relay.capture.trace_events import MAX_SUPPRESSED
from arthur_relay.inference import TraceScope
from tests.destinations.engine.models import Documents, chat
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


def suppressing(key: str) -> Any:
    return context.attach(context.set_value(key, True))


@pytest.mark.parametrize(
    "key",
    [context._SUPPRESS_INSTRUMENTATION_KEY, "suppress_instrumentation"],
    ids=["of the API", "of old"],
)
@pytest.mark.parametrize("scope", [TraceScope.FULL, TraceScope.LLM])
def test_where_tracing_is_suppressed_there_are_no_spans(key: str, scope: TraceScope) -> None:
    with traced(scope) as stage:
        token = suppressing(key)
        try:
            (CHAIN | chat("hidden")).invoke("x", config=stage.config)
            list(chat("hidden too").stream("x", config=stage.config))
            Documents().invoke("x", config=stage.config)
        finally:
            context.detach(token)
        chat("seen").invoke("x", config=stage.config)
        assert stage.span().attributes["output.value"].count("seen")
        stats = stage.relay.stats()
    assert (stats.unmatched_events, stats.capture_errors, stats.pending) == (0, 0, 0)


def test_what_ends_after_the_suppression_ends_is_told_of_without_it() -> None:
    """As with OpenInference: what begins in the context has no span, whatever is around it."""
    with traced() as stage:

        def inner(value: str) -> str:
            token = suppressing(context._SUPPRESS_INSTRUMENTATION_KEY)
            try:
                return str(chat("hidden").invoke(value).content)
            finally:
                context.detach(token)

        RunnableLambda(inner).invoke("x", config=stage.config)
        assert stage.span().name == "inner"
        assert stage.relay.stats().unmatched_events == 0


def test_of_runs_that_are_suppressed_few_are_remembered() -> None:
    with traced() as stage:
        token = suppressing(context._SUPPRESS_INSTRUMENTATION_KEY)
        try:
            for _ in range(MAX_SUPPRESSED + 5):
                stage.handler.on_chain_start(None, {}, run_id=uuid4())
        finally:
            context.detach(token)
        assert len(stage.handler._suppressed or ()) == 5
        assert stage.spans() == []
