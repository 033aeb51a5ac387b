"""The attributes that a run fills by itself: the one list of their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from arthur_relay.encoding import answers, facts, token_counts
from arthur_relay.encoding.provider_names import REQUEST_SETTINGS
from arthur_relay.encoding.reading import plain_text, read
from arthur_relay.encoding.tool_calls import tool_calls
from arthur_relay.inference import RunOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from arthur_relay.inference import GenerationSnapshot, Run

_OK = RunOutcome.OK

_OF_THE_REQUEST = frozenset({*REQUEST_SETTINGS, "provider", "run_name"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """The parts of a run that a model's attributes need; nothing else is kept.

    Attributes:
        names: The attributes of its inferences.
        request: Whether any is about the request: settings, provider, the run's name.
        reasoning: Whether any is the model's reasoning.
    """

    names: frozenset[str]
    request: bool
    reasoning: bool

    @classmethod
    def of(cls, names: frozenset[str]) -> Wanted:
        """Return what a model with attributes of these names needs."""
        return cls(names, not names.isdisjoint(_OF_THE_REQUEST), "reasoning_text" in names)


class RunValue(NamedTuple):
    """A value that a run can have.

    Attributes:
        of: Returns it, or None when the run does not have it; may raise `NotCoercible`.
        kind: Its natural type, in Arthur's words; it can be coerced to others.
        what: Its description, for docs/attributes.md.
        is_text: Whether people may have written it, so that it is redacted.
        is_output: Whether it is hidden together with outputs.
    """

    of: Callable[[Run, GenerationSnapshot], Any]
    kind: str
    what: str
    is_text: bool = False
    is_output: bool = False


def _once_a_request(
    count: Callable[[GenerationSnapshot], Any],
) -> Callable[[Run, GenerationSnapshot], Any]:
    """Return a reader for a count of the whole request; only the first of several rows gets it."""

    def of(run: Run, generation: GenerationSnapshot) -> Any:
        is_first = len(run.generations) < 2 or generation is run.generations[0]
        return count(generation) if is_first else None

    return of


prompt_tokens = _once_a_request(token_counts.prompt_tokens)
completion_tokens = _once_a_request(token_counts.completion_tokens)
total_tokens = _once_a_request(token_counts.total_tokens)


def finish_reason(run: Run, generation: GenerationSnapshot) -> str | None:
    """Return why the model stopped or was stopped, in the provider's words, or None."""
    return plain_text(run.intervention) or facts.finish_reason(generation)


def model_name(run: Run, generation: GenerationSnapshot) -> str | None:
    """Return the name of the model that answered, else of the requested one."""
    found = facts.model_name(generation)
    return facts.once(run.asked_for, generation) if found is None else found


def provider(run: Run, generation: GenerationSnapshot) -> str | None:
    """Return the provider by LangChain's name: the request's, else the answer's."""
    return _text_of_request(run, "ls_provider") or facts.provider(generation)


def time_to_first_token(run: Run, _generation: GenerationSnapshot) -> float | None:
    """Return the seconds until the first token, or None when nothing was streamed."""
    return None if run.first_token_at is None else run.first_token_at - run.started_at


def error(run: Run, _generation: GenerationSnapshot) -> str | None:
    """Return the error's type and text, or None when the run ended well."""
    return None if run.outcome is _OK else run.error


def _duration(run: Run, _generation: GenerationSnapshot) -> float | None:
    return run.duration


def _run_name(run: Run, _generation: GenerationSnapshot) -> str | None:
    return _text_of_request(run, "run_name")


def _outcome(run: Run, _generation: GenerationSnapshot) -> str:
    return str(run.outcome)


def _run_id(run: Run, _generation: GenerationSnapshot) -> UUID:
    return run.run_id


def _parent_run_id(run: Run, _generation: GenerationSnapshot) -> UUID | None:
    return run.parent_run_id


def _tags(run: Run, _generation: GenerationSnapshot) -> Any:
    return run.tags


def _of_answer(
    read_answer: Callable[[GenerationSnapshot], Any],
) -> Callable[[Run, GenerationSnapshot], Any]:
    def of(_run: Run, generation: GenerationSnapshot) -> Any:
        return read_answer(generation)

    return of


def _text_of_request(run: Run, name: str) -> str | None:
    return plain_text(read(run.request, name))


def _setting(name: str) -> Callable[[Run, GenerationSnapshot], Any]:
    """Return a reader for a setting of the request, under any name of a provider's client."""
    names = REQUEST_SETTINGS[name]

    def of(run: Run, _generation: GenerationSnapshot) -> Any:
        if run.request is None:
            return None
        found = (run.request.get(each) for each in names)
        return next((value for value in found if value is not None), None)

    return of


RUN_VALUES: Mapping[str, RunValue] = {
    "finish_reason": RunValue(
        finish_reason, "STRING", "why the model stopped, in the provider's word"
    ),
    "prompt_tokens": RunValue(prompt_tokens, "INTEGER", "tokens of the prompt"),
    "completion_tokens": RunValue(completion_tokens, "INTEGER", "tokens of the answer"),
    "total_tokens": RunValue(total_tokens, "INTEGER", "tokens in all"),
    "cached_tokens": RunValue(
        _once_a_request(token_counts.cached_tokens),
        "INTEGER",
        "tokens of the prompt that the provider read from its cache",
    ),
    "cache_creation_tokens": RunValue(
        _once_a_request(token_counts.cache_creation_tokens),
        "INTEGER",
        "tokens of the prompt that the provider wrote to its cache",
    ),
    "reasoning_tokens": RunValue(
        _once_a_request(token_counts.reasoning_tokens),
        "INTEGER",
        "tokens of the answer that are reasoning",
    ),
    "input_audio_tokens": RunValue(
        _once_a_request(token_counts.input_audio_tokens),
        "INTEGER",
        "tokens of the prompt that are sound",
    ),
    "output_audio_tokens": RunValue(
        _once_a_request(token_counts.output_audio_tokens),
        "INTEGER",
        "tokens of the answer that are sound",
    ),
    "audio_tokens": RunValue(
        _once_a_request(token_counts.audio_tokens), "INTEGER", "the sum of these two"
    ),
    "duration": RunValue(_duration, "FLOAT", "seconds of the call"),
    "time_to_first_token": RunValue(
        time_to_first_token, "FLOAT", "seconds until the first content of a stream"
    ),
    "model_name": RunValue(
        model_name, "STRING", "the model that answered, else the one that was asked for"
    ),
    "provider": RunValue(provider, "STRING", "who serves the model, by LangChain's name"),
    "response_id": RunValue(
        _of_answer(facts.response_id), "STRING", "the provider's id of the answer"
    ),
    "service_tier": RunValue(
        _of_answer(facts.service_tier), "STRING", "the provider's service tier"
    ),
    "system_fingerprint": RunValue(
        _of_answer(facts.system_fingerprint), "STRING", "OpenAI's name of the system that answered"
    ),
    "cost": RunValue(
        _once_a_request(facts.cost), "FLOAT", "what the request cost, where the provider says so"
    ),
    "cache_hit": RunValue(
        _of_answer(token_counts.is_cache_hit),
        "BOOLEAN",
        "whether LangChain's own cache answered (langchain-core 0.3.73 or newer tells)",
    ),
    "temperature": RunValue(_setting("temperature"), "FLOAT", "a setting of the request"),
    "max_tokens": RunValue(_setting("max_tokens"), "INTEGER", "a setting of the request"),
    "top_p": RunValue(_setting("top_p"), "FLOAT", "a setting of the request"),
    "seed": RunValue(_setting("seed"), "INTEGER", "a setting of the request"),
    "stop": RunValue(_setting("stop"), "ARRAY(STRING)", "texts that end the answer", is_text=True),
    "run_name": RunValue(
        _run_name,
        "STRING",
        "the run's name in LangChain",
        is_text=True,
    ),
    "tool_calls": RunValue(
        _of_answer(tool_calls),
        "STRING",
        "the tool calls as a JSON array: valid ones, those that can't be parsed"
        " (`invalid_tool_call`, with what the model wrote and the error), and those that the"
        " provider ran itself (`server_tool_call`)",
        is_text=True,
        is_output=True,
    ),
    "refusal": RunValue(
        _of_answer(answers.refusal),
        "STRING",
        "the words with which the model or its provider refused",
        is_text=True,
        is_output=True,
    ),
    "reasoning_text": RunValue(
        _of_answer(answers.reasoning_text),
        "STRING",
        "the model's reasoning, as far as the provider tells; kept only when registered",
        is_text=True,
        is_output=True,
    ),
    "outcome": RunValue(
        _outcome,
        "STRING",
        "`ok`, `error`, `cancelled`, `disconnected` (the consumer went away) or `abandoned` (no"
        " end event came)",
    ),
    "error": RunValue(error, "STRING", "the error's type and text", is_text=True),
    "run_id": RunValue(_run_id, "STRING", "LangChain's run id"),
    "parent_run_id": RunValue(_parent_run_id, "STRING", "the id of the run around it"),
    "tags": RunValue(_tags, "ARRAY(STRING)", "the run's tags", is_text=True),
}
"""By attribute name. The table in docs/attributes.md is generated from it."""
