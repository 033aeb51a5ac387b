"""What is captured: an `Inference` handed over by code, or the `Run` that a LangChain call was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from sys import getsizeof
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

CAPTURE_BYTES = 1000
"""What a capture costs beside its texts: the objects around it, measured with tracemalloc."""


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


MessageSnapshot = tuple[Any, dict[str, Any]]
"""A message's class and a copy of its fields, taken because the application owns the message."""


@dataclass(slots=True, eq=False)
class GenerationSnapshot:
    """What is kept of one generation when a run ends.

    Attributes:
        text: What LangChain calls the generation's text.
        info: `generation_info`, or an empty dict.
        message: The message's fields, or an empty dict for completion models.
        streamed: Whether it was merged from streamed chunks.
    """

    text: Any
    info: dict[str, Any]
    message: dict[str, Any]
    streamed: bool


class Run:
    """A LangChain run, from its start event until its rows are encoded.

    Made on the caller's thread by the callback, filled in by later events, read by the worker
    after it went through the inlet. Times are `time.perf_counter()` seconds, `ended_at` is the
    wall clock; `key` is what it is found by while it is open.
    """

    __slots__ = (
        "duration",
        "ended_at",
        "error",
        "first_token_at",
        "generations",
        "key",
        "llm_output",
        "metadata",
        "model_id",
        "outcome",
        "parent_run_id",
        "prompt",
        "rows",
        "run_id",
        "size",
        "started_at",
        "tags",
    )

    def __init__(
        self,
        *,
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
        self.first_token_at: float | None = None
        self.duration: float | None = None
        self.ended_at = 0.0
        self.outcome = RunOutcome.OK
        self.error: str | None = None
        self.generations: list[GenerationSnapshot] = []
        self.llm_output: dict[str, Any] | None = None
        self.parent_run_id: UUID | None = None
        self.tags: list[str] | None = None
        self.metadata: dict[str, Any] | None = None
        self.rows = 1


class CapturedInference:
    """An `Inference` on its way through the inlet, with what the capture adds to it."""

    __slots__ = ("attributes", "captured_at", "id", "inference", "model_id", "rows", "size")

    def __init__(
        self,
        inference: Inference,
        *,
        inference_id: str,
        model_id: str,
        captured_at: float,
        attributes: dict[str, Any],
        attributes_size: int,
    ) -> None:
        self.inference = inference
        self.id = inference_id
        self.model_id = model_id
        self.captured_at = captured_at
        self.attributes = attributes
        self.size = (
            CAPTURE_BYTES
            + getsizeof(inference.input_text)
            + getsizeof(inference.output_text)
            + attributes_size
        )
        self.rows = 1


Capture = Run | CapturedInference
"""What waits in the inlet: each has `model_id`, `size` in bytes and `rows`, the rows it makes."""
