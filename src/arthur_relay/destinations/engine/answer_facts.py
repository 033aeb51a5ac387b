"""What a model's result says beside its messages: tokens, model, finish reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from openinference.semconv.trace import SpanAttributes

from arthur_relay.encoding import facts, token_counts
from arthur_relay.encoding.reading import plain_text, read_first, whole_number
from arthur_relay.inference import GenerationSnapshot, ObjectSnapshot, Run

_PROMPT = SpanAttributes.LLM_TOKEN_COUNT_PROMPT
_COMPLETION = SpanAttributes.LLM_TOKEN_COUNT_COMPLETION
_TOTAL = SpanAttributes.LLM_TOKEN_COUNT_TOTAL
_CACHE_READ = SpanAttributes.LLM_TOKEN_COUNT_PROMPT_DETAILS_CACHE_READ
_CACHE_WRITE = SpanAttributes.LLM_TOKEN_COUNT_PROMPT_DETAILS_CACHE_WRITE
_AUDIO_IN = SpanAttributes.LLM_TOKEN_COUNT_PROMPT_DETAILS_AUDIO
_AUDIO_OUT = SpanAttributes.LLM_TOKEN_COUNT_COMPLETION_DETAILS_AUDIO
_REASONING = SpanAttributes.LLM_TOKEN_COUNT_COMPLETION_DETAILS_REASONING

_COUNTS = (
    (_PROMPT, token_counts.prompt_tokens),
    (_COMPLETION, token_counts.completion_tokens),
    (_TOTAL, token_counts.total_tokens),
)
_DETAILS = (
    (_CACHE_READ, token_counts.cached_tokens),
    (_CACHE_WRITE, token_counts.cache_creation_tokens),
    (_AUDIO_IN, token_counts.input_audio_tokens),
    (_AUDIO_OUT, token_counts.output_audio_tokens),
    (_REASONING, token_counts.reasoning_tokens),
)

_GIVEN = {
    "prompt_tokens": _PROMPT,
    "completion_tokens": _COMPLETION,
    "total_tokens": _TOTAL,
    "cached_tokens": _CACHE_READ,
    "cache_creation_tokens": _CACHE_WRITE,
    "input_audio_tokens": _AUDIO_IN,
    "output_audio_tokens": _AUDIO_OUT,
    "reasoning_tokens": _REASONING,
}
"""By the names of attributes that the relay has for every destination."""


def first_generation(outputs: Any) -> ObjectSnapshot | None:
    """Return the snapshot of a result's first generation, or None."""
    try:
        found = outputs["generations"][0][0]
    except (IndexError, KeyError, TypeError):
        return None
    return found if isinstance(found, ObjectSnapshot) else None


def answer(outputs: Any) -> GenerationSnapshot | None:
    """Return the first generation as what `encoding` reads facts from, or None."""
    generation = first_generation(outputs)
    if generation is None:
        return None
    message = message_fields(generation)
    found = GenerationSnapshot(
        generation.fields.get("text"), streamed=generation.cls.__name__.endswith("Chunk")
    )
    usage = message.get("usage_metadata")
    found.usage = usage if isinstance(usage, Mapping) else None
    found.message_id = message.get("id")
    sources = (
        message.get("response_metadata"),
        message.get("additional_kwargs"),
        generation.fields.get("generation_info"),
        outputs.get("llm_output"),
    )
    found.facts = tuple(each for each in sources if isinstance(each, Mapping) and each)
    return found


def message_fields(generation: ObjectSnapshot) -> Mapping[str, Any]:
    """Return the fields of a generation's message; none of a completion's."""
    message = generation.fields.get("message")
    return message.fields if isinstance(message, ObjectSnapshot) else {}


def counts(found: GenerationSnapshot | None) -> Iterator[tuple[str, int]]:
    """Yield the token counts of an answer by attribute.

    LangChain's own counts, and the provider's where it has none, by whatever name. Bedrock's
    clients count the prompt's cached tokens beside the others; they are among the prompt's here,
    as OpenInference has it.
    """
    if found is None:
        return
    known = (*_COUNTS, *_DETAILS) if token_counts.has_details(found) else _COUNTS
    values = {name: count for name, of in known if (count := of(found)) is not None}
    cached = values.get(_CACHE_READ, 0) + values.get(_CACHE_WRITE, 0)
    prompt, completion = values.get(_PROMPT), values.get(_COMPLETION)
    if cached and prompt is not None and completion is not None:
        total = values.get(_TOTAL, prompt + completion)
        if total == prompt + completion + cached:
            values[_PROMPT] = prompt + cached
        elif prompt < cached:
            values[_PROMPT], values[_TOTAL] = prompt + cached, total + cached
    for name, count in values.items():
        if count or name in (_PROMPT, _COMPLETION, _TOTAL):
            yield name, count


def given_counts(values: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    """Return the counts that code gives with an inference, by attribute."""
    given = values or {}
    return [(name, given[key]) for key, name in _GIVEN.items() if given.get(key) is not None]


def model_name(run: Run, found: GenerationSnapshot | None) -> str | None:
    """Return the model's name: of the result, else of the request, else of the answer, or None."""
    output = run.outputs.get("llm_output") if isinstance(run.outputs, Mapping) else None
    for source, names in (
        (output, ("model_name", "model")),
        (run.metadata, ("ls_model_name",)),
        (run.parameters, ("model_name", "model")),
    ):
        if isinstance(source, Mapping):
            text = plain_text(read_first(source, names))
            if text is not None and (name := text.strip()):
                return name
    return None if found is None else facts.model_name(found)


def finish_reason(found: GenerationSnapshot | None) -> str | None:
    """Return why the model stopped, or None."""
    return None if found is None else facts.finish_reason(found)


def count_in_range(count: Any) -> int | None:
    """Return a count that the Engine can store, or None."""
    number = whole_number(count)
    return number if number is not None and 0 <= number < 2**31 else None
