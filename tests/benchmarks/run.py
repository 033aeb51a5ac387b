"""One run: every workload in turn, its report and its raw results; `__main__` starts it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.checks import problems
from tests.benchmarks.children import Deadline, tell
from tests.benchmarks.lineup import Stage
from tests.benchmarks.machine import facts
from tests.benchmarks.peers import PEERS, versions
from tests.benchmarks.plot import FIGURE_NAME, draw
from tests.benchmarks.report import render
from tests.benchmarks.results import Results
from tests.benchmarks.sink import Sink
from tests.benchmarks.workloads import WORKLOADS

CORE = ("none", "pass-inline", "relay")
PEERS_ENVIRONMENT = frozenset({"arthurai", "langchain-community", "langfuse", "opentelemetry-sdk"})
"""What is installed where all peers are."""

FULL_LIMIT_SECONDS = 3 * 3600.0
QUICK_LIMIT_SECONDS = 240.0
RESULTS_NAME = "results.json"
REPORT_NAME = "report.md"


def measure(
    results: Results, *, only: Sequence[str], peers: Sequence[str]
) -> Iterator[tuple[str, float]]:
    """Run workloads, and say after each one which it was and the seconds that it took.

    Args:
        results: Where what is measured goes.
        only: The workloads; all that the form has when empty.
        peers: Who is measured.
    """
    quick = results.quick
    chosen = only or [name for name, found in WORKLOADS.items() if found.in_quick_form or not quick]
    with (
        Sink() as sink,
        Stage(
            python=sys.executable,
            peers=tuple(peers),
            core=frozenset(CORE),
            quick=quick,
            sink=sink,
            deadline=Deadline(QUICK_LIMIT_SECONDS if quick else FULL_LIMIT_SECONDS),
        ) as stage,
    ):
        for name in chosen:
            begun = time.monotonic()
            results.workloads[name] = WORKLOADS[name].run(stage)
            yield name, time.monotonic() - begun


def write(results: Results, directory: Path) -> None:
    """Write the report, its plot and the raw results, so that a reader can judge by themselves."""
    directory.mkdir(parents=True, exist_ok=True)
    raw = json.dumps(results.to_json(), indent=1) + "\n"
    (directory / RESULTS_NAME).write_text(raw, encoding="utf-8")
    missing = draw(results, directory / FIGURE_NAME)
    report = render(results, plot=None if missing else FIGURE_NAME, plot_missing=missing)
    (directory / REPORT_NAME).write_text(report, encoding="utf-8")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read what `__main__` passes on."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--only", nargs="*", choices=tuple(WORKLOADS), default=())
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=())
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, write, and say what is wrong with the results."""
    chosen = parse(sys.argv[1:])
    everyone = versions().keys() >= PEERS_ENVIRONMENT
    peers = chosen.peers or (PEERS if everyone else [p for p in PEERS if p in CORE])
    results = Results(facts(chosen.command), quick=chosen.quick)
    for name, seconds in measure(results, only=chosen.only, peers=peers):
        # Each time anew: a run that is stopped half-way has not been for nothing.
        write(results, chosen.output)
        tell(f"{name}: {seconds:.1f} s")
    found = problems(results)
    for problem in found:
        tell(f"wrong: {problem}")
    tell(f"the report is in {chosen.output / REPORT_NAME}")
    # In the full form a peer's failure is a result; the quick one is there to find our own.
    raise SystemExit(1 if found and chosen.quick else 0)


if __name__ == "__main__":
    main()
