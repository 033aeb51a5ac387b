"""The benchmark's one command: `python3 -m tests.benchmarks`, with any Python from 3.11 on.

Builds an environment with every peer in it, unless one is given, and runs the benchmark there.
Needs nothing but the standard library itself.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.environment import ROOT, build, variables

CURRENT = "current"
DEFAULT_ENVIRONMENT = ".venv-benchmarks"
DEFAULT_OUTPUT = Path(__file__).with_name("report")


def main() -> None:
    """Build the environment, then run in it."""
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.benchmarks",
        description="Measure arthur-relay beside its peers, and write a report.",
    )
    parser.add_argument("--quick", action="store_true", help="small counts: does it all work?")
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, metavar="DIR", help="where the report goes"
    )
    parser.add_argument("--only", nargs="+", metavar="WORKLOAD", help="these workloads only")
    parser.add_argument("--peers", nargs="+", metavar="PEER", help="these peers only")
    parser.add_argument(
        "--environment",
        default=DEFAULT_ENVIRONMENT,
        metavar="DIR",
        help=f"an environment, made when it is not there; `{CURRENT}` for this interpreter's",
    )
    chosen = parser.parse_args()
    if chosen.environment == CURRENT:
        python = sys.executable
    else:
        python = str(build(ROOT / chosen.environment))
    passed_on = ["--output", str(chosen.output.absolute()), "--command", repeated(chosen)]
    if chosen.quick:
        passed_on.append("--quick")
    for name in ("only", "peers"):
        if values := getattr(chosen, name):
            passed_on += [f"--{name}", *values]
    done = subprocess.run(
        [python, "-m", "tests.benchmarks.run", *passed_on],
        cwd=ROOT,
        env=variables(os.environ),
        check=False,
    )
    raise SystemExit(done.returncode)


def repeated(chosen: argparse.Namespace) -> str:
    """The command that repeats the run: what was measured, without where things are."""
    options = ["--quick"] if chosen.quick else []
    for name in ("only", "peers"):
        if values := getattr(chosen, name):
            options += [f"--{name}", *values]
    return " ".join(["python3 -m tests.benchmarks", *options])


if __name__ == "__main__":
    main()
