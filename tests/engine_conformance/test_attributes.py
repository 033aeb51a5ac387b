"""Each run's span, attribute by attribute, beside what OpenInference's instrumentor makes of it.

JSON is compared by what it says: ours has no spaces. A status's message is ours: the error in one
line, which the Engine's page shows, where OpenInference has the whole stack trace.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openinference.instrumentation import using_attributes
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.destinations.engine.stage import Span, traced

from . import graph_scenarios, message_scenarios  # noqa: F401 - they fill SCENARIOS
from .differences import DIFFERENCES
from .scenarios import SCENARIOS, agent, chat_model

# OpenInference itself calls a method that langchain-core will drop.
pytestmark = pytest.mark.filterwarnings("ignore:Calling .text")


@pytest.fixture
def theirs() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()
    provider.shutdown()


def both(theirs: InMemorySpanExporter, run: Any) -> list[tuple[ReadableSpan, Span]]:
    """Each run's two spans.

    By name, and of one name in the order in which they ended: runs of other names may be at once.
    """
    with traced() as stage:
        run(stage.config)
        ours = stage.spans()
        stats = stage.relay.stats()
    assert (stats.attributes_omitted, stats.capture_errors, stats.unmatched_events) == (0, 0, 0)
    their = sorted(theirs.get_finished_spans(), key=lambda span: span.name)
    return list(zip(their, sorted(ours, key=lambda span: span.name), strict=True))


def differing(their: ReadableSpan, our: Span) -> dict[str, tuple[Any, Any]]:
    """What differs, by the attribute's name, as theirs and ours."""
    attributes = their.attributes or {}
    found = {
        name: (_read(attributes.get(name)), _read(our.attributes.get(name)))
        for name in attributes.keys() | our.attributes.keys()
    }
    found["exception"] = (_exceptions(their), our.events)
    return {name: pair for name, pair in found.items() if pair[0] != pair[1]}


def _read(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, str) and value[:1] in ("{", "["):
        return json.loads(value)
    return value


def _exceptions(span: ReadableSpan) -> list[dict[str, Any]]:
    found = [dict(event.attributes or {}) for event in span.events]
    for event in found:
        trace = str(event["exception.stacktrace"])
        # Python's marks below a line; the caller's thread would have to find their columns.
        event["exception.stacktrace"] = re.sub(r"\n +[~^]+(?=\n)", "", trace)
    return found


@pytest.mark.parametrize("name", SCENARIOS)
def test_attributes_are_the_same(theirs: InMemorySpanExporter, name: str) -> None:
    meant = {each.name for each in DIFFERENCES if name in each.scenarios}
    seen = set()
    for their, our in both(theirs, SCENARIOS[name]):
        for attribute, pair in differing(their, our).items():
            assert attribute in meant, (their.name, attribute, pair)
            seen.add(attribute)
    assert seen == meant


@pytest.mark.parametrize("name", SCENARIOS)
def test_trees_are_the_same(theirs: InMemorySpanExporter, name: str) -> None:
    pairs = both(theirs, SCENARIOS[name])
    places = {their.context.span_id: our.span_id for their, our in pairs}
    traces: dict[int, str] = {}
    for their, our in pairs:
        assert our.name == their.name
        assert our.status == their.status.status_code.value
        parent = None if their.parent is None else places[their.parent.span_id]
        assert our.parent_id == (parent or "")
        assert traces.setdefault(their.context.trace_id, our.trace_id) == our.trace_id


@pytest.mark.parametrize("name", SCENARIOS)
def test_times_are_the_same(theirs: InMemorySpanExporter, name: str) -> None:
    for their, our in both(theirs, SCENARIOS[name]):
        assert their.start_time is not None
        assert their.end_time is not None
        assert abs(our.start - their.start_time) < 1_000_000_000
        assert abs(our.end - their.end_time) < 1_000_000_000


@pytest.mark.parametrize("run", [chat_model, agent])
def test_attributes_of_the_context_are_the_same(theirs: InMemorySpanExporter, run: Any) -> None:
    with using_attributes(
        session_id="s-1",
        user_id="u-1",
        metadata={"team": "red"},
        tags=["a", "b"],
        prompt_template="Use {context}",
        prompt_template_version="1",
        prompt_template_variables={"context": "x"},
    ):
        pairs = both(theirs, run)
    for their, our in pairs:
        assert not differing(their, our).keys() - {"tool.parameters"}
        assert our.attributes["user.id"] == "u-1"


def test_every_difference_is_of_a_scenario() -> None:
    assert all(set(each.scenarios) <= SCENARIOS.keys() for each in DIFFERENCES)
