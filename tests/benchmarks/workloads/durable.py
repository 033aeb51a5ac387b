"""Figure 10: rows that a daemon acknowledges, beside SQLite alone; and a backlog in the spool."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass

from tests.benchmarks.children import ROOT, environment
from tests.benchmarks.intake.daemon import NOWHERE, DaemonProcess
from tests.benchmarks.lineup import Repetitions, Stage
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
CROWD = 200
"""Clients at once, in a case of their own."""
LEAST_SHARE = 0.50
MOST_GROWTH_MIB = 64.0
"""Flat: an outage of 2 GB of rows costs no more than the buffers of the requests themselves."""

NOT_COMPARED = (
    "No figure of Vector's or Fluent Bit's stands beside these: none that they publish is of the"
    ' same work. The table "Performance" in Vector\'s README has MiB/s of lines by TCP or from a'
    " file, to TCP, HTTP or nowhere, where nobody is told that a line is safe. Its"
    " [test harness](https://github.com/vectordotdev/vector-test-harness) has a case with a disk"
    " buffer, whose speed that table leaves out; and what is in such a buffer is synchronised to"
    " disk every 500 ms, as the reference of its configuration says, not before an answer. The"
    " README of Fluent Bit's [test tools](https://github.com/fluent/fluent-bit-perf) has an example"
    " of reading a file, which tells the CPU and memory at a given rate, and advises against"
    " trusting the reports of maintainers and vendors."
)

_LIMIT_SECONDS = 300.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rows: dict[int, int]
    """By the rows of a request."""
    crowd_rows: int
    repetitions: Repetitions
    backlog: int


FULL = Size(
    rows={1: 6_400, 10: 32_000, 100: 96_000, 500: 160_000},
    crowd_rows=100_000,
    repetitions=Repetitions(core=10, others=4),
    backlog=1_000_000,
)
QUICK = Size(
    rows={10: 640, 100: 6_400}, crowd_rows=20_000, repetitions=Repetitions(1, 1), backlog=6_400
)

COMMANDS: Commands = {}
"""None: it has processes of its own."""


def case_of(durability: str, batch: int, connections: int = CONNECTIONS) -> str:
    """The name of a case."""
    return f"{durability}, requests of {batch}, {connections} clients"


JUDGED = case_of("process", 100)

# In the run.


def run(stage: Stage) -> Cells:
    """Measure; whatever peers were asked for, this is about the daemon."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    for durability in ("process", "power"):
        loads = [(batch, rows, CONNECTIONS) for batch, rows in size.rows.items()]
        for batch, rows, connections in (*loads, (100, size.crowd_rows, CROWD)):
            case = case_of(durability, batch, connections)
            is_judged = case == JUDGED
            for _ in range(size.repetitions.core if is_judged else size.repetitions.others):
                raw = _ask(stage, "raw", rows, batch, durability)
                cells.cell(case, RAW).samples.append(raw)
                acknowledged = _load(stage, rows, batch, durability, connections)
                cells.cell(case, DAEMON).samples.append(acknowledged)
    cells.cell(BACKLOG, DAEMON).samples.append(_backlog(stage, size.backlog))
    return cells


def _load(stage: Stage, rows: int, batch: int, durability: str, connections: int) -> Sample:
    with DaemonProcess(
        stage.python, environment(), NOWHERE, ARTHUR_RELAY_DURABILITY=durability
    ) as daemon:
        _ask(stage, "load", daemon.socket, connections * batch, batch, connections, 0)  # warm
        before = daemon.cpu_seconds()
        sample = _ask(stage, "load", daemon.socket, rows, batch, connections, connections)
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
        arrived = stage.wait_for_arrivals(sent, limit_seconds=_LIMIT_SECONDS, look_seconds=0.1)
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
    metric = "rows_per_second"
    figures = [
        at_least(
            f"{JUDGED}: acknowledged rows/s, over those that SQLite alone commits",
            LEAST_SHARE,
            TIMES,
            cells.ratio(JUDGED, DAEMON, metric, to=RAW),
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
            f"{CONNECTIONS} clients, or {CROWD}, in one process send rows of 2 KB by a Unix socket,"
            " each its next request once the last one is acknowledged, while Arthur is away."
            " Acknowledged is what is committed: requests that wait share a commit. Beside it one"
            " process that commits the same rows, as many at a time as a request has, into SQLite"
            " with the same page size and journal, and does nothing else. Both in turn, on the same"
            f" disk. {NOT_COMPARED}"
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
