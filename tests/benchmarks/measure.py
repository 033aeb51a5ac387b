"""The measuring process: `python -m tests.benchmarks.measure PEER URL`, one peer for its life.

Reads commands from standard input, a JSON object a line, and answers each with a line: the value,
or what went wrong. When the input ends it ends, at once; the command `leave` returns from the main
module instead, so that the peer's own exit takes its course.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import IO, Any

from tests.benchmarks.bench import Bench, leave_at_once
from tests.benchmarks.workloads import COMMANDS


def main() -> None:
    """Serve commands."""
    name, url = sys.argv[1:]
    answers = own_output()
    bench = Bench(name, url)
    for line in sys.stdin:
        request = json.loads(line)
        if request["command"] == "leave":
            return
        answers.write(json.dumps(answer(bench, request)) + "\n")
        answers.flush()
    leave_at_once()


def answer(bench: Bench, request: dict[str, Any]) -> dict[str, Any]:
    """Do what was asked, and say what came of it."""
    command = request["command"]
    try:
        return {"value": COMMANDS[command](bench, **request["arguments"])}
    except ImportError as error:
        return {"error": f"not installed ({error.name})"}
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is its result
        traceback.print_exc()
        # Without its text, which may hold a path: this goes into the report.
        return {"error": f"{command} raised {type(error).__name__}"}


def own_output() -> IO[str]:
    """Keep standard output for answers; what peers print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main()
