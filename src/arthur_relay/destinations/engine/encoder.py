"""Turns captured runs into Arthur Engine's spans, and feedback into annotations. Pure: no clock."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, assert_never
from uuid import UUID

from arthur_relay.destinations.engine.feedback import feedback_body
from arthur_relay.destinations.engine.hiding import Hiding
from arthur_relay.destinations.engine.row_ids import row_id
from arthur_relay.destinations.engine.rows import row_body
from arthur_relay.destinations.engine.task import Task
from arthur_relay.encoding.foreign_objects import ForeignObjects
from arthur_relay.encoding.omissions import CountsOmissions
from arthur_relay.encoding.plain_values import clean_text
from arthur_relay.encoding.privacy import Privacy
from arthur_relay.encoding.reading import whole_number
from arthur_relay.inference import (
    DESCRIPTION,
    SCORE,
    CapturedGroundTruth,
    CapturedInference,
    Encodable,
    Run,
    RunKind,
    run_id_of,
)
from arthur_relay.row import Row, RowKind

if TYPE_CHECKING:
    from arthur_relay.destinations.engine.span_bytes import SpanFields

NANOSECONDS = 1_000_000_000

_OF_INFERENCES = {
    "model_name": "ls_model_name",
    "provider": "ls_provider",
}
"""Attributes of an `Inference` that LangChain's metadata have by another name."""


class SpanEncoder:
    """Encodes the captures of one task, for Arthur Engine.

    Args:
        schema: The task.
        omissions: Told of each value that is cut, left out, or sent in a form that the Engine
            takes.
        privacy: What may be sent of each text; everything when None.
        hiding: What is hidden beside that.
        foreign: Asks the application's objects; one of its own when None.
    """

    def __init__(
        self,
        schema: Task,
        omissions: CountsOmissions,
        privacy: Privacy | None = None,
        hiding: Hiding = Hiding(),  # noqa: B008 - immutable
        foreign: ForeignObjects | None = None,
    ) -> None:
        # Not before the worker encodes: OpenTelemetry's messages take 0.1 s to import.
        from arthur_relay.destinations.engine import (  # noqa: PLC0415 - see above
            attributes,
            failures,
            span_bytes,
        )

        self.schema = schema
        self._omissions = omissions
        self._resource = schema.resource()
        self._scope = span_bytes.scope_bytes()
        self._bytes = span_bytes
        self._failures = failures
        self._texts = attributes.SpanTexts(privacy, hiding, omissions, foreign)
        self._attributes = attributes.RunAttributes(self._texts)

    def encode(self, capture: Encodable, epoch: int) -> list[Row]:
        """Return the row of a capture; none of ground truth that is no single judgement."""
        match capture:
            case Run():
                return [self._run_row(capture, epoch)]
            case CapturedInference():
                return [self._run_row(_run_of(capture), epoch)]
            case CapturedGroundTruth():
                return self._annotations(capture, epoch)
            case _:
                assert_never(capture)

    def shrink(self, row: Row) -> Row | None:
        """Return the row with its longest texts cut to half, or None when nothing is left to cut.

        This is the only place that decodes a row.
        """
        if row.kind is not RowKind.INFERENCE:
            return None
        try:
            body = self._bytes.shrunk_body(row.body)
        except Exception:  # noqa: BLE001 - a daemon's rows come from anyone
            return None
        if body is None:
            return None
        return Row(row.id, row.model_id, body, epoch=row.epoch, shrunk=row.shrunk + 1)

    def _run_row(self, run: Run, epoch: int) -> Row:
        for _ in range(run.unread):
            self._omissions.omit("")
        self._failures.settle_outcome(run)
        fields = self._fields(run)
        body = row_body(self._resource, self._scope, self._bytes.span_bytes(fields))
        return Row(row_id(fields.trace_id, fields.span_id), self.schema.model_id, body, epoch)

    def _fields(self, run: Run) -> SpanFields:
        span_id = run.run_id.bytes[8:]
        if run.repeat:  # the application gave the id of an open run once more
            number = int.from_bytes(span_id, "big") + run.repeat
            span_id = (number % 2**64).to_bytes(8, "big")
        trace = run.trace
        start, end = _times(run)
        return self._bytes.SpanFields(
            trace_id=run.run_id.bytes if trace is None else trace.trace_id,
            span_id=span_id,
            parent_span_id=None if trace is None else trace.parent_span_id,
            name=self._name(run.name),
            start=start,
            end=end,
            attributes=self._attributes.of(run),
            error=self._failures.status_message(run, self._texts),
            exception=self._failures.exception_of(run, self._texts),
        )

    def _name(self, name: Any) -> str:
        return self._texts.whole(name) if isinstance(name, str) and name else "Unnamed"

    def _annotations(self, capture: CapturedGroundTruth, epoch: int) -> list[Row]:
        """Return the row of feedback, by the id of the span that it judges."""
        for _ in range(capture.unread):
            self._omissions.omit("")
        score = _score(capture.values)
        if score is None:
            return []
        description = capture.values.get(DESCRIPTION)
        if not isinstance(description, str):
            description = None
        self._texts.begin()
        told = None if description is None else self._texts.whole(description)
        body = feedback_body({SCORE: score, DESCRIPTION: told}, capture.known_at)
        trace_id, span_id = _ids(capture.id)
        named = row_id(trace_id, span_id)
        return [Row(named, self.schema.model_id, body, epoch=epoch, kind=RowKind.GROUND_TRUTH)]


class EngineRowFormat:
    """The rows of Arthur Engine. See `RowFormat`.

    Args:
        hiding: What spans hide beside the relay's own settings; by OpenInference's variables in
            the environment when None.
        service_version: The version of the application, which spans name, or None.
    """

    def __init__(self, hiding: Hiding | None = None, *, service_version: str | None = None) -> None:
        self._service_version = service_version
        self._foreign = ForeignObjects()
        self._hiding = Hiding.of(os.environ) if hiding is None else hiding

    def schema_to_text(self, schema: Task) -> str:
        """Return a text to keep of a task. See `RowFormat.schema_to_text`."""
        return schema.to_text()

    def schema_from_text(self, model_id: str, text: str) -> Task | None:
        """Return the task of a text that was kept. See `RowFormat.schema_from_text`."""
        return Task.from_text(model_id, text)

    def reduced(self, row: Row, omissions: CountsOmissions) -> Row | None:
        """Return a form of a span that the Engine takes. See `ReducesRows`."""
        from arthur_relay.destinations.engine import reduction  # noqa: PLC0415 - as in the encoder

        if row.kind is not RowKind.INFERENCE:
            return None
        try:
            found = reduction.reduced_body(row.body)
        except Exception:  # noqa: BLE001 - a daemon's rows come from anyone
            return None
        if found is None:
            return None
        for name in found.dropped:
            omissions.omit(name)
        return Row(row.id, row.model_id, found.body, epoch=row.epoch, shrunk=row.shrunk)

    def usual_schema(self, model_id: str) -> Task:
        """Return a task that the Engine was not asked for. See `RowFormat.usual_schema`."""
        return Task.named(model_id, service_version=self._service_version)

    def encoder(
        self, schema: Task, *, omissions: CountsOmissions, privacy: Privacy | None
    ) -> SpanEncoder:
        """Return the encoder of a task. See `RowFormat.encoder`."""
        return SpanEncoder(schema, omissions, privacy, self._hiding, self._foreign)


def _times(run: Run) -> tuple[int, int]:
    """Return a run's start and end in nanoseconds since 1970; never 0, which means none."""
    began, duration = run.began_at, run.duration
    if duration is None:  # it was abandoned
        duration = max(0.0, run.ended_at - began) if began else 0.0
    if not began:
        began = run.ended_at - duration
    start = max(1, int(began * NANOSECONDS))
    return start, start + max(0, int(duration * NANOSECONDS))


def _ids(capture_id: str) -> tuple[bytes, bytes]:
    """Return the trace's and the root span's id for a run's id, or for any other."""
    run_id = run_id_of(capture_id)
    found = UUID(run_id) if run_id else _uuid_of(capture_id)
    return found.bytes, found.bytes[8:]


def _uuid_of(text: str) -> UUID:
    return UUID(bytes=sha256(clean_text(text).encode()).digest()[:16])


def _run_of(capture: CapturedInference) -> Run:
    """Return an inference of code that does not use LangChain as the run that it stands for."""
    inference = capture.inference
    run = Run(0, UUID(bytes=_ids(capture.id)[0]), capture.model_id, None, capture.size, 0.0)
    run.kind = RunKind.LLM
    run.name = "inference"
    run.unread = capture.unread
    run.inputs = {"input": inference.input_text}
    run.outputs = {"output": inference.output_text}
    values = {_OF_INFERENCES.get(name, name): value for name, value in capture.attributes.items()}
    run.metadata = values or None
    run.duration = inference.duration
    moment = inference.timestamp
    known = isinstance(moment, datetime) and moment.tzinfo is not None
    run.ended_at = moment.timestamp() if known and moment is not None else capture.captured_at
    return run


def _score(values: Mapping[str, Any]) -> int | None:
    """Return the judgement, 0 or 1: the Engine's own value, else the only one that is given."""
    if SCORE in values:
        found = values[SCORE]
    else:
        others = [value for name, value in values.items() if name != DESCRIPTION]
        if len(others) != 1:
            return None
        found = others[0]
    number = int(found) if isinstance(found, bool) else whole_number(found)
    return number if number in (0, 1) else None
