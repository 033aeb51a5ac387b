"""`python -m tests.fuzz --seconds N [--seed S]`: the long form.

Ends with 0, or with 1 and the input that broke an invariant.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import time
import traceback
from random import Random
from typing import TYPE_CHECKING

from tests.fuzz.edge import fuzz_edge
from tests.fuzz.intake import fuzz_intake
from tests.fuzz.outcome import Outcome
from tests.fuzz.traces import fuzz_traces

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUND = {"intake": 500, "traces": 500, "edge": 100}
"""Cases between two looks at the clock."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz for as long as is told. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long")
    parser.add_argument("--seed", type=int, default=None, help="what the cases are made from")
    given = parser.parse_args(arguments)
    seed = secrets.randbits(32) if given.seed is None else given.seed
    _say(f"seed {seed}, {given.seconds:g} s")
    logging.getLogger("arthur_relay").addHandler(logging.NullHandler())
    logging.getLogger("asyncio").addHandler(logging.NullHandler())
    outcome = Outcome()
    deadline = time.monotonic() + given.seconds
    number = 0
    while number == 0 or time.monotonic() < deadline:
        targets = (("intake", fuzz_intake), ("traces", fuzz_traces), ("edge", fuzz_edge))
        for name, fuzz in targets:
            try:
                fuzz(Random(f"{seed} {number} {name}"), ROUND[name], outcome)
            except Exception:  # noqa: BLE001 - what a target raises is what it has found
                traceback.print_exc(file=sys.stdout)
                _say(f"{name} broke in round {number}: --seed {seed}; before that: {outcome}")
                return 1
        number += 1
    _say(f"{number} rounds: {outcome}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command's business


if __name__ == "__main__":
    sys.exit(main())
