"""Arthur's own words about a row: a sentence that can hold no text of it, or none. Pure.

Arthur's message says best what is wrong with a row, and may quote the row to say it. Reasons are
listed, handed to applications and shown to whoever is on call, so they hold no text of a user. A
message is kept only where each of its words is a name of an attribute, a word that tells nothing
about anybody (`HARMLESS`), or a word that is nowhere in the row; where it is of a form that could
not hide a text by encoding it; and where it has no run of words in common with the row.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import orjson

from arthur_relay.row import Row

MOST_CHARACTERS: Final = 300
"""A longer message is not kept: it is likely to quote what was sent."""

MOST_ROW_BYTES: Final = 256 * 1024
"""Larger rows are not looked through: a step that long holds up the application's threads."""

LONGEST_RUN: Final = 2
"""So many words in a row may be those of a text; three could be a part of it that was quoted."""

_HARMLESS: Final = """
a about above after all allowed already also an and any are array as at attribute attributes bad
batch be because been before below between boolean but by can cannot categorical category
characters column could data date default does duplicate each empty error exactly exist exists
expected fail failed field fields float following for format found from given got ground had has
have i id identifier ids if in inference inferences input integer invalid is iso it item items
its json key keys known least length less likelihood likelihoods limit list long made many map
match max maximum may message min minimum missing model models more most must name names no non
none not null number numeric object of on one only optional or out output outside over pair
pairs parse parsed per position predicted prediction probability provided range received record
rejected request required requires result row rows schema sent should size span spans stage
stored string task text than that the their then there these they this time timestamp timezone
to token tokens too truth type types unable unexpected unique unknown unsupported up valid value
values was were when where which who with without wrong zone
"""

HARMLESS: Final = frozenset(_HARMLESS.split())
"""Words that say nothing about anybody, in whosever text they are as well."""

_WORD: Final = re.compile(r"\w+")
_PLAIN: Final = re.compile(r"[A-Za-z][a-z]{0,23}|[A-Z]{1,24}|[0-9]{1,6}")
"""What words are made of; what is encoded (base64, hexadecimal digits) mostly looks otherwise."""

_ENCODED: Final = re.compile(r"\\|%[0-9A-Fa-f]{2}|&#?\w+;")
"""Escapes, within which a text would not be found."""

_ESCAPE: Final = re.compile(r"\\+u([0-9a-fA-F]{4})")

_CONVENTIONS: Final = re.compile(
    r"\bllm\.(?:(?:token_count|cost)\.(?:prompt|completion|total)"
    r"|invocation_parameters|prompt_template\.variables)\b|\btool\.parameters\b|\bmetadata\b"
)
"""Attributes of OpenInference that the Engine complains of; their names are no text of anybody."""

_DATA: Final = ("inference_data", "ground_truth_data")
"""The parts of a row of Arthur Scope that have attributes by their names."""

_ID: Final = "partner_inference_id"


def own_words(message: object, rows: Sequence[Row], secrets: Iterable[str] = ()) -> str:
    """Return a message in one line, or "" where it may hold a text of a row, or a secret.

    Args:
        message: What Arthur said; anything, because others may answer in its place.
        rows: The rows that it may be about. Their ids may be in it: they are shown anyway.
        secrets: Texts that must not be in it either.
    """
    if not isinstance(message, str) or any(len(row.body) > MOST_ROW_BYTES for row in rows):
        return ""
    said = " ".join(message.split())
    if not 0 < len(said) <= MOST_CHARACTERS or not (said.isascii() and said.isprintable()):
        return ""
    lower = said.casefold()
    if _ENCODED.search(said) or any(secret.casefold() in lower for secret in secrets if secret):
        return ""
    rest = said
    for name in {name for row in rows for name in row.inference if name and name in said}:
        rest = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", " ", rest)
    return "" if any(_may_quote(rest, row.body) for row in rows) else said


def _may_quote(said: str, body: bytes) -> bool:
    """Return whether a message may hold a part of a row."""
    names, text = _read(body)
    said = _CONVENTIONS.sub(" ", said)
    words = [word for word in _WORD.findall(said) if word not in names]
    for part in [part for word in words for part in word.split("_") if part]:
        lower = part.casefold()
        if lower not in HARMLESS and (_PLAIN.fullmatch(part) is None or lower in text):
            return True
    if len(words) <= LONGEST_RUN:
        return False
    lower_words = [word.casefold() for word in words]
    spaced = " ".join(_WORD.findall(text))
    runs = zip(*[lower_words[at:] for at in range(LONGEST_RUN + 1)], strict=False)
    return any(" ".join(run) in spaced for run in runs)


def _read(body: bytes) -> tuple[frozenset[str], str]:
    """Return the names of a row's attributes, and its texts and numbers, in lower case."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        # A span: its texts are in its bytes as they are, but for the escapes of JSON within them.
        text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), body.decode(errors="replace"))
        return frozenset(), _folded(text)
    names: list[str] = [*document, *_DATA]
    values: list[object] = []
    for name, value in document.items():
        if name in _DATA and isinstance(value, dict):
            names += value
            values += value.values()
        elif name != _ID:
            values.append(value)
    return frozenset(names), _folded("\n".join(_texts(values)))


def _texts(values: list[object]) -> Iterator[str]:
    """Yield all texts and numbers of JSON values, with the names that are within them."""
    waiting = values
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif value is not None:
            yield str(value)


def _folded(text: str) -> str:
    """Return a text in lower case; where it has accents, once more without them."""
    text = text.casefold()
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return f"{text}\n{plain}"
