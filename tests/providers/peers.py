"""LangSmith's tracer and OpenInference's instrumentor beside our handler, on the same run.

Both write to memory. What they have is laid flat: a path of names, and a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Self, cast
from uuid import UUID

import orjson
from langchain_core.tracers import LangChainTracer
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

Facts = dict[str, Any]
"""Values by path; an index of a list is written as `*`."""


class MemoryClient:
    """What LangSmith's tracer asks of a client of LangSmith; keeps runs."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}

    def create_run(self, **fields: Any) -> None:
        """Keep a run that has begun."""
        self.runs[str(fields["id"])] = fields

    def update_run(self, run_id: Any, **fields: Any) -> None:
        """Keep what became of it."""
        self.runs[str(run_id)] |= {key: value for key, value in fields.items() if value is not None}

    def flush(self) -> None:
        """Nothing waits."""


class LangSmith:
    """LangSmith's tracer.

    Attributes:
        handler: Give it to a call.
    """

    def __init__(self) -> None:
        self._client = MemoryClient()
        self.handler = LangChainTracer(client=cast("Any", self._client), project_name="test")

    def facts(self) -> Facts:
        """Return what it has of the only run."""
        (run,) = self._client.runs.values()
        events = {event["name"]: event for event in run.pop("events")}
        found = dict(flat(run)) | {f"events.{name}": each["time"] for name, each in events.items()}
        token = events.get("new_token", {}).get("kwargs", {}).get("token")
        return found | dict(flat({"token": token}))


class OpenInference:
    """OpenInference's instrumentor, inside of the `with` block."""

    def __init__(self) -> None:
        from openinference.instrumentation.langchain import LangChainInstrumentor

        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider()
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._instrumentor = LangChainInstrumentor()

    def __enter__(self) -> Self:
        self._instrumentor.instrument(tracer_provider=self._provider)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._instrumentor.uninstrument()
        self._provider.shutdown()

    def clear(self) -> None:
        """Forget the spans so far."""
        self._exporter.clear()

    def facts(self) -> Facts:
        """Return what it has of the only run."""
        (span,) = self._exporter.get_finished_spans()
        found = dict(flat({"attributes": dict(span.attributes or {})}))
        found |= {
            f"{path}.{name}": leaf
            for path in ("attributes.metadata", "attributes.llm.invocation_parameters")
            if (text := found.pop(path, None)) is not None
            for name, leaf in flat(orjson.loads(text))
        }
        for event in span.events:
            found |= dict(flat({"events": {event.name: dict(event.attributes or {})}}))
        if span.status.description:
            found["status"] = span.status.description
        return {_without_numbers(path): value for path, value in found.items()}


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is in dicts and lists and says something, by its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from flat(item, f"{path}.*")
    elif isinstance(value, Enum):
        yield path, value.value
    elif isinstance(value, UUID):
        yield path, str(value)
    elif value not in (None, "", 0, False):
        yield path, value


def _without_numbers(path: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in path.split("."))
