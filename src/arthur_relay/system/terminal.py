"""Text that is safe to show on a terminal: control characters become readable escapes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

# Control characters (C0, DEL, C1), characters that reverse or hide text (bidi and zero-width, all
# of the category Cf), line separators, lone surrogates, private ones, and the invisible characters
# that Unicode has in other categories.
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Co"})
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
_SUSPECT = re.compile(r"[^ -~]")

_CREDENTIALS = re.compile(
    r"(?<=://)[^\s,'\"]+(?=@)"  # also with a slash or an @ in the password
    r"|(?<![^\s,'\"])[^\s,'\":@/]+:(?!//)[^\s,'\"]+(?=@)"  # the scheme was forgotten
)
HIDDEN = "***"


def without_credentials(text: str) -> str:
    """Return a text in which no address shows a user, a password or a token."""
    return _CREDENTIALS.sub(HIDDEN, text)


def printable(text: str, *, keep: str = "") -> str:
    r"""Return a text with each character that a terminal would obey, or not show, as `\uXXXX`.

    The escapes are JSON's, so that JSON stays valid.

    Args:
        text: Any text.
        keep: Characters that stay as they are, such as a line break.
    """

    def escaped(found: re.Match[str]) -> str:
        character = found[0]
        if character in keep or not _is_unsafe(character):
            return character
        units = character.encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))

    return _SUSPECT.sub(escaped, text)


def printable_document(document: Any) -> Any:
    """Return a JSON document with all its texts printable, its keys included."""
    if isinstance(document, str):
        return printable(document)
    if isinstance(document, Mapping):
        return {printable(str(key)): printable_document(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [printable_document(value) for value in document]
    return document


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _ESCAPED or character in _INVISIBLE
