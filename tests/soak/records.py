"""What the processes write down, in files that are only appended to: one JSON array a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

CAPTURED: Final = "captured"
"""[number, digest, time]: about to be captured, so what is not here was never captured."""
SAFE: Final = "safe"
"""[number, time]: all that this process captured below the number is delivered or in the spool."""
REPEATED: Final = "repeated"
"""[number, next, time]: a client sends these again, from the first number to before the next."""
ENDED: Final = "ended"
"""[stats, time]: the process ended by itself, with these counts."""

ARRIVED: Final = "arrived"
"""[request, connection, fault, [[id, digest], …], [stored, …], time]: a request with rows."""
ANSWERED: Final = "answered"
"""[request, time]: its answer said what became of the rows, and was given to the connection."""
UNREAD: Final = "unread"
"""[request, time]: the client ended the connection after this answer, and used it for no other."""


class Records:
    """A file of records. What was added outlives the process, however that ends.

    Args:
        path: The file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def add(self, kind: str, *values: object) -> None:
        """Append a record, in one system call."""
        os.write(self._descriptor, json.dumps([kind, *values]).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_records(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """The records of a file, each as its kind and its values; without one that was cut short."""
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                kind, *values = json.loads(line)
                yield kind, values
