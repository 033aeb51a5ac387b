"""The journal: the requests that arrived and what became of them, counted and kept for a while."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from arthur_relay.sandbox.ticks import Ticks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_REQUESTS: Final = 10_000
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
MAX_REJECTIONS: Final = 20
_ID_CHARACTERS: Final = 200


@dataclass(slots=True)
class RecordedRequest:
    """One request to the API, as it arrived.

    Attributes:
        method: The HTTP method.
        path: The path without the query.
        query: The query string, without the question mark; may be empty.
        headers: Names in lower case; of a repeated header the last.
        body: The whole body; may be empty.
        status: The status of the answer; None while there is none, and when it was cut.
        at: When it had arrived, in seconds since the epoch.
        port: The client's; requests of one connection have it in common. 0 when it is not known.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    status: int | None = None
    at: float = field(default_factory=time.time)
    port: int = 0


class Journal:
    """Counts requests and rows, and keeps the last requests. Methods may be called on any thread.

    Bounded: the last `MAX_REQUESTS` requests, and of these as many as have `MAX_BODY_BYTES` of
    bodies in all. The counts go on.
    """

    def __init__(self) -> None:
        self.changes = Ticks()
        self._lock = threading.Lock()
        self._requests: deque[RecordedRequest] = deque()
        self._body_bytes = 0
        self._answers: dict[str, Counter[str]] = {}
        self._rows: Counter[str] = Counter()
        self._rejections: deque[tuple[str, str]] = deque(maxlen=MAX_REJECTIONS)

    @property
    def requests(self) -> list[RecordedRequest]:
        """The last requests, oldest first; may be empty."""
        with self._lock:
            return list(self._requests)

    @property
    def duplicates(self) -> int:
        """Rows that came with an id that was known."""
        return self._rows["duplicates"]

    def arrived(self, request: RecordedRequest) -> None:
        """Keep a request."""
        with self._lock:
            self._requests.append(request)
            self._body_bytes += len(request.body)
            while len(self._requests) > MAX_REQUESTS or self._body_bytes > MAX_BODY_BYTES:
                self._body_bytes -= len(self._requests.popleft().body)

    def answered(self, route: str, status: int | None) -> None:
        """Count an answer; None when the client got none."""
        with self._lock:
            self._answers.setdefault(str(route), Counter())[str(status or "none")] += 1
        self.changes.advance()

    def count_rows(
        self, *, stored: int, duplicates: int, rejected: Sequence[tuple[str, str]]
    ) -> None:
        """Count what became of the rows of one request.

        Args:
            stored: How many are new.
            duplicates: How many were known.
            rejected: The id and the reason of each that was not taken; the last ones are kept.
        """
        with self._lock:
            self._rows.update(stored=stored, duplicates=duplicates, rejected=len(rejected))
            self._rejections.extend(rejected)

    def count_login(self) -> None:
        """Count a login that succeeded."""
        with self._lock:
            self._rows["logins"] += 1

    def state(self) -> dict[str, Any]:
        """The counts: requests by route and status, rejected rows, duplicates, logins.

        And the last rejected rows with their reasons, newest first.
        """
        with self._lock:
            return {
                "requests": {route: dict(counts) for route, counts in self._answers.items()},
                "rejected": self._rows["rejected"],
                "rejections": [
                    {"id": inference_id[:_ID_CHARACTERS], "reason": reason}
                    for inference_id, reason in reversed(self._rejections)
                ],
                "duplicates": self._rows["duplicates"],
                "logins": self._rows["logins"],
            }
