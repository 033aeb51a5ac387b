"""An answer's tool calls: valid ones, invalid ones, and those that the provider ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from arthur_relay.encoding.coerce import NotCoercible
from arthur_relay.encoding.plain_values import NoPlainForm, PlainValues, clean_text
from arthur_relay.encoding.reading import plain_text, read, read_first
from arthur_relay.encoding.text import sendable
from arthur_relay.inference import PartKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arthur_relay.inference import GenerationSnapshot

BY_PROVIDER = "server_tool_call"
"""The type of a call that the provider ran itself, in LangChain's own word."""

_FOR_THE_CLIENT = frozenset({"computer_call", "local_shell_call", "shell_call", "apply_patch_call"})
"""Calls for the application to run that LangChain leaves among the content blocks."""

_NAMES = ("name", "tool_name", "server_label", "type")
_ARGUMENTS = (
    "args",
    "input",
    "action",
    "arguments",
    "code",
    "executable_code",
    "queries",
    "operation",
    "partial_json",
)
_IDS = ("id", "call_id", "tool_call_id")
_NOT_JSON = "the arguments are not a JSON object"


def tool_calls(generation: GenerationSnapshot) -> str | None:
    """Return the answer's tool calls as a JSON array, or None when there are none.

    Each has `name`, `args`, `id` and `type`. If a call's arguments are not JSON, `args` is the text
    that the model wrote, `error` says why, and the type is `invalid_tool_call`. OpenAI's old calls
    have the type `function_call`, and their arguments as written. The type of a call that the
    provider ran itself is `server_tool_call`.

    Raises:
        NotCoercible: They can't be written as JSON: nested too deeply, or circular.
    """
    calls = [*_own(generation), *_old(generation), *_among_blocks(generation)]
    if not calls:
        return None
    try:
        return orjson.dumps(calls, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a lone surrogate, an integer beyond 64 bits, or not possible at all
        pass
    try:
        return orjson.dumps(sendable(calls), default=_plain).decode()
    except (TypeError, ValueError, RecursionError):
        raise NotCoercible from None


def _plain(value: Any) -> Any:
    """Return a replacement for a value that JSON does not have: its plain form, else its text."""
    try:
        return PlainValues().plain(value)  # unknown elements of a set or an object are omitted
    except NoPlainForm:
        return clean_text(str(value))


def _own(generation: GenerationSnapshot) -> list[Any]:
    """Return the message's tool calls, valid or not."""
    calls = _whole(generation) if generation.call_chunks else _listed(generation)
    raw = [call for facts in generation.facts for call in _list(facts.get("tool_calls"))]
    if not raw:
        return calls
    written = [_parsed(read(call, "function") or call, read(call, "id")) for call in raw]
    sound = all(map(_is_sound, calls))
    # LangChain ignores, splits or completes calls whose streamed pieces have no id, or different
    # ids, or broken JSON (seen with the clients of Groq, Mistral and Cohere).
    if (
        not calls
        or not all(read(call, "name") for call in calls)
        or (len(written) < len(calls) and not sound)
        or (sound and not all(map(_is_sound, written)))
    ):
        return written
    return calls


def _listed(generation: GenerationSnapshot) -> list[Any]:
    calls = []
    for call in generation.tool_calls or ():
        if read(call, "type") == "invalid_tool_call" and not read(call, "error"):
            calls.append({**call, "error": _NOT_JSON})
        else:
            calls.append(call)
    return calls


def _whole(generation: GenerationSnapshot) -> list[dict[str, Any]]:
    """Return streamed calls as the model wrote them.

    LangChain completes broken JSON of a stream, so `{"city": "Ul` would look like a valid call.
    """
    return [_parsed(chunk, read(chunk, "id")) for chunk in generation.call_chunks or ()]


def _parsed(function: Any, call_id: Any) -> dict[str, Any]:
    """Return a call with its arguments, or with the model's text when they are not JSON."""
    call = _raw(function, call_id, "tool_call")
    arguments = call["args"]
    if "error" in call:
        call["type"] = "invalid_tool_call"
    elif isinstance(arguments, str):
        call["args"] = orjson.loads(arguments)
    elif arguments is None:
        call["args"] = {}
    return call


def _is_sound(call: Any) -> bool:
    return bool(read(call, "name")) and read(call, "type") != "invalid_tool_call"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _old(generation: GenerationSnapshot) -> Iterator[dict[str, Any]]:
    """Yield OpenAI's old `function_call`."""
    names = {read(call, "name") for call in generation.tool_calls or ()}
    for facts in generation.facts:
        function = facts.get("function_call")
        # Gemini's client repeats its last call here.
        if function and read(function, "name") not in names:
            yield _raw(function, None, "function_call")


def _raw(function: Any, call_id: Any, kind: str) -> dict[str, Any]:
    """Return a call with its arguments as the model wrote them."""
    arguments = read_first(function, ("arguments", "args", "parameters"))
    if arguments == "":
        arguments = "{}"  # for a tool without parameters
    call = {"name": read(function, "name"), "args": arguments, "id": call_id, "type": kind}
    if isinstance(arguments, str) and not _is_json_object(arguments):
        call["error"] = _NOT_JSON
    return call


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _among_blocks(generation: GenerationSnapshot) -> Iterator[dict[str, Any]]:
    """Yield the calls among the content blocks, and among the facts."""
    for kind, block in generation.parts or ():
        if kind == PartKind.CALL:
            yield _block_call(block)
    for facts in generation.facts:
        for name in ("tool_outputs", "executed_tools"):  # OpenAI before LangChain 1.0, Groq
            for found in _list(facts.get(name)):
                if isinstance(found, Mapping):
                    yield _block_call(found)


def _block_call(block: Mapping[str, Any]) -> dict[str, Any]:
    kind = plain_text(block.get("type"))
    given = [found for name in _ARGUMENTS if (found := block.get(name)) is not None]
    args = next((found for found in given if found), given[0] if given else None)
    if isinstance(args, str) and _is_json_object(args):
        args = orjson.loads(args)
    return {
        "name": read_first(block, _NAMES),
        "args": args,
        "id": read_first(block, _IDS),
        "type": kind if kind in _FOR_THE_CLIENT else BY_PROVIDER,
    }
