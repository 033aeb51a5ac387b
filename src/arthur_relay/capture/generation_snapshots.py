"""Snapshots of a model's answer, made on the caller's thread; the worker interprets them.

Nothing here reads the characters of a text, so the cost does not depend on its length. Unreadable
parts are omitted and counted; the rest of the answer is kept.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from sys import getsizeof
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from arthur_relay.capture.copies import copy_value, size_of
from arthur_relay.encoding.provider_names import (
    ANSWERS,
    KEPT,
    KEPT_OF_EXTRAS,
    LOG_PROBABILITIES,
    REASONING,
)
from arthur_relay.inference import GenerationSnapshot, PartKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arthur_relay.inference import AnswerPart, StreamedChunks


GENERATION_BYTES = 600
"""The bytes of a generation's snapshot without its texts, measured with tracemalloc."""

_LOGPROB_BYTES = 1000
"""The bytes of one token's log probabilities with five candidates, measured with tracemalloc."""

_KEPT_WITH_REASONING = KEPT_OF_EXTRAS | frozenset(REASONING)

_NOTHING: Mapping[str, Any] = MappingProxyType({})

_NOT_REFUSED: Mapping[str, Any] = {"refusal": None}
"""The `additional_kwargs` that `langchain-openai` gives an answer that is no refusal."""

_LOGPROBS = frozenset(LOG_PROBABILITIES)
_LARGE = _LOGPROBS | frozenset((*REASONING, *ANSWERS, "finish_message", "stop_details"))
"""Facts whose bytes are counted; all others together take a few hundred bytes."""

_SMALL = (KEPT - _LARGE) | {"created", "created_at", "logprobs", "object", "output_version"}
"""The usual content of a message's metadata; copying it whole takes a third of the time."""

_KINDS = {
    None: PartKind.TEXT,  # a block without a type; LangChain takes its text
    "text": PartKind.TEXT,
    "output_text": PartKind.TEXT,
    "refusal": PartKind.REFUSAL,
    "reasoning": PartKind.REASONING,
    "reasoning_content": PartKind.REASONING,
    "thinking": PartKind.REASONING,
    "server_tool_use": PartKind.CALL,
    "mcp_tool_use": PartKind.CALL,
    "executable_code": PartKind.CALL,
    "invalid_tool_call": None,  # the message's own list has these
    "tool_call": None,
    "function_call": None,
    "custom_tool_call": None,
}
"""Kinds by the type of a content block. Other types that end in `_call` are calls too: those of the
Responses API (`web_search_call`, `code_interpreter_call`) and LangChain's (`server_tool_call`)."""


def snapshot_generation(
    generation: Any,
    output: Mapping[str, Any] | None = None,
    *,
    streamed: bool = False,
    reasoning: bool = True,
) -> tuple[GenerationSnapshot, int]:
    """Keep the parts of a generation that the encoder reads, and nothing else of its message.

    In particular it keeps no HTTP headers and bodies, which LangChain puts into a failed run's
    response.

    Args:
        generation: LangChain's generation.
        output: The result's `llm_output`, which has facts that the message does not have.
        streamed: Whether tokens came before. A model with `streaming=True` merges chunks in
            `invoke()` too, and LangChain turns them into an ordinary generation.
        reasoning: Whether to keep the model's reasoning.

    Returns:
        The snapshot, and its bytes in memory.

    Raises:
        Exception: The text can't be read, for whatever reason; nothing else raises.
    """
    text = generation.text
    kept = GenerationSnapshot(text, streamed or type(generation).__name__.endswith("Chunk"))
    size = GENERATION_BYTES + getsizeof(text)
    try:
        message = getattr(generation, "message", None)
        if message is None:
            metadata = _NOTHING
        else:
            # These are the steps of `_take_each`, written out for the caller's path: by subscript,
            # because each AIMessage has these fields. `_take_each` reads messages of other classes.
            fields = message.__dict__
            kept.message_id = fields["id"]
            if type(content := fields["content"]) is list:
                size += _take_content(kept, content, reasoning)
            if metadata := fields["response_metadata"]:
                if _SMALL.issuperset(metadata) and metadata.get("logprobs") is None:
                    kept.facts = (metadata.copy(),)  # nearly always
                else:
                    size += _take_metadata(kept, metadata)
            if (extras := fields["additional_kwargs"]) and extras != _NOT_REFUSED:
                size += _take_extras(kept, extras, reasoning)
            if usage := fields["usage_metadata"]:
                kept.usage = usage.copy()
            if calls := (fields["tool_calls"] or fields["invalid_tool_calls"]):
                size += _take_calls(kept, calls, message)
        # LangChain copies the other two into the message's metadata. Only results that were built
        # by hand have them elsewhere.
        if (info := generation.generation_info) and _adds_values(info, metadata):
            size += _add_facts(kept, info, _KEPT_WITH_REASONING if reasoning else KEPT)
        if output and _adds_values(output, metadata):
            size += _add_facts(kept, output, KEPT)
    except Exception:  # noqa: BLE001 - a provider's own class may raise anything
        kept = GenerationSnapshot(text, kept.streamed)
        size = GENERATION_BYTES + getsizeof(text) + _take_each(kept, generation, output, reasoning)
    return kept, size


def _adds_values(source: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Return whether a mapping has a value, other than None, under a new name."""
    for name, value in source.items():  # noqa: SIM110 - any() takes longer, on the caller's path
        if value is not None and name not in known:
            return True
    return False


def _take_each(
    kept: GenerationSnapshot,
    generation: Any,
    output: Mapping[str, Any] | None,
    reasoning: bool,  # noqa: FBT001 - as the functions below
) -> int:
    """Take the readable parts of a generation, and count the unreadable ones."""
    message = getattr(generation, "message", None)
    fields = getattr(message, "__dict__", {})
    kept.message_id = fields.get("id")
    size = 0
    calls = fields.get("tool_calls") or fields.get("invalid_tool_calls")
    steps: tuple[tuple[Callable[..., int], Any, Any], ...] = (
        (_take_content, fields.get("content"), reasoning),
        (_take_metadata, fields.get("response_metadata"), None),
        (_take_extras, fields.get("additional_kwargs"), reasoning),
        (_take_usage, fields.get("usage_metadata"), None),
        (_take_calls, calls, message),
        (_add_facts, generation.generation_info, _KEPT_WITH_REASONING if reasoning else KEPT),
        (_add_facts, output, KEPT),
    )
    for take, value, more in steps:
        try:
            size += take(kept, value, more) if value else 0
        except Exception:  # noqa: BLE001 - see above
            kept.unread += 1
    return size


def join_pieces(pieces: list[GenerationSnapshot]) -> GenerationSnapshot:
    """Return one answer from chunks that arrived as generations, in order."""
    whole = pieces[-1]
    whole.text = "".join([piece.text for piece in pieces if isinstance(piece.text, str)])
    whole.facts = tuple(facts for piece in reversed(pieces) for facts in piece.facts)
    whole.streamed = True
    return whole


def snapshot_partial(
    generation: Any, output: Mapping[str, Any] | None, *, reasoning: bool
) -> tuple[GenerationSnapshot, int]:
    """Keep the partial answer of a run that ended early; see `snapshot_generation`."""
    kept, size = snapshot_generation(generation, output, reasoning=reasoning)
    fields = getattr(getattr(generation, "message", None), "__dict__", _NOTHING)
    kept.is_last = fields.get("chunk_position") == "last"
    return kept, size


def with_last_chunk(partial: Any, chunks: StreamedChunks) -> Any:
    """Return a partial answer with the chunk that the consumer got before it disconnected.

    Args:
        partial: LangChain's partial answer, or None.
        chunks: The chunks of the stream.
    """
    last = chunks.last
    if last is None or partial is None:
        return last if partial is None else partial
    if hasattr(last, "message") and hasattr(partial, "message"):
        return partial + last
    # A completion model's client may report a chunk before or after the consumer gets it.
    is_lost = len(partial.text) + len(last.text) == chunks.length
    text = partial.text + last.text if is_lost else partial.text
    info = {**(partial.generation_info or {}), **_info_of(last)}
    return type(partial)(text=text, generation_info=info or None)


def _info_of(chunk: Any) -> dict[str, Any]:
    """Return the facts of a stream's last chunk; a chat model's are in its message."""
    message = getattr(chunk, "message", None)
    info = chunk.generation_info or getattr(message, "response_metadata", None) or {}
    return {name: value for name, value in info.items() if value is not None}


@cache
def chat_streams_lose_chunks() -> bool:
    """Return whether this langchain-core loses the last chunk of a chat model's stream."""
    parts = version("langchain-core").split(".")[:3]
    return tuple(int(part) for part in parts if part.isdigit()) < (0, 3, 60)


def _take_content(kept: GenerationSnapshot, content: Any, reasoning: bool) -> int:  # noqa: FBT001 - positional, because it is on the caller's path
    if type(content) is not list:
        return 0
    kept.parts, size = _parts(content, reasoning=reasoning)
    return size


def _take_metadata(kept: GenerationSnapshot, metadata: Any, _more: object = None) -> int:
    size = _add_facts(kept, metadata, KEPT)
    if "ResponseMetadata" in metadata:  # Amazon's, which has all HTTP headers
        request_id = metadata["ResponseMetadata"].get("RequestId")
        kept.facts = (*kept.facts, {"request_id": request_id})
    return size


def _take_extras(kept: GenerationSnapshot, extras: Any, reasoning: bool) -> int:  # noqa: FBT001 - as above
    return _add_facts(kept, extras, _KEPT_WITH_REASONING if reasoning else KEPT_OF_EXTRAS)


def _take_usage(kept: GenerationSnapshot, usage: Any, _more: object = None) -> int:
    kept.usage = usage.copy()
    return 0


def _take_calls(kept: GenerationSnapshot, calls: Any, message: Any) -> int:
    invalid = getattr(message, "invalid_tool_calls", None) or ()
    kept.tool_calls, size = copy_value([*calls, *(invalid if calls is not invalid else ())])
    if chunks := getattr(message, "tool_call_chunks", None):
        kept.call_chunks, held = copy_value(chunks)
        size += held
    return size


def _add_facts(kept: GenerationSnapshot, source: Mapping[str, Any], names: frozenset[str]) -> int:
    """Keep the facts with these names, and return their bytes beyond a generation's own."""
    facts = {name: value for name, value in source.items() if name in names and value is not None}
    size = 0
    if not _LARGE.isdisjoint(facts):
        for name in _LARGE & facts.keys():
            if name in _LOGPROBS:
                logprobs = facts.pop(name)
                if kept.logprobs is None:
                    kept.logprobs = logprobs
                    size += _logprobs_size(logprobs)
            else:
                facts[name], held = copy_value(_of_interest(name, facts[name]))
                size += held
    if facts:
        kept.facts = (*kept.facts, facts)
    return size


def _of_interest(name: str, value: Any) -> Any:
    """Return a value without its large parts: an audio answer's sound."""
    if name == "audio" and type(value) is dict:
        return {"transcript": value.get("transcript")}
    return value


def _parts(content: list[Any], *, reasoning: bool) -> tuple[list[AnswerPart], int]:
    """Return the content blocks that the encoder reads, and their bytes.

    Images, sounds, files and results of the provider's tools take megabytes and are not sent.
    """
    parts: list[AnswerPart] = []
    size = 0
    for block in content:
        if isinstance(block, str):
            parts.append((PartKind.TEXT, block))
            size += getsizeof(block)
        elif isinstance(block, dict):
            part = _part(block, reasoning=reasoning)
            if part is not None:
                parts.append(part)
                size += size_of(part[1])
    return parts, size


def _part(block: dict[str, Any], *, reasoning: bool) -> AnswerPart | None:
    kind = block.get("type")
    if kind == "non_standard" and isinstance(block.get("value"), dict):
        block = block["value"]  # LangChain wraps blocks that its standard does not know
        kind = block.get("type")
    what = _KINDS.get(kind) if kind in _KINDS else _kind_by_ending(kind)
    if what == PartKind.TEXT:
        text = block.get("text")
        return (what, text) if isinstance(text, str) else None
    if what == PartKind.REFUSAL:
        return what, block.get("refusal")
    if what is None or (what == PartKind.REASONING and not reasoning):
        return None
    return what, copy_value(block)[0]


def _kind_by_ending(kind: Any) -> str | None:
    return PartKind.CALL if isinstance(kind, str) and kind.endswith("_call") else None


def _logprobs_size(logprobs: Any) -> int:
    found = logprobs
    if isinstance(logprobs, dict):
        names = ("content", "tokens", "top_logprobs", "token_logprobs")
        found = next((logprobs[name] for name in names if logprobs.get(name)), ())
    return _LOGPROB_BYTES * len(found) if isinstance(found, (list, tuple)) else _LOGPROB_BYTES
