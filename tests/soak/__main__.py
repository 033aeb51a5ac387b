"""The command: `python -m tests.soak --seconds 300 --rate 200`. Ends with 0 when all was kept."""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.soak.report import report
from tests.soak.run import Soak, SoakError
from tests.soak.sabotage import Damage
from tests.soak.verdict import judge


def main() -> None:
    """Run a soak and report."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Capture at a steady rate while faults come and go at the server and the"
        " process is killed and restarted, then check that every promise was kept.",
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="how long it captures")
    parser.add_argument("--rate", type=float, default=200.0, help="inferences a second")
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
        begun = time.monotonic()
        soak = Soak(
            directory,
            chosen.seconds,
            chosen.rate,
            seed,
            sabotage=tuple(chosen.sabotage),
            tell=lambda line: sys.stderr.write(f"{time.monotonic() - begun:6.1f} s  {line}\n"),
        )
        try:
            verdict = judge(soak.run())
        except SoakError as error:
            sys.exit(f"the soak could not go on (seed {seed}): {error}")
        text = report(
            verdict,
            seconds=chosen.seconds,
            rate=chosen.rate,
            seed=seed,
            sabotaged=soak.sabotaged,
        )
        if chosen.output:
            (directory / "report.md").write_text(text)
    sys.stdout.write(text)
    sys.exit(0 if verdict.kept else 1)


if __name__ == "__main__":
    main()
