"""What goes wrong at the server, and what that does to one request; pure, randomness is given."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.benchmarks.sink.answers import answer, answer_json

SLOW_SECONDS = (0.05, 0.6)
PARTLY_EVERY = 3
REJECTED = 400


class Kind(StrEnum):
    """What can be in force; it treats every request that carries rows alike, but for `MIXED`."""

    NONE = "none"
    UNAVAILABLE = "unavailable"
    """5xx, and nothing is stored."""
    THROTTLED = "throttled"
    """429, with or without `Retry-After`."""
    SLOW = "slow"
    """Stored, and answered later."""
    HANGING = "hanging"
    """Not stored, and never answered."""
    CUT = "cut"
    """Not stored, and the connection ends."""
    REFUSING = "refusing"
    """Nobody can connect, and the connections end."""
    PARTLY = "partly"
    """Every third row fails with a status that may pass."""
    LOST_BY_CUT = "answer lost: cut"
    """Stored, and the connection ends before the answer."""
    LOST_IN_PART = "answer lost: half of it"
    """Stored, and the connection ends in the middle of the answer."""
    LOST_BY_STATUS = "answer lost: 5xx"
    """Stored, and the answer says that it failed."""
    LOST_BY_SILENCE = "answer lost: none"
    """Stored, and never answered."""
    MIXED = "mixed"
    """Any of these but `REFUSING`, drawn for each request; half of them meet none."""


_TO_MIX = [kind for kind in Kind if kind not in (Kind.NONE, Kind.REFUSING, Kind.MIXED)]
TELLING: Final = frozenset({Kind.NONE, Kind.SLOW, Kind.PARTLY})
"""With these the answer says what became of each row; after all others a row has to come again."""

_STORING = TELLING | {
    *(Kind.LOST_BY_CUT, Kind.LOST_IN_PART, Kind.LOST_BY_STATUS, Kind.LOST_BY_SILENCE)
}
_CUTTING = frozenset({Kind.CUT, Kind.REFUSING, Kind.LOST_BY_CUT, Kind.LOST_IN_PART})
_RETRY_AFTER = ("", "Retry-After: 0\r\n", "Retry-After: 1\r\n", "Retry-After: soon\r\n")


@dataclass(frozen=True)
class Treatment:
    """What becomes of a request.

    Attributes:
        kind: What went wrong; one that is drawn in place of `MIXED`.
        stored: For each row whether it is stored.
        answer: What is written to the connection; nothing when it is empty.
        tells: Whether the answer says what became of each row.
        seconds: How long the answer waits.
        cut: Whether the connection ends then.
    """

    kind: Kind
    stored: list[bool]
    answer: bytes
    tells: bool
    seconds: float
    cut: bool


def treat(kind: Kind, rows: int, draw: random.Random, rejected: Sequence[bool] = ()) -> Treatment:
    """Decide what becomes of a request.

    Args:
        kind: What goes wrong.
        rows: How many rows it has.
        draw: Randomness.
        rejected: For each row whether Arthur rejects it for good; empty when it rejects none.
    """
    if kind is Kind.MIXED:
        kind = draw.choice(_TO_MIX) if draw.random() < 0.5 else Kind.NONE
    statuses = [200] * rows
    if kind is Kind.PARTLY:
        statuses[::PARTLY_EVERY] = [draw.choice([429, 500, 503]) for _ in statuses[::PARTLY_EVERY]]
    for number in (number for number, no in enumerate(rejected) if no):
        statuses[number] = REJECTED
    told = results(statuses)
    answers = {Kind.LOST_IN_PART: told[:-rows]} | dict.fromkeys(TELLING, told)
    if kind in (Kind.UNAVAILABLE, Kind.LOST_BY_STATUS):
        answers[kind] = answer_json(draw.choice([500, 502, 503, 504]), {"error": "on purpose"})
    if kind is Kind.THROTTLED:
        answers[kind] = _throttled(draw.choice(_RETRY_AFTER))
    return Treatment(
        kind,
        stored=[kind in _STORING and status == 200 for status in statuses],
        answer=answers.get(kind, b""),
        tells=kind in TELLING,
        seconds=draw.uniform(*SLOW_SECONDS) if kind is Kind.SLOW else 0.0,
        cut=kind in _CUTTING,
    )


def results(statuses: list[int]) -> bytes:
    """Arthur's answer to rows, with the status of each."""
    good = statuses.count(200)
    counts = {"success": good, "failure": len(statuses) - good, "total": len(statuses)}
    told = [{"message": "as it is", "status": status} for status in statuses]
    return answer(207, json.dumps({"counts": counts, "results": told}).encode())


def _throttled(header: str) -> bytes:
    head, _, body = answer_json(429, {"error": "too much"}).partition(b"\r\n\r\n")
    return head + b"\r\n" + header.encode() + b"\r\n" + body
