"""What is captured: an `Inference` handed over by code, a LangChain `Run`, and ground truth."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from sys import getsizeof
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from arthur_relay.row import Row

CAPTURE_BYTES = 1000
"""What a capture costs beside its texts: the objects around it, measured with tracemalloc."""

MAX_ERROR_CHARACTERS = 1000
"""Kept of an exception's text; providers put whole answers into theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """One inference of code that does not use LangChain.

    Attributes:
        input_text: The prompt.
        output_text: The completion.
        inference_id: The id that ground truth is joined by; made up when None.
        model_id: The Arthur model; the relay's own when None.
        timestamp: When it happened, timezone-aware; the time of the capture when None.
        duration: How long it took, in seconds.
        attributes: More values by attribute name; those that the model has not registered are
            not sent.
    """

    input_text: str
    output_text: str
    inference_id: str | None = None
    model_id: str | None = None
    timestamp: datetime | None = None
    duration: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


class RunOutcome(StrEnum):
    """How a run ended."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    """A task was cancelled, or the program interrupted, while the provider was answering."""
    DISCONNECTED = "disconnected"
    """The consumer of the stream went away."""
    ABANDONED = "abandoned"
    """No end event ever came."""


MessageSnapshot = tuple[Any, str | dict[str, Any]]
"""A message's class, and its text where that is all it has, else a copy of its fields.

Taken because the application owns the message.
"""

TokenCounts = tuple[Any, Any, Any]
"""Tokens of the prompt, of the completion, and in all, as the provider told them."""


@dataclass(slots=True, eq=False)
class GenerationSnapshot:
    """What is kept of one generation when a run ends, as the provider told it.

    Few objects, because what waits in the inlet is walked by Python's garbage collector, on the
    caller's path.

    Attributes:
        text: What LangChain calls the generation's text.
        streamed: Whether it was merged from streamed chunks.
        finish_reason: Why the model stopped.
        model_name: What answered.
        usage: How many tokens it took, or None.
        logprobs: The provider's log probabilities, or None.
        tool_calls: A copy of the message's tool calls, or None when it has none.
    """

    text: Any
    streamed: bool = False
    finish_reason: Any = None
    model_name: Any = None
    usage: TokenCounts | None = None
    logprobs: Any = None
    tool_calls: list[Any] | None = None


class Run:
    """A LangChain run, from its start event until its rows are encoded.

    Made on the caller's thread by the callback, filled in by later events, read by the worker
    after it went through the inlet. Times are `time.perf_counter()` seconds, `ended_at` is the
    wall clock; `key` is what it is found by while it is open; `asked_for` is the model's name in
    the request; `rows` is how many rows it makes.
    """

    # Defaults of the class and no slots: a run sets only what differs, because it is made on the
    # caller's path.
    first_token_at: float | None = None
    duration: float | None = None
    ended_at = 0.0
    outcome = RunOutcome.OK
    error: str | None = None
    generations: Sequence[GenerationSnapshot] = ()
    parent_run_id: UUID | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None
    asked_for: Any = None
    rows = 1
    ground_truths: deque[CapturedGroundTruth] | None = None
    """What was said of it before it ended, to be sent behind it."""

    def __init__(
        self,
        key: int,
        run_id: UUID,
        model_id: str,
        prompt: str | list[MessageSnapshot] | None,
        size: int,
        started_at: float,
    ) -> None:
        self.key = key
        self.run_id = run_id
        self.model_id = model_id
        self.prompt = prompt
        self.size = size
        self.started_at = started_at


_NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})


class CapturedInference:
    """An `Inference` on its way through the inlet, with what the capture adds to it.

    Args:
        inference: What was handed over.
        inference_id: Its id, or one made up.
        model_id: Its model, or the relay's.
        captured_at: The wall clock.

    Attributes:
        attributes: A copy of its attributes; the application may change them.
        size: The bytes that it keeps in memory, as accounted.
        rows: How many it makes.
    """

    __slots__ = ("attributes", "captured_at", "id", "inference", "model_id", "rows", "size")

    def __init__(
        self,
        inference: Inference,
        inference_id: str,
        model_id: str,
        captured_at: float,
    ) -> None:
        self.inference = inference
        self.id = inference_id
        self.model_id = model_id
        self.captured_at = captured_at
        self.attributes = _NO_ATTRIBUTES
        self.size = (
            CAPTURE_BYTES + getsizeof(inference.input_text) + getsizeof(inference.output_text)
        )
        self.rows = 1


def inference_id_of(capture: Run | CapturedInference | CapturedGroundTruth) -> str:
    """Return the id that a capture's first row gets, as far as it is one; else an empty text."""
    found: object = capture.run_id if isinstance(capture, Run) else capture.id
    return str(found) if isinstance(found, (str, UUID)) else ""


_RUN_ID = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:-[0-9]+)?")


def run_id_of(inference_id: str) -> str | None:
    """Return the run that an inference's id is of, or None when it has not the form of one.

    A run's second generation, and those behind it, have its id with a number.
    """
    found = _RUN_ID.fullmatch(inference_id)
    return None if found is None else found[1]


class CapturedGroundTruth:
    """What became known of an inference later, on its way through the inlet.

    Args:
        inference_id: The inference's id, which for LangChain is the run's.
        model_id: Its model.
        values: A copy of the values by attribute name.
        size: The bytes that it keeps in memory, as accounted.
        known_at: When it became known, in seconds since the epoch.
    """

    __slots__ = ("id", "known_at", "model_id", "rows", "size", "values")

    def __init__(
        self,
        inference_id: str,
        model_id: str,
        values: Mapping[str, Any],
        size: int,
        known_at: float,
    ) -> None:
        self.id = inference_id
        self.model_id = model_id
        self.values = values
        self.size = size
        self.known_at = known_at
        self.rows = 1


class CapturedRow:
    """A row that was encoded before: one of the dead letters, on its way once more.

    Args:
        row: The row.
    """

    __slots__ = ("id", "model_id", "row", "rows", "size")

    def __init__(self, row: Row) -> None:
        self.row = row
        self.id = row.id
        self.model_id = row.model_id
        self.size = CAPTURE_BYTES + len(row.body)
        self.rows = 1


Encodable = Run | CapturedInference | CapturedGroundTruth
"""What has to be encoded, and waits until its model is known."""

Capture = Encodable | CapturedRow
"""What waits in the inlet: each has `model_id`, `size` in bytes and `rows`, the rows it makes."""
