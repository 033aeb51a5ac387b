"""Figure 11: what an application pays on its own path when it sends through a daemon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.children import environment
from tests.benchmarks.intake.daemon import DaemonProcess
from tests.benchmarks.lineup import Repetitions, Stage
from tests.benchmarks.markdown import (
    TIMES,
    Figure,
    Section,
    Table,
    at_most,
    number,
    ratio_text,
    value_text,
)
from tests.benchmarks.peers import BY_DAEMON
from tests.benchmarks.results import Cells
from tests.benchmarks.sink import Mode
from tests.benchmarks.workloads import caller_path, latency
from tests.benchmarks.workloads.workload import Commands, Workload

DIRECT = "relay"
PASS = "pass-inline"
PEERS = (PASS, DIRECT, BY_DAEMON)
DAEMON = "daemon"
THINKING = "streams"
ARRIVED = "arrived"
INTERVAL_SECONDS = 0.05
"""How long rows wait for others, in both applications and in the daemon."""
MOST_RATIO = 1.0
_LIMIT_SECONDS = 60.0
_LOOK_SECONDS = 0.005


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    calls: int
    crowds: int
    repetitions: int
    tokens: int
    waves: int


FULL = Size(calls=100, crowds=2, repetitions=24, tokens=100, waves=2)
QUICK = Size(calls=10, crowds=1, repetitions=2, tokens=10, waves=1)

COMMANDS: Commands = {}
"""None: it measures with those of the other workloads."""


# In the run.


class _Arrivals:
    """What has been sent, by the peers in turn, and what of it has arrived."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.sent = 0
        self.arrived = 0

    def each_brings(self, records: int) -> Callable[[str], None]:
        """What to do after a turn: no one has the next one while the daemon still delivers."""

        def wait(peer: str) -> None:
            if peer == PASS:
                return
            self.sent += records
            self.arrived = self._stage.wait_for_arrivals(
                self.sent, limit_seconds=_LIMIT_SECONDS, look_seconds=_LOOK_SECONDS
            )

        return wait


def run(stage: Stage) -> Cells:
    """Measure; whatever peers were asked for, this is about the relay and the daemon."""
    size = QUICK if stage.quick else FULL
    repetitions = Repetitions(size.repetitions, size.repetitions)
    cells = Cells()
    stage.sink.mode(Mode.UP)
    stage.sink.reset()
    arrivals = _Arrivals(stage)
    interval = {"flush_interval_seconds": INTERVAL_SECONDS}
    variables = {"ARTHUR_RELAY_FLUSH_INTERVAL_SECONDS": str(INTERVAL_SECONDS)}
    with DaemonProcess(stage.python, environment(), stage.sink.url, **variables) as daemon:
        stage.addresses[BY_DAEMON] = f"unix://{daemon.socket}"
        with stage.lineup(cells, peers=PEERS, settings=interval, unspoilt=False) as lineup:
            for case, (command, count, arguments) in _turns(size).items():
                before = daemon.cpu_seconds()
                lineup.rounds(
                    case,
                    command,
                    repetitions,
                    limit_seconds=_LIMIT_SECONDS,
                    flush=True,
                    after=arrivals.each_brings(count),
                    **arguments,
                )
                calls = (size.repetitions + 1) * count  # one is not measured
                took = (daemon.cpu_seconds() - before) / calls * 1e3
                cells.cell(case, DAEMON).samples.append({"daemon_cpu_ms": took})
    total = {"emitted": arrivals.sent, "delivered": arrivals.arrived}
    cells.cell(ARRIVED, DAEMON).samples.append({k: float(v) for k, v in total.items()})
    return cells


def _turns(size: Size) -> dict[str, tuple[str, int, dict[str, object]]]:
    """What a turn is by case: a command, the calls in it, and its arguments."""
    turns: dict[str, tuple[str, int, dict[str, object]]] = {}
    for form in caller_path.FORMS:
        count = size.crowds * caller_path.CROWD if form == "crowd" else size.calls
        turns[form] = "calls", count, {"form": form, "count": count}
    streams: dict[str, object] = {"tokens": size.tokens, "count": size.waves}
    turns[THINKING] = "waves", latency.STREAMS * size.waves, streams
    return turns


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    figures = [
        at_most(
            f"{label}: {caller_path.CLOCKS[metric]}, over that without the daemon",
            MOST_RATIO,
            TIMES,
            cells.ratio(form, BY_DAEMON, metric, to=DIRECT),
        )
        for metric in caller_path.CLOCKS
        for form, label in caller_path.FORMS.items()
    ]
    figures += [
        at_most(
            f"{latency.STREAMS} streams with a think time: {label}, over that without the daemon",
            MOST_RATIO,
            TIMES,
            cells.ratio(THINKING, BY_DAEMON, metric, to=DIRECT),
        )
        for metric, label in latency.METRICS.items()
    ]
    return Section(
        title="11. Through the daemon",
        text=(
            "The streamed calls of section 1 and the streams of section 2, by an application whose"
            " relay sends to the sink itself, and by one whose relay has the Unix socket of a"
            " daemon as Arthur's URL, which stores the rows and delivers them to the same sink;"
            " beside both the inline `pass` handler. All in turn, each turn once the daemon has"
            f" delivered what the last one brought. Rows wait for others {INTERVAL_SECONDS:g} s, so"
            " that sending, storing and delivering run beside the calls. The daemon is a process of"
            " its own: its CPU is not the application's, and is told apart; but on two cores it,"
            f" the sink and the application compete, which the wall clock sees. {_meaning(figures)}"
        ),
        figures=figures,
        tables=[
            *[_table(cells, metric) for metric in caller_path.CLOCKS],
            _latency_table(cells),
            Table(
                "CPU of the daemon, ms a call",
                ("", *caller_path.FORMS.values(), "streams with a think time"),
                [
                    (
                        DAEMON,
                        *[
                            value_text(cells, form, DAEMON, "daemon_cpu_ms")
                            for form in (*caller_path.FORMS, THINKING)
                        ],
                    )
                ],
            ),
        ],
    )


def _meaning(figures: list[Figure]) -> str:
    """The section in a sentence."""
    judged = [figure for figure in figures if figure.reached is not None]
    more = [figure.what for figure in judged if not (figure.reached or figure.in_doubt)]
    if not judged:
        return ""
    if not more:
        return (
            "So an application pays no more on its own path through a daemon than without one:"
            " every ratio is at most 1, or above it by less than the noise."
        )
    return (
        f"So in {number(len(more))} of {number(len(judged))} ratios an application pays more on its"
        " own path through a daemon than without one, by what the table says."
    )


def _table(cells: Cells, metric: str) -> Table:
    rows = []
    for peer in PEERS:
        row = [peer]
        for form in caller_path.FORMS:
            row.append(value_text(cells, form, peer, metric, "ms"))
            row.append(ratio_text(cells, form, peer, metric, to=DIRECT))
            row.append(ratio_text(cells, form, peer, metric, to=PASS))
        rows.append(tuple(row))
    header = [
        part
        for form in caller_path.FORMS
        for part in (caller_path.FORMS[form], f"{TIMES} {DIRECT}", f"{TIMES} {PASS}")
    ]
    return Table(f"{caller_path.CLOCKS[metric]}, a call", ("peer", *header), rows)


def _latency_table(cells: Cells) -> Table:
    rows = [
        (
            peer,
            *[
                value_text(cells, THINKING, peer, metric, "ms")
                if peer == DIRECT
                else ratio_text(cells, THINKING, peer, metric, to=DIRECT)
                for metric in latency.METRICS
            ],
        )
        for peer in PEERS
    ]
    title = f"Streams with a think time: {TIMES} the relay without the daemon, which is in ms"
    return Table(title, ("peer", *latency.METRICS.values()), rows)


WORKLOAD = Workload("by_daemon", run, section)
