"""The demo's prompts: the built-in conversation, and files of other ones."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from arthur_relay.errors import ConfigurationError

Conversation = tuple[str, ...]
"""What one user says, turn by turn; never empty, and no turn is."""

_JSON_SUFFIXES: Final = frozenset({".json", ".jsonl", ".ndjson"})
_SINGLE_KEYS: Final = ("prompt", "text", "input")


class PromptsError(ConfigurationError):
    """The file of prompts can't be used; the message names it, and the line."""


def read_conversations(path: Path) -> list[Conversation]:
    """Read a file of prompts: one a line, or one JSON object a line.

    An object has its conversation's `turns`, or one `prompt`, `text` or `input`; whatever else it
    has is left alone. Empty lines are skipped. It is JSON when the file's name says so
    (.json, .jsonl, .ndjson) or when the first line that is not empty begins with a brace.

    Returns:
        The conversations, in the file's order; at least one.

    Raises:
        PromptsError: The file can't be read, has no prompts, or a line is not one.
    """
    lines = list(_lines(path))
    if not lines:
        raise PromptsError(f"{path} has no prompts: write one a line.")
    is_json = path.suffix.lower() in _JSON_SUFFIXES or lines[0][1].startswith("{")
    read: Callable[[str], Conversation] = _json_conversation if is_json else _text_conversation
    conversations = []
    for number, line in lines:
        try:
            conversations.append(read(line))
        except ValueError as error:
            raise PromptsError(f"{path}, line {number}: {error}.") from error
    return conversations


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, with their numbers from 1."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PromptsError(f"can't read {path}: {error.strerror}.") from error
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        try:
            line = raw.decode().strip()
        except UnicodeDecodeError as error:
            raise PromptsError(f"{path}, line {number}: this is not UTF-8.") from error
        if line:
            yield number, line


def _text_conversation(line: str) -> Conversation:
    return (line,)


def _json_conversation(line: str) -> Conversation:
    try:
        document = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError("this is not JSON; each line must be one whole object") from error
    if not isinstance(document, dict):
        raise ValueError(f"expected an object, not {_kind(document)}")  # noqa: TRY004 - one kind
    if "turns" in document:
        turns = document["turns"]
        if not isinstance(turns, list) or not turns:
            raise ValueError('"turns" must be a list of texts, and not empty')
        return tuple(_text(turn, "each of the turns") for turn in turns)
    for key in _SINGLE_KEYS:
        if key in document:
            return (_text(document[key], f'"{key}"'),)
    raise ValueError('the object needs "prompt", "text", "input" or "turns"')


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what} must be a text that is not empty, not {_kind(value)}")
    # Half of a pair, which JSON may spell but no terminal can be sent.
    return value.encode("utf-8", "replace").decode()


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case str():
            return "an empty one"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"
