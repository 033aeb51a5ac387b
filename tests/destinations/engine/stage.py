"""A handler whose runs become spans, and a destination that keeps them: the whole pipeline."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings
from arthur_relay.capture.tracing import Tracing
from arthur_relay.destinations.engine.encoder import EngineRowFormat
from arthur_relay.destinations.engine.hiding import Hiding
from arthur_relay.destinations.engine.task import Task
from arthur_relay.inference import TraceScope
from arthur_relay.relay import host_of
from arthur_relay.row import DELIVERED, Attempt, Batch, Row, RowKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from arthur_relay.worker.relay_host import RelayHost

TASK = "my-chatbot"


@dataclass
class Span:
    """A span as it is on the wire, in Python's values."""

    row_id: str
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start: int
    end: int
    attributes: dict[str, Any]
    status: int
    message: str
    events: list[dict[str, Any]]

    @property
    def kind(self) -> str:
        return str(self.attributes["openinference.span.kind"])

    @property
    def is_root(self) -> bool:
        return not self.parent_id

    def json(self, name: str) -> Any:
        return json.loads(self.attributes[name])

    def texts(self) -> str:
        """All that people could read of it."""
        return json.dumps([self.name, self.message, self.attributes, self.events])


OK, ERROR = 1, 2


def span_of(row: Row) -> Span:
    """The span of a row; it is its request's only one."""
    request = ExportTraceServiceRequest.FromString(row.body)
    (resource_spans,) = request.resource_spans
    (scope_spans,) = resource_spans.scope_spans
    (span,) = scope_spans.spans
    return Span(
        row_id=row.id,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        status=span.status.code,
        message=span.status.message,
        events=[_values(event.attributes) for event in span.events],
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)


@dataclass
class SpanMemory:
    """A destination that takes spans and keeps them."""

    row_format: EngineRowFormat
    name: str = "memory"
    rows: list[Row] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _error: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        return None

    async def fetch_schema(self, model_id: str) -> Task:
        return Task.named(model_id)

    async def deliver(self, batch: Batch) -> Attempt:
        self.rows.extend(batch.rows)
        return Attempt(tuple(DELIVERED for _ in batch.rows))


@dataclass
class Traced:
    """A handler, and what became of its runs."""

    relay: Relay
    handler: ArthurCallbackHandler
    memory: SpanMemory

    @property
    def host(self) -> RelayHost:
        return host_of(self.relay)

    @property
    def config(self) -> Any:
        return {"callbacks": [self.handler]}

    def spans(self) -> list[Span]:
        """All spans so far, in the order in which their runs ended; the books are in balance."""
        result = self.relay.flush(60)  # some values take seconds of a busy core
        assert not result.timed_out
        stats = self.relay.stats()
        gone = stats.delivered + stats.rejected + sum(stats.dropped.values())
        assert stats.captured == gone + stats.pending
        return [span_of(row) for row in self.memory.rows if row.kind is RowKind.INFERENCE]

    def span(self) -> Span:
        (span,) = self.spans()
        return span

    def by_name(self) -> dict[str, Span]:
        return {span.name: span for span in self.spans()}


@contextmanager
def traced(
    scope: TraceScope = TraceScope.FULL, hiding: Hiding | None = None, **settings: Any
) -> Iterator[Traced]:
    memory = SpanMemory(EngineRowFormat(hiding or Hiding()))
    relay = Relay(memory, model_id=TASK, settings=RelaySettings(**settings))
    host_of(relay).tracing = Tracing(scope)
    try:
        yield Traced(relay, ArthurCallbackHandler(relay=relay, model_id=TASK), memory)
    finally:
        relay.close(5)
