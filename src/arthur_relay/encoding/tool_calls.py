"""An answer's tool calls: good ones, those that can't be parsed, and those the provider ran."""

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
"""The type of a call that the provider has run itself; LangChain's own word."""

_FOR_THE_CLIENT = frozenset({"computer_call", "local_shell_call", "shell_call", "apply_patch_call"})
"""Calls that LangChain leaves among the content blocks, for the application to run."""

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

    Each has `name`, `args`, `id` and `type`. Of a call whose arguments are not JSON, `args` is what
    the model wrote, and `error` says why; its type is `invalid_tool_call`. OpenAI's old calls are
    of the type `function_call`, with their arguments as they were written. The type of a call that
    the provider has run itself is `server_tool_call`.

    Raises:
        NotCoercible: They can't be written as JSON: nested too deeply, or in a circle.
    """
    calls = [*_own(generation), *_old(generation), *_among_blocks(generation)]
    if not calls:
        return None
    try:
        return orjson.dumps(calls, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a lone surrogate, an integer beyond 64 bits, or there is no way
        pass
    try:
        return orjson.dumps(sendable(calls), default=_plain).decode()
    except (TypeError, ValueError, RecursionError):
        raise NotCoercible from None


def _plain(value: Any) -> Any:
    """Return what stands for a value that JSON does not know: its plain form, else its text."""
    try:
        return PlainValues().plain(value)  # what is odd in a set or an object is left out
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
    # What LangChain has made nothing of, or has taken apart, or has completed: a stream's pieces
    # that come without an id, or each with another, or with broken JSON (seen with the clients of
    # Groq, Mistral and Cohere).
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
    """Return streamed calls by what the model wrote.

    LangChain completes broken JSON of a stream, and would show `{"city": "Ul` as a good call.
    """
    return [_parsed(chunk, read(chunk, "id")) for chunk in generation.call_chunks or ()]


def _parsed(function: Any, call_id: Any) -> dict[str, Any]:
    """Return a call with its arguments, or, when they are no JSON, what the model wrote."""
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
        # Gemini's client tells its last call here once more.
        if function and read(function, "name") not in names:
            yield _raw(function, None, "function_call")


def _raw(function: Any, call_id: Any, kind: str) -> dict[str, Any]:
    """Return a call whose arguments are left as the model wrote them."""
    arguments = read_first(function, ("arguments", "args", "parameters"))
    if arguments == "":
        arguments = "{}"  # of a tool without parameters
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
    """Yield the calls that stand among the content blocks, or beside the message."""
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
    told = [found for name in _ARGUMENTS if (found := block.get(name)) is not None]
    args = next((found for found in told if found), told[0] if told else None)
    if isinstance(args, str) and _is_json_object(args):
        args = orjson.loads(args)
    return {
        "name": read_first(block, _NAMES),
        "args": args,
        "id": read_first(block, _IDS),
        "type": kind if kind in _FOR_THE_CLIENT else BY_PROVIDER,
    }
