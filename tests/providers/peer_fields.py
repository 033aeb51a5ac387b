"""Where in our row is what LangSmith and OpenInference have of a run, or why it is not there.

No package is imported, so that the page can be written without them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Peer(StrEnum):
    """Whose record a run is compared with."""

    LANGSMITH = "LangSmith's tracer"
    OPENINFERENCE = "OpenInference's instrumentor"


@dataclass(frozen=True, kw_only=True)
class PeerField:
    """One or more of a peer's values.

    Attributes:
        peer: Whose.
        what: What it is, for the page.
        path: A pattern of the whole path in the peer's record; `*` stands for each item of a list.
        field: The row's field that has it, or None.
        reason: Why the row has it not, or why in another form.
        same: Whether the row's value is the same; else it has the value in another form.
    """

    peer: Peer
    what: str
    path: str
    field: str | None = None
    reason: str = ""
    same: bool = True

    def matches(self, path: str) -> bool:
        """Return whether a path is of these."""
        return re.fullmatch(self.path, path) is not None


ATTRIBUTES = {
    "tags": "ARRAY(STRING)",
    "run_name": "STRING",
    "temperature": "FLOAT",
    "max_tokens": "INTEGER",
    "top_p": "FLOAT",
    "seed": "INTEGER",
    "stop": "STRING",
    "session_id": "STRING",
    "user_id": "STRING",
    "ls_integration": "STRING",
    "ls_invocation_params": "STRING",
    "ls_model_type": "STRING",
    "lc_versions": "STRING",
}
"""What a model has registered beside the table's fields, to have all that the peers have."""

_RESULT = r"outputs\.generations\.\*\.\*\."
_MESSAGE = _RESULT + r"message\.kwargs\."
_CONTENT = _MESSAGE + r"content\.\*\."
_FACTS = (
    r"(?:outputs\.llm_output|outputs\.generations\.\*\.\*\.(?:generation_info"
    r"|message\.kwargs\.(?:response_metadata|additional_kwargs)))\."
)
_USAGE = (
    r"(?:extra\.metadata\.usage_metadata|outputs\.generations\.\*\.\*\.message\.kwargs"
    r"\.usage_metadata|"
    + _FACTS
    + r"(?:usage_metadata|usage|token_usage|token_count|amazon-bedrock-invocationMetrics))\."
)
_PARAMETERS = r"(?:extra\.(?:invocation_params|metadata)|attributes\.llm\.invocation_parameters)\."
_METADATA = r"(?:extra|attributes)\.metadata\."

_OFFERED = "what the model was offered and how it was set is no part of an inference"
_LANGCHAIN = "LangChain's own notes of how it stores an object"
_WHOLE = "stored whole; the fields have its parts"
_SECRET = "HTTP headers and bodies are not kept: they may hold credentials"
_RUN = "what the tracer itself needs to order its records; the row's id is the run's"


def _both(
    what: str, path: str, field: str | None = None, reason: str = "", *, same: bool = True
) -> Iterator[PeerField]:
    for peer in Peer:
        yield PeerField(peer=peer, what=what, path=path, field=field, reason=reason, same=same)


def _langsmith(
    what: str, path: str, field: str | None = None, reason: str = "", *, same: bool = True
) -> PeerField:
    return PeerField(
        peer=Peer.LANGSMITH, what=what, path=path, field=field, reason=reason, same=same
    )


def _openinference(
    what: str, path: str, field: str | None = None, reason: str = "", *, same: bool = True
) -> PeerField:
    return PeerField(
        peer=Peer.OPENINFERENCE, what=what, path=path, field=field, reason=reason, same=same
    )


_LANGSMITH = (
    _langsmith("cost", _FACTS + "cost", "cost"),
    _langsmith(
        "the provider's own times",
        rf"{_USAGE}\w+_time|{_FACTS}created",
        reason="the row has the time that the application has waited",
    ),
    _langsmith(
        "tokens not found in the cache",
        _USAGE + "prompt_cache_miss_tokens",
        reason="the others of the prompt's",
    ),
    _langsmith(
        "an object of litellm's that it can't write",
        _FACTS + r"token_usage\.(lc|type|id\.\*|repr)",
        reason=_LANGCHAIN,
    ),
    _langsmith("input", r"inputs\..*", "input_text", same=False),
    _langsmith("output text", _RESULT + "text", "output_text"),
    _langsmith(
        "output text in the message",
        _MESSAGE + r"content(\.\*(\.text)?)?",
        "output_text",
        same=False,
    ),
    _langsmith(
        "reasoning",
        _CONTENT + r"(thinking|reasoning|reasoning_content\.text"
        r"|summary\.\*\.text|thinking\.\*\.text)",
        "reasoning_text",
    ),
    _langsmith(
        "reasoning beside the text",
        _FACTS + r"(reasoning_content|thinking|reasoning)",
        "reasoning_text",
    ),
    _langsmith("refusal", rf"({_FACTS}|{_CONTENT})refusal", "refusal"),
    _langsmith(
        "refusal's explanation", _FACTS + r"prompt_feedback\.block_reason_message", "refusal"
    ),
    _langsmith(
        "refusal's category",
        rf"{_FACTS}stop_details\..*|{_CONTENT}extras\.category",
        reason="the finish reason says that it is a refusal; a category has no field",
    ),
    _langsmith(
        "tool calls",
        _MESSAGE + r"(tool_calls|invalid_tool_calls|tool_call_chunks)\..*",
        "tool_calls",
        same=False,
    ),
    _langsmith(
        "tool calls as content",
        _CONTENT + r"(args|input|partial_json|arguments|name|error)(\..*)?",
        "tool_calls",
        same=False,
    ),
    _langsmith(
        "tool calls as the provider sends them",
        _FACTS + r"(tool_calls|function_call)\..*",
        "tool_calls",
        same=False,
    ),
    _langsmith("number of tool calls", r"extra\.tool_call_count", "tool_calls", same=False),
    _langsmith(
        "finish reason",
        _FACTS + r"(finish_reason|stop_reason|stopReason|done_reason|completionReason"
        r"|prompt_feedback\.block_reason|status|incomplete_details\.reason)",
        "finish_reason",
    ),
    _langsmith("model", _FACTS + r"(model|model_name|model_id)", "model_name"),
    _langsmith("provider", _FACTS + "model_provider", "provider", same=False),
    _langsmith("response id", _FACTS + "id", "response_id"),
    _langsmith(
        "service tier",
        _FACTS + r"(service_tier|serviceTier\.type|usage\.service_tier)",
        "service_tier",
    ),
    _langsmith("system fingerprint", _FACTS + "system_fingerprint", "system_fingerprint"),
    _langsmith("log probabilities", _FACTS + r"logprobs\..*", "output_likelihoods", same=False),
    _langsmith(
        "cached tokens",
        _USAGE + r"((input_token_details\.|prompt_tokens_details\.)?"
        r"(cache_read|cached_tokens|cache_read_input_tokens|prompt_cache_hit_tokens))",
        "cached_tokens",
    ),
    _langsmith(
        "tokens written to the cache",
        _USAGE + r"((input_token_details|cache_creation)\.)?(cache_creation"
        r"|cache_creation_input_tokens|ephemeral_(5m|1h)_input_tokens)",
        "cache_creation_tokens",
    ),
    _langsmith(
        "reasoning tokens",
        _USAGE + r"(output_token_details|completion_tokens_details"
        r"|output_tokens_details)\.(reasoning|reasoning_tokens|thinking_tokens)",
        "reasoning_tokens",
    ),
    _langsmith(
        "reasoning tokens as the model tells them",
        _FACTS + r"additionalModelResponseFields\..*",
        "reasoning_tokens",
    ),
    _langsmith(
        "tokens of the prompt",
        rf"{_USAGE}(input_tokens|prompt_tokens|inputTokenCount)"
        rf"|{_FACTS}(prompt_eval_count|inputTextTokenCount)",
        "prompt_tokens",
    ),
    _langsmith(
        "tokens of the answer",
        rf"{_USAGE}(output_tokens|completion_tokens"
        rf"|outputTokenCount)|{_FACTS}(eval_count|totalOutputTextTokenCount)",
        "completion_tokens",
    ),
    _langsmith("all tokens", _USAGE + "total_tokens", "total_tokens"),
    _langsmith("error", "error", "error", same=False),
    _langsmith(
        "the provider's error",
        _FACTS + r"(body\..*|headers\..*|status_code|request_id)",
        reason=_SECRET,
    ),
    _langsmith("headers of the answer", _FACTS + r"ResponseMetadata\..*", reason=_SECRET),
    _langsmith(
        "time of the first chunk",
        r"events\.new_token",
        "time_to_first_token",
        "a chunk without content is no first token",
        same=False,
    ),
    _langsmith("times", r"start_time|end_time|events\.(start|end|error)", "duration", same=False),
    _langsmith("first chunk", r"token(\..*)?", reason="a piece of what the row has whole"),
    _langsmith("name of the run", "name", "run_name"),
    _langsmith("tags", r"tags\.\*", "tags", same=False),
    _langsmith(
        "safety ratings",
        _FACTS + r"(prompt_feedback\.)?safety_ratings\..*",
        reason="the finish reason says that something was blocked",
    ),
    _langsmith(
        "the provider's own times",
        _FACTS + r"(\w+_duration|metrics\..*|created_at|done"
        r"|amazon-bedrock-invocationMetrics\.\w+Latency)",
        reason="the row has the time that the application has waited",
    ),
    _langsmith("plan beside the tool calls", _FACTS + "tool_plan", "output_text", same=False),
    _langsmith(
        "results of the provider's own tools, and signatures",
        rf"{_CONTENT}(output|content)\..*|{_CONTENT}(.*\.)?(signature|extras\..*|status"
        r"|tool_call_id|tool_use_id|call_id|id|index|type)",
        reason="the calls are in the row; results and signatures are input of the next request",
    ),
    _langsmith("parts of the model's object", r"serialized\..*", reason=_OFFERED),
    _langsmith("options", r"extra\.options\..*", reason=_OFFERED),
    _langsmith(
        "types and versions",
        rf"{_RESULT}(message\.)?(type|lc|id\.\*)|{_MESSAGE}(type|chunk_position|id)"
        rf"|{_FACTS}(output_version|type|object)|run_type|outputs\.type",
        reason=_LANGCHAIN,
    ),
    _langsmith("environment", r"extra\.runtime\..*", reason="of the process, not of the inference"),
    _langsmith(
        "order of the records",
        r"id|trace_id|dotted_order|session_name|extra\.batch_size",
        reason=_RUN,
    ),
)

_OPENINFERENCE = (
    _openinference(
        "input",
        r"attributes\.(input\.value|llm\.prompts\.\*|llm\.input_messages\..*)",
        "input_text",
        same=False,
    ),
    _openinference("output", r"attributes\.output\.value", reason=_WHOLE),
    _openinference(
        "form of input and output", r"attributes\.(in|out)put\.mime_type", reason=_LANGCHAIN
    ),
    _openinference(
        "output text",
        r"attributes\.llm\.output_messages\.\*\.message\.(content"
        r"|contents\.\*\.message_content\.text)",
        "output_text",
        same=False,
    ),
    _openinference(
        "role and type of the output",
        r"attributes\.llm\.output_messages\.\*\.message\.(role"
        r"|contents\.\*\.message_content\.type)",
        reason=_LANGCHAIN,
    ),
    _openinference(
        "tool calls",
        r"attributes\.llm\.(output_messages\.\*\.message\.(tool_calls|function_call).*"
        r"|function_call)",
        "tool_calls",
        same=False,
    ),
    _openinference("finish reason", r"attributes\.llm\.finish_reason", "finish_reason"),
    _openinference("model", r"attributes\.llm\.model_name", "model_name"),
    _openinference(
        "provider",
        r"attributes\.llm\.(provider|system)",
        "provider",
        "by LangChain's own name for it",
        same=False,
    ),
    _openinference(
        "tokens of the prompt", r"attributes\.llm\.token_count\.prompt", "prompt_tokens"
    ),
    _openinference(
        "tokens of the answer", r"attributes\.llm\.token_count\.completion", "completion_tokens"
    ),
    _openinference("all tokens", r"attributes\.llm\.token_count\.total", "total_tokens"),
    _openinference(
        "cached tokens",
        r"attributes\.llm\.token_count\.prompt_details\.cache_read",
        "cached_tokens",
    ),
    _openinference(
        "tokens written to the cache",
        r"attributes\.llm\.token_count\.prompt_details\.cache_write",
        "cache_creation_tokens",
    ),
    _openinference(
        "reasoning tokens",
        r"attributes\.llm\.token_count\.completion_details\.reasoning",
        "reasoning_tokens",
    ),
    _openinference(
        "error", r"status|events\.exception\.exception\.(message|type)", "error", same=False
    ),
    _openinference(
        "stack trace",
        r"events\.exception\.exception\.(stacktrace|escaped)",
        reason="a stack trace shows the application's own code, and can show its values",
    ),
    _openinference(
        "session",
        r"attributes\.session\.id",
        "session_id",
        "register the name that your application's metadata have it under",
    ),
    _openinference("tools", r"attributes\.llm\.tools\..*", reason=_OFFERED),
    _openinference(
        "kind of the span",
        r"attributes\.openinference\.span\.kind",
        reason="every row is an inference",
    ),
)

_BOTH = (
    *_both("metadata: session and user", _METADATA + r"session_id", "session_id"),
    *_both("metadata: session and user", _METADATA + r"user_id", "user_id"),
    *_both(
        "metadata: model",
        _METADATA + "ls_model_name",
        "model_name",
        "the model that answered, where the provider names it",
        same=False,
    ),
    *_both("metadata: provider", _METADATA + "ls_provider", "provider"),
    *_both("metadata: temperature", _METADATA + "ls_temperature", "temperature"),
    *_both("metadata: limit of tokens", _METADATA + "ls_max_tokens", "max_tokens"),
    *_both("metadata: LangChain's", _METADATA + "ls_integration", "ls_integration"),
    *_both("metadata: LangChain's", _METADATA + "ls_model_type", "ls_model_type"),
    *_both(
        "metadata: LangChain's",
        _METADATA + r"ls_invocation_params\..*",
        "ls_invocation_params",
        same=False,
    ),
    *_both("metadata: LangChain's", _METADATA + r"lc_versions\..*", "lc_versions", same=False),
    *_both("setting: temperature", _PARAMETERS + "temperature", "temperature"),
    *_both(
        "setting: limit of tokens", _PARAMETERS + r"(max_tokens|max_output_tokens)", "max_tokens"
    ),
    *_both("setting: top_p, seed", _PARAMETERS + "top_p", "top_p"),
    *_both("setting: top_p, seed", _PARAMETERS + "seed", "seed"),
    *_both(
        "setting: model",
        _PARAMETERS + r"(model|model_name|model_id)",
        "model_name",
        "the model that answered, where the provider names it",
        same=False,
    ),
    *_both(
        "setting: vendor of the model",
        _PARAMETERS + "provider",
        reason="Bedrock's models have it in their names",
    ),
    *_both(
        "settings: others",
        _PARAMETERS + r"(_type|candidate_count|n|stream|trace|guardrail\w+|azure_deployment"
        r"|logprobs|top_logprobs|(model_kwargs|thinking|tools|reasoning|include)(\..*)?)",
        reason=_OFFERED,
    ),
)

PEER_FIELDS: tuple[PeerField, ...] = (*_LANGSMITH, *_OPENINFERENCE, *_BOTH)


def peer_field(peer: Peer, path: str) -> PeerField | None:
    """Return what the table says of a value, or None when it says nothing."""
    return next((each for each in PEER_FIELDS if each.peer is peer and each.matches(path)), None)


def section() -> list[str]:
    """Return the page's lines that say where what the peers have is in a row, or why it is not."""
    lines = ["## Beside LangSmith's tracer and OpenInference's instrumentor", "", _INTRODUCTION, ""]
    for peer in Peer:
        lines += [f"### {peer}", "", "| it has | the row has | |", "| --- | --- | --- |"]
        rows = [
            (each.what, "" if each.field is None else f"`{each.field}`", each.reason)
            for each in PEER_FIELDS
            if each.peer is peer
        ]
        lines += [f"| {' | '.join(row)} |" for row in dict.fromkeys(rows)]
        lines.append("")
    return lines


_INTRODUCTION = """\
Each of the classes above is called by `invoke`, `stream` and the events of version 3 with both
beside our handler, and each of their values is looked for in the row. Where a row has another value
than they have, it is the right one of the tables above. Nothing that they have is missing without a
reason. Fields of the second column are sent when the model has registered them."""
