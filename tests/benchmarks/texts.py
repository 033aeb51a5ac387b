"""Texts to log: phrases of real English prose, seeded, no two alike.

The prose is what every Python brings along: the language reference of `pydoc`, and the docstrings
of the standard library, 300,000 words. A text is made of phrases of five words from places drawn
at random. Longer slices would be truer to the letter, but 60,000 texts of 2 KB are 120 MB: what
compresses with a long memory would find each slice again, and look better than on any real traffic.
So made, a block shrinks to 40 % (zlib), and with two megabytes before it to a third (zstd).
"""

from __future__ import annotations

import random
import re
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PHRASE_WORDS = 5
_LEAST_DOCSTRING_CHARACTERS = 200
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
_LEFT_OUT = frozenset({"site-packages", "test", "tests", "idlelib", "lib2to3", "encodings"})


@cache
def words() -> tuple[str, ...]:
    """The prose, as its words in order."""
    from pydoc_data.topics import topics  # half a megabyte: only for who needs texts

    return tuple(word for text in (*topics.values(), *_docstrings()) for word in text.split())


def _docstrings() -> Iterator[str]:
    for path in _sources(Path(sysconfig.get_path("stdlib"))):
        # A few files of the library are in an encoding of their own.
        source = path.read_text(encoding="utf-8", errors="replace")
        for found in _DOCSTRING.findall(source):
            if len(found) >= _LEAST_DOCSTRING_CHARACTERS:
                yield found


def _sources(directory: Path) -> Iterator[Path]:
    """The modules in a directory, in an order that does not depend on the file system."""
    for path in sorted(directory.iterdir()):
        if path.suffix == ".py":
            yield path
        elif path.is_dir() and path.name not in _LEFT_OUT:
            yield from _sources(path)


def text(seed: int, characters: int) -> str:
    """A text of that many characters; the same seed gives the same text."""
    prose = words()
    draw = random.Random(seed)
    last = len(prose) - PHRASE_WORDS
    phrases: list[str] = []
    size = 0
    while size <= characters:
        begin = draw.randrange(last)
        phrase = " ".join(prose[begin : begin + PHRASE_WORDS])
        phrases.append(phrase)
        size += len(phrase) + 1
    return " ".join(phrases)[:characters]


def tokens(seed: int, count: int) -> list[str]:
    """That many tokens of an answer: words, each with the space that follows it."""
    prose = words()
    begin = random.Random(seed).randrange(len(prose) - count)
    return [f"{word} " for word in prose[begin : begin + count]]
