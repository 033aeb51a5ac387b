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

AnswerPart = tuple[str, Any]
"""A content block of an answer: what it is (see `PartKind`), and what it holds."""


class PartKind:
    """What a content block of an answer is, in this package's words.

    Plain texts: finding the member of an enum takes longer than all else that is done with a block.
    """

    TEXT = "text"
    """Its text."""
    REFUSAL = "refusal"
    """The text of a refusal."""
    REASONING = "reasoning"
    """A copy of the block, of the model's reasoning."""
    CALL = "call"
    """A copy of the block: a call that LangChain does not count among the message's tool calls."""


class GenerationSnapshot:
    """What is kept of one generation when a run ends, as the provider told it.

    Few objects, because Python's garbage collector walks what waits in the queue, on the caller's
    path. What it means is for `encoding` to find out, on the worker's thread.

    Attributes:
        text: What LangChain calls the generation's text.
        streamed: Whether it was merged from streamed chunks.
        parts: The message's content blocks, in order, when its content is a list.
        facts: What the provider reports beside the text, by its own names (see
            `encoding/provider_names.py`): of `generation_info`, `response_metadata`,
            `additional_kwargs` and `llm_output`.
        usage: LangChain's own counts of tokens, `usage_metadata`, or None.
        logprobs: The provider's log probabilities, or None.
        tool_calls: A copy of the message's tool calls, valid or not, or None when it has none.
        call_chunks: The same as they were streamed, with their arguments as text, or None.
        message_id: The message's id, which may be the provider's or LangChain's.
        is_last: Of an answer whose run ended early: whether LangChain has marked its last chunk.
        unread: How much of it raised an exception when it was read.
    """

    # Defaults of the class and no slots, as those of `Run`.
    parts: list[AnswerPart] | None = None
    facts: tuple[Mapping[str, Any], ...] = ()
    usage: Mapping[str, Any] | None = None
    logprobs: Any = None
    tool_calls: list[Any] | None = None
    call_chunks: list[Any] | None = None
    message_id: Any = None
    is_last: bool = False
    unread: int = 0

    def __init__(self, text: Any, streamed: bool = False) -> None:  # noqa: FBT001, FBT002 - on the caller's path, by place
        self.text = text
        self.streamed = streamed

    def __repr__(self) -> str:
        return f"GenerationSnapshot({vars(self)})"


class StreamedChunks:
    """What is kept of a stream until it ends, where LangChain may lose its last chunk.

    `BaseLLM.stream` adds a chunk to the partial answer after the consumer has taken it, so a
    consumer that goes away leaves an answer without it. So did `BaseChatModel.stream` before
    langchain-core 0.3.60.

    Attributes:
        first_at: When the first content came, by `time.perf_counter()`, or None.
        last: The chunk that came last, or None.
        length: Characters of all texts of a completion model.
    """

    __slots__ = ("first_at", "last", "length")

    def __init__(self) -> None:
        self.first_at: float | None = None
        self.last: Any = None
        self.length = 0


class Run:
    """A LangChain run, from its start event until its rows are encoded.

    Made on the caller's thread by the callback, filled in by later events, read by the worker
    after it went through the queue. Times are `time.perf_counter()` seconds, `ended_at` is the
    wall clock; `key` is what it is found by while it is open; `asked_for` is the model's name in
    the request, and `request` what else is kept of that; `rows` is how many rows it makes.

    `call` is what two handlers of one call are given alike, and two calls never are: the same
    object. `repeat` is which call with the same id it is, if another was open when it began, then
    found by `shared_key` too; and `repeats` how many have begun beside it.
    `chunks` is kept of streams whose last chunk LangChain may lose; `is_in_pieces` says that the
    client hands over each chunk of an answer as one more generation, and `intervention` what it
    has reported as an error before it ended well: a guardrail's. `unread` is how many values could
    not be read.
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
    request: dict[str, Any] | None = None
    call: object = None
    repeat = 0
    repeats = 0
    shared_key = 0
    chunks: StreamedChunks | None = None
    is_in_pieces = False
    intervention: Any = None
    unread = 0
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
    """An `Inference` on its way through the capture queue, with what the capture adds to it.

    Args:
        inference: What was handed over.
        inference_id: Its id, or one made up.
        model_id: Its model, or the relay's.
        captured_at: The wall clock.

    Attributes:
        attributes: A copy of its attributes; the application may change them.
        size: The bytes that it keeps in memory, as accounted.
        unread: How many of its attributes could not be read.
        rows: How many it makes.
    """

    __slots__ = (
        "attributes",
        "captured_at",
        "id",
        "inference",
        "model_id",
        "rows",
        "size",
        "unread",
    )

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
            CAPTURE_BYTES
            + getsizeof(inference.input_text)
            + getsizeof(inference.output_text)
            + getsizeof(inference_id)
            + getsizeof(model_id)
        )
        self.unread = 0
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
    """What became known of an inference later, on its way through the capture queue.

    Args:
        inference_id: The inference's id, which for LangChain is the run's.
        model_id: Its model.
        values: A copy of the values by attribute name.
        size: The bytes that it keeps in memory, as accounted.
        known_at: When it became known, in seconds since the epoch.
    """

    __slots__ = ("id", "known_at", "model_id", "rows", "size", "unread", "values")

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
        self.unread = 0
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
"""What the queue holds: each has `model_id`, `size` in bytes and `rows`, the rows it makes."""
