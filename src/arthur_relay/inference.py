"""Captures: an `Inference` given by code, a LangChain `Run`, and ground truth."""

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
"""The bytes of a capture without its texts, measured with tracemalloc."""

MAX_ERROR_CHARACTERS = 1000
"""How much of an exception's text is kept; some providers put whole answers into theirs."""


SCORE = "annotation_score"
DESCRIPTION = "annotation_description"
"""The values of a trace's feedback, in Arthur Engine's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """One inference from code that does not use LangChain.

    Attributes:
        input_text: The prompt.
        output_text: The completion.
        inference_id: The id by which ground truth finds it. None makes one.
        model_id: The Arthur model. None means the relay's own.
        timestamp: When it happened, timezone-aware. None means the time of the capture.
        duration: How long it took, in seconds, or None.
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
    """No end event came."""


class TraceScope(StrEnum):
    """Which runs become spans."""

    NONE = "none"
    """None: only LLM runs are captured, as inferences."""
    LLM = "llm"
    """LLM runs alone, each the root of a trace of its own."""
    FULL = "full"
    """Chains, agents, tools, retrievers and LLM runs, as one tree."""


class RunKind(StrEnum):
    """The kinds of runs."""

    LLM = "llm"
    CHAIN = "chain"
    AGENT = "agent"
    TOOL = "tool"
    RETRIEVER = "retriever"
    EMBEDDING = "embedding"
    PROMPT = "prompt"


class TraceContext:
    """The place of a run in its trace; all children of a run share one. Immutable by convention.

    Attributes:
        trace_id: 16 bytes: those of the root run's id, unless the trace began elsewhere.
        parent_span_id: The last 8 bytes of the parent run's id, or another tracer's span id; None
            when there is no parent.
        is_root: Whether no run of ours is above. It may have a parent nevertheless: another
            tracer's span.
    """

    __slots__ = ("is_root", "parent_span_id", "trace_id")

    def __init__(self, trace_id: bytes, parent_span_id: bytes | None, *, is_root: bool) -> None:
        self.trace_id = trace_id
        self.parent_span_id = parent_span_id
        self.is_root = is_root


class ObjectSnapshot:
    """A copy of the fields of a LangChain object: a message, a document, a generation.

    Attributes:
        cls: The object's class.
        fields: Its fields by name, in their order. Immutable by convention: runs share copies.
        written: What the destination's encoder keeps of it, for the next run that has it; worker's
            thread only.
    """

    __slots__ = ("cls", "fields", "written")

    def __init__(self, cls: type, fields: dict[str, Any]) -> None:
        self.cls = cls
        self.fields = fields
        self.written: Any = None


class ExceptionSnapshot:
    """What is kept of an exception, which itself would keep its frames and their values alive.

    Attributes:
        type_name: The exception's class, with its module unless it is built in.
        message: The beginning of its text.
        frames: File, line and function of the innermost frames, the outermost of them first.
        notes: What was added to it on its way, as LangGraph adds the name of the task.
        earlier: The exception that came before it, or None.
        is_caused: Whether that one is its cause; else it was being handled.
    """

    __slots__ = ("earlier", "frames", "is_caused", "message", "notes", "type_name")

    def __init__(
        self,
        type_name: str,
        message: str,
        frames: Sequence[tuple[str, int, str]],
        notes: Sequence[str] = (),
    ) -> None:
        self.notes = notes
        self.earlier: ExceptionSnapshot | None = None
        self.is_caused = False
        self.type_name = type_name
        self.message = message
        self.frames = frames


MessageSnapshot = tuple[Any, str | dict[str, Any]]
"""A message's class, and its text if it has nothing else, or a copy of its fields.

A copy, because the application owns the message.
"""

AnswerPart = tuple[str, Any]
"""A content block of an answer: its kind (see `PartKind`) and its content."""


class PartKind:
    """The kinds of content blocks of an answer.

    Plain texts, because looking up an enum's member takes longer than all other work on a block.
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
    """The kept parts of one generation when a run ends, as the provider reported them.

    It consists of few objects, because Python's garbage collector visits all that waits in the
    queue, on the caller's path. `encoding` interprets it on the worker's thread.

    Attributes:
        text: The generation's text, according to LangChain.
        streamed: Whether it was merged from streamed chunks.
        parts: The message's content blocks, in order, when its content is a list.
        facts: The provider's other values, by its own names (see
            `encoding/provider_names.py`): of `generation_info`, `response_metadata`,
            `additional_kwargs` and `llm_output`.
        usage: LangChain's own counts of tokens, `usage_metadata`, or None.
        logprobs: The provider's log probabilities, or None.
        tool_calls: A copy of the message's tool calls, valid or not, or None when it has none.
        call_chunks: The same as they were streamed, with their arguments as text, or None.
        message_id: The message's id, which may be the provider's or LangChain's.
        is_last: For a run that ended early, whether LangChain has marked the last chunk.
        unread: How many of its parts raised an exception when they were read.
    """

    # Defaults of the class and no slots, as in `Run`.
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
    """The kept parts of a stream until it ends, because LangChain may lose its last chunk.

    `BaseLLM.stream` adds a chunk to the partial answer after the consumer has taken it, so a
    consumer that goes away leaves an answer without it. So did `BaseChatModel.stream` before
    langchain-core 0.3.60.

    Attributes:
        first_at: When the first content came, by `time.perf_counter()`, or None.
        last: The chunk that came last, or None.
        length: The characters of all texts of a completion model's stream.
    """

    __slots__ = ("first_at", "last", "length")

    def __init__(self) -> None:
        self.first_at: float | None = None
        self.last: Any = None
        self.length = 0


class Run:
    """A LangChain run, from its start event until its rows are encoded.

    The callback makes it on the caller's thread, later events fill it in, and the worker reads it
    after it went through the queue. Times are seconds of `time.perf_counter()`; `ended_at` is the
    wall clock. `key` identifies it while it is open. `asked_for` is the model's name in the
    request, and `request` holds the request's other kept values. `rows` is the number of rows that
    it makes.

    `call` is an object that all handlers of one call share, and no two calls do. If another call
    with the same id was open when this one began, `repeat` is its number among them, and
    `shared_key` their common key; `repeats` counts the later ones. `chunks` is set for streams
    whose last chunk LangChain may lose. `is_in_pieces` says that the client returns each chunk of
    an answer as one more generation. `intervention` is a guardrail's, which the client reported as
    an error before the run ended well. `unread` is the number of values that could not be read.

    The rest is set only where runs become spans. `trace` is the run's place in its trace, and
    `children` that of its children, once there are any. `began_at` is the wall clock. `inputs` and
    `outputs` are copies within the bounds of `capture/states.py`; for LLM runs, of the messages and
    of the whole result. `parameters` are the model's `invocation_params`. `serialized` is a
    prompt's or a tool's description by LangChain. `ambient` is what OpenTelemetry's context had for
    the run's span.
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
    """Ground truth that came before the run ended; it is sent after the run."""
    kind = RunKind.LLM
    trace: TraceContext | None = None
    children: TraceContext | None = None
    began_at = 0.0
    name: Any = None
    serialized: Mapping[str, Any] | None = None
    inputs: Any = None
    outputs: Any = None
    parameters: Mapping[str, Any] | None = None
    ambient: Mapping[str, Any] | None = None
    exception: ExceptionSnapshot | None = None

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
    """An `Inference` in the capture queue, with the values that the capture adds to it.

    Args:
        inference: The inference.
        inference_id: Its id, or a generated one.
        model_id: Its model, or the relay's.
        captured_at: The wall clock's time of the capture.

    Attributes:
        attributes: A copy of its attributes, because the application may change them.
        size: The bytes of memory that it counts for.
        unread: How many of its attributes could not be read.
        rows: How many rows it makes.
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
    """Return the id of a capture's first row; an empty text if the id is not a text."""
    found: object = capture.run_id if isinstance(capture, Run) else capture.id
    return str(found) if isinstance(found, (str, UUID)) else ""


_RUN_ID = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:-[0-9]+)?")


def run_id_of(inference_id: str) -> str | None:
    """Return the id of the run that an inference belongs to, or None if its id is no run's.

    A run's second generation and later ones have the run's id with a number.
    """
    found = _RUN_ID.fullmatch(inference_id)
    return None if found is None else found[1]


class CapturedGroundTruth:
    """Ground truth of an inference, in the capture queue.

    Args:
        inference_id: The inference's id, which for LangChain is the run's.
        model_id: Its model.
        values: A copy of the values by attribute name.
        size: The bytes of memory that it counts for.
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
    """A row that was encoded earlier: a dead letter that is sent once more.

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
"""Captures that have to be encoded, and wait until their model is known."""

Capture = Encodable | CapturedRow
"""The queue's items: each has `model_id`, `size` in bytes, and `rows`, how many rows it makes."""
