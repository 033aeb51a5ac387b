"""What the sink is told and what it tells: its modes and its counts."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Mode(StrEnum):
    """How the sink treats requests that carry records; all others are answered as ever.

    Only `REFUSING` holds for every request: a port that nobody listens on tells none apart.
    """

    UP = "up"
    """Answers at once."""
    SLOW = "slow"
    """Answers after half a second, every connection by itself."""
    HANGING = "hanging"
    """Reads and never answers, not even after the mode has changed."""
    UNAVAILABLE = "503"
    """Answers 503 at once."""
    REFUSING = "refusing"
    """Cuts every connection and lets nobody connect."""


class Counts(NamedTuple):
    """What has arrived since the last reset."""

    records: int
    """Records with an id of their own in requests that were answered with success."""
    duplicates: int
    """Records beyond those: their id had been answered with success before."""
    requests: int
    """Requests that carry records and were read to their end, whatever the answer was."""
    bytes: int
    """Bytes of their bodies, as they were on the wire."""
