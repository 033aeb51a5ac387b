"""The texts of the demo: a support conversation, or the prompts of a file, and the answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from arthur_relay.errors import ConfigurationError

Conversation = tuple[str, ...]
"""What one user says, turn by turn; never empty, and no turn is."""

_JSON_SUFFIXES: Final = frozenset({".json", ".jsonl", ".ndjson"})
_PROMPT_KEYS: Final = ("prompt", "text", "input")
_KINDS: Final = {
    type(None): "null",
    str: "an empty one",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}
"""What a value of JSON is called in a message."""

_CONVERSATION: Final = """\
Hi! My parcel was due on Tuesday. Where is it?
Good morning! I have found your parcel: it left our warehouse on Monday and has been at the sorting
centre since Tuesday evening. That is one day longer than it should be.

Why is it still there?
The centre reports a backlog after Monday's storm. Parcels are handled in the order in which they
arrived, and yours is among the next two hundred.

When will it be here, then?
Most likely tomorrow between nine and noon. If it has not been scanned by eight in the morning I
would rather send you a new one than let you wait.

It is a birthday present for Saturday. Can I rely on that?
I understand, so let us not rely on luck. I can reserve a second one in the shop nearest to you, at
no cost, and cancel it as soon as the parcel is in your hands.

Yes, please. Which shop is that?
The one at the old market hall, open until seven tonight and until six on Saturday. The reservation
is in your name, and the staff will ask for the last digits of your order.

Do I pay again if I collect it there?
No. Your first payment counts for whichever one you keep. If both should reach you, hand one to the
courier or to any of our shops within thirty days.

Could they wrap it as well?
Gladly! I have added a note: dark green paper, a plain ribbon, no price on it. It takes ten minutes,
so it will be ready when you come.

Can you put a card in it?
Of course. Send me the text in a line or two, and somebody with beautiful handwriting will copy it.
I only keep it until the card has been written.

Write: Happy birthday, Ada. May the wind be always behind you.
Noted, word for word: Happy birthday, Ada. May the wind be always behind you. That must be the kite
in the order, I suppose. She will love it.

It is! What if there is no wind on Saturday?
The forecast for Saturday says a steady breeze from the west, three to four, dry until the evening.
The meadow above the river is a good place for a first flight.

You thought of everything. Anything I should know?
Only that the line comes with thirty metres, and that beginners are happier with twenty. And please
keep away from power lines, however lonely they look.

Thank you, that was a great help.
It was a pleasure. The reservation is confirmed, the parcel is being watched, and you will hear from
me tomorrow at eight. Have a wonderful Saturday, both of you!
"""
"""A question on the first line of each paragraph, the answer on the others."""

_ANSWERS: Final = """\
Here is a short answer first, and the reasons for it after that. The main point is simple, and most
of what is said against it holds only in special cases.

There are three ways to look at this. The first is the usual one, the second is more careful, and
the third is what I would do if it were mine to decide.

Let us take it step by step. We begin with what is known, write down what is asked for, and find
that only one of the possible paths leads from here to there.

A good question, and one that deserves more than a yes or a no. It depends on how much time you
have, on who will read it, and on what may go wrong.

Imagine a quiet harbour in the morning: boats, gulls, a man who mends a net. That is the picture
that I would start from, and the rest follows almost by itself.
"""
"""For whatever else is asked: an answer a paragraph."""


class PromptsError(ConfigurationError):
    """The file of prompts can't be used; the message names it, and the line."""


def _turn(paragraph: str) -> tuple[str, str]:
    question, *answer = paragraph.strip().split("\n")
    return question, " ".join(answer)


SCRIPT: Final = tuple(map(_turn, _CONVERSATION.split("\n\n")))
"""The built-in conversation: pairs of what the user says and what the model answers."""


def conversation() -> Conversation:
    """Return the user's turns of the built-in conversation."""
    return tuple(question for question, _ in SCRIPT)


def answer_to(question: str) -> str:
    """Return the answer to a question: the same one each time, on any machine."""
    for asked, answer in SCRIPT:
        if asked == question:
            return answer
    answers = _ANSWERS.split("\n\n")
    # Not hash(): that differs between processes.
    answer = answers[crc32(question.encode("utf-8", "replace")) % len(answers)]
    return " ".join(answer.strip().split("\n"))


def read_conversations(path: Path) -> list[Conversation]:
    """Read a file of prompts: one a line, or one JSON object a line.

    An object has its conversation's `turns`, or one `prompt`, `text` or `input`; its other keys are
    ignored. Empty lines are skipped. The file is JSON when its name says so (.json, .jsonl,
    .ndjson) or when the first line that is not empty begins with a brace.

    Returns:
        The conversations, in the file's order; at least one.

    Raises:
        PromptsError: The file can't be read, has no prompts, or a line is not one.
    """
    lines = list(_lines(path))
    if not lines:
        raise PromptsError(f"{path} has no prompts: write one a line.")
    is_json = path.suffix.lower() in _JSON_SUFFIXES or lines[0][1].startswith("{")
    conversations = []
    for number, line in lines:
        try:
            conversations.append(_turns(line) if is_json else (line,))
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


def _turns(line: str) -> Conversation:
    """Return the turns of one JSON object.

    Raises:
        ValueError: The line is no JSON object, or has no turns.
    """
    try:
        document = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError("this is not JSON; each line must be one whole object") from error
    if not isinstance(document, dict):
        raise ValueError(f"expected an object, not {_KINDS[type(document)]}")  # noqa: TRY004 - one kind
    if "turns" in document:
        turns = document["turns"]
        if not isinstance(turns, list) or not turns:
            raise ValueError('"turns" must be a list of texts, and not empty')
        return tuple(_text(turn, "each of the turns") for turn in turns)
    for key in _PROMPT_KEYS:
        if key in document:
            return (_text(document[key], f'"{key}"'),)
    raise ValueError('the object needs "prompt", "text", "input" or "turns"')


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what} must be a text that is not empty, not {_KINDS[type(value)]}")
    # Half of a surrogate pair: JSON may spell one, but it can't be written to a terminal.
    return value.encode("utf-8", "replace").decode()
