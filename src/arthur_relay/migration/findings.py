"""What is found in a source: where it stands, what to do, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What is to be done about a finding."""

    CHANGE = "change"
    """It is certain what the code has to be; the command can write it."""

    DECIDE = "decide"
    """A person has to decide; the sentence says between what."""

    NOTE = "note"
    """Nothing has to change; it is good to know."""


@dataclass(frozen=True, order=True)
class Finding:
    """One thing at one place.

    Attributes:
        line: From 1, in the whole source; a notebook's cells are one source.
        column: From 1.
        verdict: What is to be done about it.
        sentence: What to change, and why.
    """

    line: int
    column: int
    verdict: Verdict
    sentence: str
