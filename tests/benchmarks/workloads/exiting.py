"""For orientation: how long a process takes to end, and what arrives of what it had captured."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.lineup import Stage
from tests.benchmarks.markdown import NOTHING, Section, Table, cell_text, number
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.sink import Mode
from tests.benchmarks.workloads.throughput import arrived
from tests.benchmarks.workloads.workload import Commands, Workload

LIMIT_SECONDS = 60.0
_EMIT_LIMIT_SECONDS = 60.0
_WARM_UP_RECORDS = 100


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    records: int


FULL = Size(records=2_500)
QUICK = Size(records=100)

COMMANDS: Commands = {}
"""What the memory's measurement has: `converse`."""

# In the run.


def run(stage: Stage) -> Cells:
    """Measure."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    for mode in (Mode.UP, Mode.HANGING):
        for peer in stage.peers:
            sample = _exit(stage, cells, peer, mode, size)
            if sample is not None:
                cells.cell(mode, peer).samples.append(sample)
    stage.sink.mode(Mode.UP)
    return cells


def _exit(stage: Stage, cells: Cells, peer: str, mode: Mode, size: Size) -> Sample | None:
    """Capture, return from the main module, and wait for the end."""
    stage.sink.mode(Mode.UP)
    with stage.lineup(cells, peers=[peer], unspoilt=False) as lineup:
        for first, count in ((0, _WARM_UP_RECORDS), (_WARM_UP_RECORDS, size.records)):
            emitted = lineup.ask(
                peer, mode, "converse", limit_seconds=_EMIT_LIMIT_SECONDS, first=first, count=count
            )
            if emitted is None:
                return None
            if not first:
                lineup.ask(peer, mode, "flush", limit_seconds=30.0, flush_seconds=20.0)
                stage.sink.mode(mode)
                stage.sink.reset()
        seconds = lineup.child(peer).leave(LIMIT_SECONDS)
        sample: Sample = {"records": size.records}
        if seconds is not None:
            sample["exit_seconds"] = seconds
        if lineup.delivers(peer):
            # Nobody is left to send more.
            sample["arrived"] = arrived(stage, size.records, settle_seconds=1.0)
        return sample


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    rows = []
    for peer in dict.fromkeys(peer for case in cells.cases for peer in cells.peers(case)):
        row = [peer]
        for case in cells.cases:
            row += [_seconds_text(cells, case, peer), _arrived_text(cells, case, peer)]
        rows.append(tuple(row))
    header = [
        part
        for case in cells.cases
        for part in (f"sink {case}: exit after", f"sink {case}: arrived")
    ]
    records = max(
        (
            int(count)
            for row in cells.cases.values()
            for c in row.values()
            for count in c.values("records")
        ),
        default=0,
    )
    return Section(
        title="8. Exit (for orientation)",
        text=(
            f"A process captures {records:,} records and returns from its main module, without a"
            f" flush. After {LIMIT_SECONDS:.0f} s it is killed."
        ),
        tables=[Table("An ordinary exit", ("peer", *header), rows)],
    )


def _seconds_text(cells: Cells, case: str, peer: str) -> str:
    def show() -> str:
        seconds = cells.find(case, peer).values("exit_seconds")
        return f"{number(seconds[0])} s" if seconds else f"not in {LIMIT_SECONDS:.0f} s"

    return cell_text(cells, case, peer, show)


def _arrived_text(cells: Cells, case: str, peer: str) -> str:
    count = cells.find(case, peer).values("arrived")
    return f"{count[0]:,.0f}" if count else NOTHING


WORKLOAD = Workload("exiting", run, section, in_quick_form=False)
