"""Figure 10: rows that a daemon acknowledges, beside SQLite alone; and a backlog in the spool."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass

from tests.benchmarks.children import ROOT, environment
from tests.benchmarks.intake.daemon import NOWHERE, DaemonProcess
from tests.benchmarks.lineup import Stage
from tests.benchmarks.markdown import (
    TIMES,
    Section,
    Table,
    at_least,
    at_most,
    ratio_text,
    value_text,
)
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.sink import Mode
from tests.benchmarks.workloads.workload import Commands, Workload

RAW = "raw SQLite"
DAEMON = "daemon"
BACKLOG = "backlog"
CONNECTIONS = 32
LEAST_SHARE = 0.50
MOST_GROWTH_MIB = 64.0
"""Flat: an outage of 2 GB of rows costs no more than the buffers of the requests themselves."""

_LIMIT_SECONDS = 300.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rows: dict[int, int]
    """By the rows of a request."""
    repetitions: int
    backlog: int


FULL = Size(rows={1: 6_400, 100: 96_000, 500: 160_000}, repetitions=10, backlog=1_000_000)
QUICK = Size(rows={100: 6_400}, repetitions=1, backlog=6_400)

COMMANDS: Commands = {}
"""None: it has processes of its own."""


def case_of(durability: str, batch: int) -> str:
    """The name of a case."""
    return f"{durability}, requests of {batch}"


# In the run.


def run(stage: Stage) -> Cells:
    """Measure; whatever peers were asked for, this is about the daemon."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    for durability in ("process", "power"):
        for batch, rows in size.rows.items():
            case = case_of(durability, batch)
            for _ in range(size.repetitions):
                raw = _ask(stage, "raw", rows, batch, durability)
                cells.cell(case, RAW).samples.append(raw)
                cells.cell(case, DAEMON).samples.append(_load(stage, rows, batch, durability))
    cells.cell(BACKLOG, DAEMON).samples.append(_backlog(stage, size.backlog))
    return cells


def _load(stage: Stage, rows: int, batch: int, durability: str) -> Sample:
    with DaemonProcess(
        stage.python, environment(), NOWHERE, ARTHUR_RELAY_DURABILITY=durability
    ) as daemon:
        _ask(stage, "load", daemon.socket, CONNECTIONS * batch, batch, CONNECTIONS, 0)  # warm
        before = daemon.cpu_seconds()
        sample = _ask(stage, "load", daemon.socket, rows, batch, CONNECTIONS, CONNECTIONS)
        sample["cpu_us_per_row"] = (daemon.cpu_seconds() - before) / sample["rows"] * 1e6
        return sample


def _backlog(stage: Stage, rows: int) -> Sample:
    """Let a backlog build while the sink refuses, and drain; say what memory it took."""
    stage.sink.reset()
    stage.sink.mode(Mode.REFUSING)
    with DaemonProcess(stage.python, environment(), stage.sink.url) as daemon:
        first = _ask(stage, "load", daemon.socket, CONNECTIONS * 100, 100, CONNECTIONS, 0)
        before = daemon.peak_mib()
        sample = _ask(stage, "load", daemon.socket, rows, 100, CONNECTIONS, CONNECTIONS)
        sample["built_mib"] = daemon.resident_mib()
        sent = int(first["rows"] + sample["rows"])
        stage.sink.mode(Mode.UP)
        begun = time.monotonic()
        while (arrived := stage.sink.counts().records) < sent:
            if time.monotonic() - begun > stage.deadline.within(_LIMIT_SECONDS):
                break
            time.sleep(0.1)
        sample["drained_per_second"] = arrived / (time.monotonic() - begun)
        sample["before_mib"] = before
        sample["growth_mib"] = daemon.peak_mib() - before
        sample["emitted"], sample["delivered"] = sent, arrived
    return sample


def _ask(stage: Stage, module: str, *arguments: object) -> Sample:
    done = subprocess.run(
        [stage.python, "-m", f"tests.benchmarks.intake.{module}", *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=stage.deadline.within(_LIMIT_SECONDS),
        check=False,
    )
    if done.returncode:
        raise OSError(f"tests.benchmarks.intake.{module} failed: {done.stderr[-2000:]}")
    found: Sample = json.loads(done.stdout)
    return found


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    judged = case_of("process", 100)
    metric = "rows_per_second"
    figures = [
        at_least(
            f"{judged}: acknowledged rows/s, over those that SQLite alone commits",
            LEAST_SHARE,
            TIMES,
            cells.ratio(judged, DAEMON, metric, to=RAW),
        ),
        at_most(
            "memory that a backlog adds, from its first rows to its last",
            MOST_GROWTH_MIB,
            "MiB",
            cells.spread(BACKLOG, DAEMON, "growth_mib"),
        ),
    ]
    rows = [
        (
            case,
            value_text(cells, case, RAW, metric),
            value_text(cells, case, DAEMON, metric),
            ratio_text(cells, case, DAEMON, metric, to=RAW),
            value_text(cells, case, DAEMON, "p50_ms"),
            value_text(cells, case, DAEMON, "p99_ms"),
            value_text(cells, case, DAEMON, "cpu_us_per_row"),
        )
        for case in cells.cases
        if case != BACKLOG
    ]
    header = (
        "durability",
        "SQLite alone, rows/s",
        "daemon, rows/s",
        "share",
        "acknowledged after, p50 ms",
        "p99 ms",
        "CPU µs a row",
    )
    backlog = [
        tuple(
            value_text(cells, BACKLOG, DAEMON, name)
            for name in ("rows", metric, "drained_per_second", "before_mib", "growth_mib")
        )
    ]
    return Section(
        title="10. The daemon's durable intake",
        text=(
            f"{CONNECTIONS} clients in one process send rows of 2 KB by a Unix socket, each its"
            " next request once the last one is acknowledged, while Arthur is away. Acknowledged"
            " is what is committed: requests that wait share a commit. Beside it one process that"
            " commits the same rows, as many at a time as a request has, into SQLite with the same"
            " page size and journal, and does nothing else. Both in turn, on the same disk."
        ),
        figures=figures,
        tables=[
            Table("Rows of 2 KB, acknowledged", header, rows),
            Table(
                "A backlog, built while the sink refuses, then drained",
                ("rows", "built, rows/s", "drained, rows/s", "memory before, MiB", "more, MiB"),
                backlog,
            ),
        ],
    )


WORKLOAD = Workload("durable", run, section)
