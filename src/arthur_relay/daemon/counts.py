"""What the intake counts: requests, rows, connections. Written by its loop, read by any thread."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class IntakeCounts:
    """Counts since the start.

    Attributes:
        requests: Requests for rows, by method and status.
        rows: Rows by what became of them: `accepted`, `refused` (they never can be), `deferred`
            (503: the client keeps them).
        connections: Open connections, by door.
        observe: Given, for each request with rows that were accepted, the seconds until then.
        body_bytes: Bytes of requests' bodies that are in memory now.
    """

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    connections: Counter[str] = field(default_factory=Counter)
    observe: list[Callable[[float], None]] = field(default_factory=list)
    body_bytes: int = 0
