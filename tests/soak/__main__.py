"""The command: `python -m tests.soak --seconds 300 --rate 200`. Ends with 0 when all was kept."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.soak.fleet import FleetSoak
from tests.soak.fleet_verdict import fleet_report, judge_fleet
from tests.soak.report import report
from tests.soak.run import Soak, SoakError
from tests.soak.sabotage import Damage
from tests.soak.verdict import Verdict, judge


def main() -> None:
    """Run a soak and report."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Capture at a steady rate while faults come and go at the server and the"
        " process is killed and restarted, then check that every promise was kept. With --fleet:"
        " have clients send rows to a fleet of which one part after the other is killed or hangs.",
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="how long it captures")
    parser.add_argument("--rate", type=float, help="inferences a second; 200, and 500 by --fleet")
    parser.add_argument("--fleet", action="store_true", help="of a fleet")
    parser.add_argument("--rows", type=int, default=100_000, help="how many are sent to a fleet")
    parser.add_argument("--seed", type=int, help="repeats the faults and the moments of the kills")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="keep the report and what it was made of there"
    )
    parser.add_argument(
        "--break",
        dest="sabotage",
        nargs="+",
        choices=list(Damage),
        default=[],
        help="break a promise on purpose, to see that it is told",
    )
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if chosen.seed is None else chosen.seed
    with TemporaryDirectory(prefix="soak-") as temporary:
        directory = chosen.output or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            parser.error(f"{directory} is not empty")
        try:
            verdict, text = (of_fleet if chosen.fleet else of_process)(chosen, directory, seed)
        except SoakError as error:
            sys.exit(f"the soak could not go on (seed {seed}): {error}")
        if chosen.output:
            (directory / "report.md").write_text(text)
    sys.stdout.write(text)
    sys.exit(0 if verdict.kept else 1)


def of_process(chosen: argparse.Namespace, directory: Path, seed: int) -> tuple[Verdict, str]:
    """Run the soak of a process that captures; returns what was found, and the report."""
    rate = chosen.rate or 200.0
    sabotage = tuple(chosen.sabotage)
    soak = Soak(directory, chosen.seconds, rate, seed, sabotage=sabotage, tell=teller())
    verdict = judge(soak.run())
    return verdict, report(
        verdict, seconds=chosen.seconds, rate=rate, seed=seed, sabotaged=soak.sabotaged
    )


def of_fleet(chosen: argparse.Namespace, directory: Path, seed: int) -> tuple[Verdict, str]:
    """Run the soak of a fleet; returns what was found, and the report."""
    rate = chosen.rate or 500.0
    sabotage = tuple(chosen.sabotage)
    begun = time.monotonic()
    soak = FleetSoak(directory, chosen.rows, rate, seed, sabotage=sabotage, tell=teller())
    verdict = judge_fleet(soak.run())
    return verdict, fleet_report(
        verdict,
        rows=chosen.rows,
        rate=rate,
        seed=seed,
        seconds=time.monotonic() - begun,
        sabotaged=soak.sabotaged,
    )


def teller() -> Callable[[str], object]:
    """Return what tells how far a soak is."""
    begun = time.monotonic()
    return lambda line: sys.stderr.write(f"{time.monotonic() - begun:6.1f} s  {line}\n")


if __name__ == "__main__":
    main()
