"""One captured run or inference -> the rows that Arthur stores; pure, no I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from arthur_relay.encoding import details
from arthur_relay.encoding.likelihoods import token_likelihoods
from arthur_relay.encoding.text import clean_text, input_text, sendable, truncate_text
from arthur_relay.inference import (
    Capture,
    CapturedInference,
    GenerationSnapshot,
    Run,
    RunOutcome,
)
from arthur_relay.row import Row
from arthur_relay.schema import ModelSchema, NotCoercible, coercer

_SMALLEST_SHRUNK_TEXT_BYTES = 1024
_OK = RunOutcome.OK.value
_NO_GENERATION = GenerationSnapshot(text="", info={}, message={}, streamed=False)


class Encoder:
    """Encodes captures of one model.

    Args:
        schema: The model as Arthur knows it; only what it has registered is sent.
        omitted: Called with the attribute's name when a value can't be coerced to its type.
    """

    def __init__(self, schema: ModelSchema, omitted: Callable[[str], None]) -> None:
        self.schema = schema
        self._omitted = omitted
        self._texts = frozenset({schema.input_text, schema.output_text})
        self._from_run = self._texts | {schema.likelihoods, schema.tokens}
        self._coercers = {name: coercer(kind) for name, kind in schema.types.items()}
        self._tells_failures = "outcome" in schema.types or "error" in schema.types

    def encode(self, capture: Capture, epoch: int) -> list[Row]:
        """Return the rows of a capture, in the order of its generations.

        A run that failed makes one row with the partial text, or none when the model has no
        attribute to tell it apart from good ones.
        """
        if isinstance(capture, CapturedInference):
            return [self._inference_row(capture, epoch)]
        return list(self._run_rows(capture, epoch))

    def shrink(self, row: Row) -> Row | None:
        """Return the row with its texts cut to half, for a destination that finds it too large.

        Returns:
            None when nothing is left to cut. This is the one place where a row is decoded.
        """
        document = orjson.loads(row.body)
        data = document["inference_data"]
        texts = {
            name: value
            for name in (self.schema.input_text, self.schema.output_text)
            if isinstance(value := data.get(name), str)
        }
        limit = max((len(text.encode()) for text in texts.values()), default=0) // 2
        if limit < _SMALLEST_SHRUNK_TEXT_BYTES:
            return None
        for name, text in texts.items():
            note = f"… [cut by arthur-relay, {len(text.encode())} bytes before]"
            data[name] = truncate_text(text, limit, note=note)
        # Likelihoods of text that is no longer there help no one, and are often the larger part.
        for attribute in (self.schema.likelihoods, self.schema.tokens):
            data.pop(attribute, None)
        body = orjson.dumps(document)
        return Row(row.id, row.model_id, body, epoch=row.epoch, shrunk=row.shrunk + 1)

    def _run_rows(self, run: Run, epoch: int) -> Iterator[Row]:
        outcome = _settled_outcome(run)
        if outcome is RunOutcome.OK:
            generations = run.generations or [_NO_GENERATION]
        elif self._tells_failures:
            generations = run.generations[:1] or [_NO_GENERATION]
        else:
            return
        text = input_text(run.prompt)
        for index, generation in enumerate(generations):
            row_id = str(run.run_id) if index == 0 else f"{run.run_id}-{index}"
            values = self._run_values(run, generation, outcome)
            data = {
                self.schema.input_text: text,
                self.schema.output_text: _as_text(generation.text),
                **self._likelihoods(generation),
                **self._registered(values, reserved=self._from_run),
            }
            yield self._row(row_id, run.ended_at, data, epoch)

    def _run_values(
        self, run: Run, generation: GenerationSnapshot, outcome: RunOutcome
    ) -> dict[str, Any]:
        """Return every value that a model may have registered an attribute for, by name."""
        counts = details.usage(generation, run.llm_output)
        own = {
            "finish_reason": details.finish_reason(generation),
            "prompt_tokens": counts.prompt_tokens,
            "completion_tokens": counts.completion_tokens,
            "total_tokens": counts.total_tokens,
            "duration": run.duration,
            "time_to_first_token": (
                None if run.first_token_at is None else run.first_token_at - run.started_at
            ),
            "model_name": details.model_name(generation, run.llm_output, run.metadata),
            "tool_calls": details.tool_calls(generation),
            "outcome": outcome.value,
            "error": run.error if outcome is not RunOutcome.OK else None,
            "run_id": run.run_id,
            "parent_run_id": run.parent_run_id,
            "tags": run.tags or None,
        }
        if run.metadata:  # what the run itself does not tell may be in there
            return {**run.metadata, **{k: v for k, v in own.items() if v is not None}}
        return own

    def _likelihoods(self, generation: GenerationSnapshot) -> dict[str, Any]:
        schema = self.schema
        if schema.likelihoods is None and schema.tokens is None:
            return {}
        found = token_likelihoods(details.logprobs(generation))
        if found is None:
            return {}
        data: dict[str, Any] = {}
        if schema.tokens is not None:
            data[schema.tokens] = found.tokens
        if schema.likelihoods is not None:
            data[schema.likelihoods] = found.likelihoods
        return data

    def _inference_row(self, capture: CapturedInference, epoch: int) -> Row:
        inference = capture.inference
        values = {"outcome": _OK, **capture.attributes}
        if inference.duration is not None:
            values["duration"] = inference.duration
        data = self._registered(values, reserved=self._texts)
        data[self.schema.input_text] = _as_text(inference.input_text)
        data[self.schema.output_text] = _as_text(inference.output_text)
        row_id = clean_text(capture.id)
        moment = inference.timestamp
        if isinstance(moment, datetime) and moment.tzinfo is not None:
            return self._row(row_id, moment.timestamp(), data, epoch)
        return self._row(row_id, capture.captured_at, data, epoch)

    def _registered(
        self, values: dict[str, Any], *, reserved: frozenset[str | None]
    ) -> dict[str, Any]:
        """Return the values that the model has registered, as the registered types."""
        data: dict[str, Any] = {}
        coercers = self._coercers
        for name, value in values.items():
            if value is None or name in reserved or (coerce := coercers.get(name)) is None:
                continue
            try:
                data[name] = coerce(value)
            except NotCoercible:
                self._omitted(name)
        return data

    def _row(self, row_id: str, at: float, data: dict[str, Any], epoch: int) -> Row:
        document = {
            "inference_timestamp": datetime.fromtimestamp(at, UTC),  # written as by isoformat()
            "partner_inference_id": row_id,
            "inference_data": data,
        }
        body = _dump(document, data)
        return Row(row_id, self.schema.model_id, body, epoch=epoch)


def _dump(document: dict[str, Any], data: dict[str, Any]) -> bytes:
    try:
        body = orjson.dumps(document)
    except TypeError:  # a lone surrogate, an integer beyond 64 bits
        return orjson.dumps(sendable(document))
    if _may_hold_nul(data) and b"\\u0000" in body:
        # A NUL is written as this escape; a text that spells it out has its backslash doubled.
        return orjson.dumps(sendable(document))
    return body


def _may_hold_nul(data: dict[str, Any]) -> bool:
    """Look for a NUL in texts, which costs a tenth of looking for its escape in the JSON."""
    for value in data.values():
        kind = type(value)
        if (kind is str and "\x00" in value) or kind is list or kind is dict:
            return True
    return False


def _as_text(value: Any) -> str:
    """Return a model's answer as text; an answer of None is an empty one."""
    if type(value) is str:
        return value
    return "" if value is None else str(value)


def _settled_outcome(run: Run) -> RunOutcome:
    """Return how the run ended: a stream closed after its finish reason arrived was complete."""
    if (
        run.outcome in (RunOutcome.DISCONNECTED, RunOutcome.CANCELLED)
        and run.generations
        and details.finish_reason(run.generations[0]) is not None
    ):
        return RunOutcome.OK
    return run.outcome
