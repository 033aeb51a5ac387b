"""`python -m tests.benchmarks.intake.raw ROWS BATCH DURABILITY`: what SQLite alone can do.

The same rows in the same order of commits, in a file with the spool's page size and journal, and
nothing around it: no HTTP, no splitting, no answer. Prints rows a second.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.intake.rows import row

_SET_UP = """
PRAGMA page_size = 16384;
PRAGMA journal_mode = WAL;
CREATE TABLE rows (seq INTEGER PRIMARY KEY, id TEXT, model_id TEXT, body BLOB);
"""


def commit(rows: int, batch: int, durability: str, directory: Path) -> float:
    """Commit rows in batches; returns how many in a second."""
    content = [row(number) for number in range(min(rows, 1000))]
    connection = sqlite3.connect(directory / "raw.db", isolation_level=None)
    try:
        connection.executescript(_SET_UP)
        synchronous = "FULL" if durability == "power" else "NORMAL"
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        begun = time.perf_counter()
        for first in range(0, rows, batch):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO rows VALUES (?, ?, ?, ?)",
                [
                    (number, f"row-{number:09d}", "benchmark", content[number % len(content)])
                    for number in range(first, first + batch)
                ],
            )
            connection.execute("COMMIT")
        return rows / (time.perf_counter() - begun)
    finally:
        connection.close()


def main() -> None:
    """Measure."""
    rows, batch, durability = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        found = commit(int(rows), int(batch), durability, Path(directory))
    print(json.dumps({"rows_per_second": found}))  # noqa: T201 - its business


if __name__ == "__main__":
    main()
