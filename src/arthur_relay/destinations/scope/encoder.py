"""Turns a captured run or inference into the rows that Arthur Scope stores. Pure: no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, assert_never

import orjson

from arthur_relay.destinations.scope.schema import COMMON_ATTRIBUTES, ModelSchema
from arthur_relay.encoding.answers import is_complete, output_text
from arthur_relay.encoding.coerce import LIKELIHOODS, TOKENS, coercer
from arthur_relay.encoding.foreign_objects import ForeignObjects
from arthur_relay.encoding.logprobs import has_values, spells_only_the_end, token_likelihoods
from arthur_relay.encoding.omissions import CountsOmissions
from arthur_relay.encoding.plain_values import clean_text
from arthur_relay.encoding.privacy import Privacy
from arthur_relay.encoding.run_fields import RUN_VALUES
from arthur_relay.encoding.text import input_text, sendable, truncate_text
from arthur_relay.errors import ModelError
from arthur_relay.inference import (
    CapturedGroundTruth,
    CapturedInference,
    Encodable,
    GenerationSnapshot,
    Run,
    RunOutcome,
)
from arthur_relay.row import Row, RowKind
from arthur_relay.system.clocks import Clocks

_SMALLEST_SHRUNK_TEXT_BYTES = 1024
# Found once: Python 3.11 takes 0.2 us to find a member of an enum, and 0.1 us its value.
_OK = RunOutcome.OK
_OK_TEXT = _OK.value
_CUT_SHORT = (RunOutcome.DISCONNECTED, RunOutcome.CANCELLED)
_NO_GENERATION = GenerationSnapshot(text="")


class Encoder:
    """Encodes the captures of one model, for Arthur Scope.

    Args:
        schema: The model as Arthur has registered it; only registered attributes are sent.
        omissions: Counts each attribute whose value can't be coerced to its type, or
            would reveal what is kept back of the texts.
        privacy: What may be sent of each text; everything when None.
        foreign: Asks the application's objects; one of its own when None.
    """

    def __init__(
        self,
        schema: ModelSchema,
        omissions: CountsOmissions,
        privacy: Privacy | None = None,
        foreign: ForeignObjects | None = None,
    ) -> None:
        ask = (foreign or ForeignObjects()).ask
        self.schema = schema
        self._model_id = schema.model_id
        self._input, self._output = schema.input_text, schema.output_text
        self._omissions = omissions
        self._privacy = privacy
        self._texts = frozenset({schema.input_text, schema.output_text})
        coercers = {
            name: coercer(kind, partial(omissions.omit, name), ask)
            for name, kind in schema.types.items()
        }
        of_run = given = coercers
        if privacy is not None:
            of_run = privacy.for_run_values(coercers, schema.types)
            given = privacy.for_application_values(
                coercers, schema.types, output_tokens=schema.tokens
            )
        self._coercers = given
        from_run = self._texts | {schema.likelihoods, schema.tokens}
        rest = {name: coerce for name, coerce in given.items() if name not in from_run}
        self._own = [
            (name, RUN_VALUES[name].of, of_run[name], coerce)
            for name, coerce in rest.items()
            if name in RUN_VALUES
        ]
        self._others = [(name, coerce) for name, coerce in rest.items() if name not in RUN_VALUES]
        self._outcome = of_run.get("outcome")
        # A good inference has the same outcome each time, unless a redactor sees it.
        self._ok = _value_of_ok(self._outcome) if privacy is None else None
        self._duration = None if "duration" in self._texts else given.get("duration")
        self._tokens = schema.tokens if schema.tokens in given else None
        self._likelihoods = schema.likelihoods if schema.likelihoods in given else None
        self._spelling = [name for name in given if schema.types[name] in (TOKENS, LIKELIHOODS)]
        truths = {
            name: coercer(kind, partial(omissions.omit, name), ask)
            for name, kind in schema.ground_truth_types.items()
        }
        if privacy is not None:
            truths = privacy.ground_truth(truths, schema.ground_truth_types)
        self._ground_truths = truths
        self._tells_failures = "outcome" in schema.types or "error" in schema.types

    def encode(self, capture: Encodable, epoch: int) -> list[Row]:
        """Return the rows of a capture, in the order of its generations.

        A failed run makes one row with the partial text, or no row when the model has no attribute
        that tells it apart from a good one. Ground truth makes no row when the model has registered
        none of its attributes.
        """
        match capture:
            case Run():
                return list(self._run_rows(capture, epoch))
            case CapturedInference():
                return [self._inference_row(capture, epoch)]
            case CapturedGroundTruth():
                return self._ground_truth_rows(capture, epoch)
            case _:
                assert_never(capture)

    def shrink(self, row: Row) -> Row | None:
        """Return the row with its texts cut to half, for when Arthur finds it too large.

        This is the only place that decodes a row.

        Returns:
            None when nothing is left to cut, or when this encoder makes no rows of such a form: a
            daemon's rows come from anyone.
        """
        if row.kind is not RowKind.INFERENCE:
            return None
        try:
            document = orjson.loads(row.body)
        except orjson.JSONDecodeError:
            return None
        data = document.get("inference_data") if isinstance(document, dict) else None
        if not isinstance(data, dict):
            return None
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
        # Likelihoods of text that was cut off help no one, and are often the larger part.
        for attribute in (self.schema.likelihoods, self.schema.tokens):
            data.pop(attribute, None)
        return Row(row.id, row.model_id, _json(document), epoch=row.epoch, shrunk=row.shrunk + 1)

    def _run_rows(self, run: Run, epoch: int) -> Iterator[Row]:
        _settle_outcome(run)
        generations = run.generations or (_NO_GENERATION,)
        if run.outcome is not _OK:
            if not self._tells_failures:
                return
            generations = generations[:1]
        text = input_text(run.prompt)
        privacy = self._privacy
        if privacy is not None:
            text = privacy.input(text)
        run_id = str(run.run_id)
        if run.repeat:  # an id can be that of one inference only
            run_id = f"{run_id}-repeat-{run.repeat}"
        for index, generation in enumerate(generations):
            output = _as_text(output_text(generation))
            data = {
                self._input: text,
                self._output: output if privacy is None else privacy.output(output),
            }
            if generation.logprobs is not None:
                self._add_likelihoods(data, generation, output)
            self._add_values(data, run, generation)
            if privacy is not None:
                self._withhold_tokens(privacy, data, output)
            for _ in range(generation.unread + (0 if index else run.unread)):
                self._omissions.omit("")
            yield self._row(f"{run_id}-{index}" if index else run_id, run.ended_at, data, epoch)

    def _add_values(self, data: dict[str, Any], run: Run, generation: GenerationSnapshot) -> None:
        """Add the values of registered attributes, as the registered types."""
        metadata = run.metadata
        for name, value_of, coerce, coerce_given in self._own:
            try:
                value = value_of(run, generation)
                if value is not None:
                    data[name] = coerce(value)
                elif metadata:  # may have what the run itself does not
                    value = metadata.get(name)
                    if value is not None:
                        data[name] = coerce_given(value)
            except Exception:  # noqa: BLE001 - NotCoercible, or any error of the value: drop it alone
                self._omissions.omit(name)
        if metadata:
            for name, coerce in self._others:
                value = metadata.get(name)
                if value is not None:
                    self._add(data, name, coerce, value)

    def _add(
        self, data: dict[str, Any], name: str, coerce: Callable[[Any], Any], value: Any
    ) -> None:
        try:
            data[name] = coerce(value)
        except Exception:  # noqa: BLE001 - as in `_add_values`
            self._omissions.omit(name)

    def _add_likelihoods(
        self, data: dict[str, Any], generation: GenerationSnapshot, output: str
    ) -> None:
        if self._likelihoods is None and self._tokens is None:
            return
        found = token_likelihoods(generation.logprobs)
        if found is None and not has_values(generation.logprobs):
            return
        if found is None or (generation.streamed and spells_only_the_end(found.tokens, output)):
            for name in {self._tokens, self._likelihoods} - {None}:
                self._omissions.omit(str(name))
            return
        if self._tokens is not None:
            data[self._tokens] = found.tokens
        if self._likelihoods is not None:
            data[self._likelihoods] = found.likelihoods

    def _withhold_tokens(self, privacy: Privacy, data: dict[str, Any], output: str) -> None:
        """Leave out tokens and likelihoods that reveal what is kept back of the output text."""
        shown = data[self.schema.output_text]
        for name in self._spelling:
            tokens = data.get(name)
            if tokens is not None and not privacy.may_send_tokens(
                tokens, output=output, shown=shown
            ):
                del data[name]
                self._omissions.omit(name)

    def _inference_row(self, capture: CapturedInference, epoch: int) -> Row:
        inference = capture.inference
        privacy = self._privacy
        text, output = _as_text(inference.input_text), _as_text(inference.output_text)
        data: dict[str, Any]
        if privacy is None:
            data = {self._input: text, self._output: output}
        else:
            data = {self._input: privacy.input(text), self._output: privacy.output(output)}
        attributes, duration = capture.attributes, inference.duration
        if self._outcome is not None and "outcome" not in attributes:
            if self._ok is not None:
                data["outcome"] = self._ok
            else:
                self._add(data, "outcome", self._outcome, _OK_TEXT)
        if attributes:
            self._add_attributes(data, attributes, duration)
        elif duration is not None and self._duration is not None:
            self._add(data, "duration", self._duration, duration)
        if privacy is not None:
            self._withhold_tokens(privacy, data, output)
        for _ in range(capture.unread):
            self._omissions.omit("")
        row_id = clean_text(capture.id)
        at, moment = capture.captured_at, inference.timestamp
        if isinstance(moment, datetime) and moment.tzinfo is not None:
            at = moment.timestamp()
        return self._row(row_id, at, data, epoch)

    def _add_attributes(
        self, data: dict[str, Any], attributes: Mapping[str, Any], duration: Any
    ) -> None:
        """Add the registered ones of an inference's attributes, and its duration."""
        values = dict(attributes)
        if duration is not None:
            values["duration"] = duration
        for name, value in values.items():
            coerce = self._coercers.get(name)
            if coerce is not None and value is not None and name not in self._texts:
                self._add(data, name, coerce, value)

    def _ground_truth_rows(self, capture: CapturedGroundTruth, epoch: int) -> list[Row]:
        data: dict[str, Any] = {}
        for _ in range(capture.unread):
            self._omissions.omit("")
        for name, value in capture.values.items():
            coerce = self._ground_truths.get(name)
            if coerce is None:
                self._omissions.omit(name)
            elif value is not None:  # Arthur takes no null here
                self._add(data, name, coerce, value)
        if not data:
            return []
        row_id = clean_text(capture.id)
        document = {
            "partner_inference_id": row_id,
            "ground_truth_timestamp": Clocks.datetime.fromtimestamp(capture.known_at, UTC),
            "ground_truth_data": data,
        }
        body, kind = _dump(document, data), RowKind.GROUND_TRUTH
        return [Row(row_id, self.schema.model_id, body, epoch=epoch, kind=kind)]

    def _row(self, row_id: str, at: float, data: dict[str, Any], epoch: int) -> Row:
        document = {
            "inference_timestamp": Clocks.datetime.fromtimestamp(at, UTC),  # as by isoformat()
            "partner_inference_id": row_id,
            "inference_data": data,
        }
        return Row(row_id, self._model_id, _dump(document, data), epoch)


class ScopeRowFormat:
    """The rows of Arthur Scope. See `RowFormat`."""

    def __init__(self) -> None:
        self._foreign = ForeignObjects()

    def schema_to_text(self, schema: ModelSchema) -> str:
        """Return a text to keep of a model. See `RowFormat.schema_to_text`."""
        return orjson.dumps(schema.to_json()).decode()

    def schema_from_text(self, model_id: str, text: str) -> ModelSchema | None:
        """Return the model of a text that was kept. See `RowFormat.schema_from_text`."""
        try:
            found = ModelSchema.from_json(orjson.loads(text))
        except (ModelError, ArithmeticError, ValueError):
            return None
        return found if found.model_id == model_id else None

    def usual_schema(self, model_id: str) -> ModelSchema:
        """Return a model with the common attributes. See `RowFormat.usual_schema`."""
        return ModelSchema(model_id, COMMON_ATTRIBUTES)

    def encoder(
        self, schema: ModelSchema, *, omissions: CountsOmissions, privacy: Privacy | None
    ) -> Encoder:
        """Return the encoder of a model. See `RowFormat.encoder`."""
        return Encoder(schema, omissions, privacy, self._foreign)


def _dump(document: dict[str, Any], data: dict[str, Any]) -> bytes:
    try:
        body = memoryview(orjson.dumps(document)).tobytes()  # `_json`, without a call
    except TypeError:  # a lone surrogate, an integer beyond 64 bits
        return _json(sendable(document))
    if _may_hold_nul(data) and b"\\u0000" in body:
        # A NUL is written as this escape; a text that spells it out has its backslash doubled.
        return _json(sendable(document))
    return body


def _json(document: dict[str, Any]) -> bytes:
    """Return the JSON in no more bytes of memory than it has characters.

    orjson allocates four times the size and returns the rest, in pieces that the next document does
    not fit into: waiting rows would take four times the memory that is accounted for them.
    """
    return memoryview(orjson.dumps(document)).tobytes()


def _may_hold_nul(data: dict[str, Any]) -> bool:
    """Return whether a text holds a NUL; a search for its escape in the JSON costs ten times more.

    Lists and mappings are not searched: they count as holding one.
    """
    for value in data.values():
        kind = type(value)
        if kind is str:
            if "\x00" in value:
                return True
        elif kind is list or kind is dict:
            return True
    return False


def _as_text(value: Any) -> str:
    """Return a model's answer as text; an answer of None is an empty one."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    try:
        return str(value)
    except ValueError:
        if isinstance(value, int):  # of more decimal digits than Python writes (4,300)
            return hex(value)
        raise


def _value_of_ok(coerce: Callable[[Any], Any] | None) -> Any:
    """Return the outcome of a good inference as the registered type; None if it does not fit."""
    if coerce is None:
        return None
    try:
        return coerce(_OK_TEXT)
    except Exception:  # noqa: BLE001 - each row tries again, and counts that
        return None


def _settle_outcome(run: Run) -> None:
    """Correct the outcome of a stream that was closed after its last chunk: it was complete."""
    if run.outcome in _CUT_SHORT and run.generations and is_complete(run.generations[0]):
        run.outcome = _OK
