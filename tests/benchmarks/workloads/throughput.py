"""Figure 3: how many short calls LangChain makes a second, and how many of them are delivered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.bench import Bench, Clocks, settle
from tests.benchmarks.chat_model import FakeChat, short_conversation
from tests.benchmarks.lineup import Lineup, Repetitions, Stage
from tests.benchmarks.markdown import (
    NOTHING,
    TIMES,
    Section,
    Table,
    at_least,
    at_most,
    cell_text,
    number,
    ratio_text,
    spread_text,
    value_text,
)
from tests.benchmarks.peers import LEAST
from tests.benchmarks.ratios import Spread, paired_differences, spread
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.workloads.workload import Commands, Workload

NAME = "throughput"
CASE = "invoke"
RELAY = "relay"
BASELINE = "pass-inline"
ANSWER = "It takes records from the application and sends them on later, so that nobody waits."
LEAST_RATIO = 0.90
MOST_CPU_SECONDS = 0.05
_LIMIT_SECONDS = 240.0
_SETTLE_SECONDS = 3.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    records: int
    repetitions: Repetitions


FULL = Size(records=20_000, repetitions=Repetitions(7, 2))
QUICK = Size(records=500, repetitions=Repetitions(2, 1))


# In the measuring process.


def invokes(bench: Bench, *, count: int) -> Sample:
    """Make short calls, then have everything delivered; returns times and CPU."""
    model = FakeChat(answer=ANSWER)
    messages = short_conversation()
    config = bench.config
    settle()
    begun = Clocks.now()
    for _ in range(count):
        model.invoke(messages, config)
    emitted = Clocks.now()
    bench.flush()
    ended = Clocks.now()
    return {
        "emitted": count,
        "emit_seconds": emitted.wall - begun.wall,
        "total_seconds": ended.wall - begun.wall,
        "cpu_seconds": ended.process - begun.process,
    }


COMMANDS: Commands = {"invokes": invokes}

# In the run.


def run(stage: Stage) -> Cells:
    """Measure."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    peers = with_least(stage.peers)
    with stage.lineup(cells, peers=peers) as lineup:
        for repetition in range(-1, size.repetitions.core):
            for peer in peers:
                if repetition < size.repetitions.others or peer in {*stage.core, LEAST}:
                    # The first one, which does not count, can be shorter.
                    count = size.records if repetition >= 0 else size.records // 10
                    sample = _measure(stage, lineup, peer, count)
                    if repetition >= 0 and sample is not None:
                        cells.cell(CASE, peer).samples.append(sample)
    return cells


def with_least(peers: Sequence[str]) -> tuple[str, ...]:
    """The peers, with the yardstick before the relay where that is one of them."""
    return tuple(each for peer in peers for each in ((LEAST, peer) if peer == RELAY else (peer,)))


def _measure(stage: Stage, lineup: Lineup, peer: str, count: int) -> Sample | None:
    stage.sink.reset()
    sample = lineup.ask(peer, CASE, "invokes", limit_seconds=_LIMIT_SECONDS, count=count)
    if sample is None:
        return None
    found = {
        "emitted_per_second": count / sample["emit_seconds"],
        "cpu_seconds_per_1000": sample["cpu_seconds"] / count * 1e3,
    }
    if lineup.delivers(peer):
        delivered = arrived(stage, count)
        found |= {
            "emitted": count,
            "delivered": delivered,
            "delivered_per_second": delivered / sample["total_seconds"],
            "lost_percent": 100 * (count - delivered) / count,
        }
    return found


def arrived(stage: Stage, expected: int, *, settle_seconds: float = _SETTLE_SECONDS) -> int:
    """Count what the sink has got, once nothing more has come for a while."""
    records = stage.sink.counts().records
    last_change = time.monotonic()
    while records < expected and time.monotonic() - last_change < settle_seconds:
        time.sleep(_LOOK_SECONDS)
        now = stage.sink.counts().records
        if now != records:
            records, last_change = now, time.monotonic()
    return records


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    figures = [
        at_least(
            "emitting rate, over the inline `pass` handler's",
            LEAST_RATIO,
            TIMES,
            cells.ratio(CASE, RELAY, "emitted_per_second", to=BASELINE),
        ),
        at_most("lost", 0, "%", cells.spread(CASE, RELAY, "lost_percent")),
        at_most(
            "CPU for 1,000 records above no handler",
            MOST_CPU_SECONDS,
            "s",
            cpu_above_none(cells, RELAY),
        ),
    ]
    rows = [
        (
            peer,
            value_text(cells, CASE, peer, "emitted_per_second"),
            ratio_text(cells, CASE, peer, "emitted_per_second", to=BASELINE),
            ratio_text(cells, CASE, peer, "emitted_per_second", to=LEAST),
            value_text(cells, CASE, peer, "delivered_per_second"),
            value_text(cells, CASE, peer, "lost_percent", "%"),
            value_text(cells, CASE, peer, "cpu_seconds_per_1000"),
            _above_none_text(cells, peer),
        )
        for peer in cells.peers(CASE)
    ]
    header = (
        "peer",
        "emitted/s",
        f"{TIMES} {BASELINE}",
        f"{TIMES} {LEAST}",
        "delivered/s",
        "lost",
        "CPU s per 1,000",
        "above none",
    )
    return Section(
        title="3. Throughput through LangChain",
        text=(
            "Short `invoke`s one after the other, then a flush. The delivering rate counts what"
            " has reached the sink, and the time from the first call to the end of the flush; the"
            " CPU is that of the whole process until then. `least` is a yardstick and no tool: two"
            " methods that keep references and append them to a deque, and a thread that makes a"
            " text and JSON of them and posts it, without bounds, accounting, schema, retries or"
            f" verdicts (`least.py`).{_demanded(cells)}"
        ),
        figures=figures,
        tables=[Table("Short invokes", header, rows)],
    )


def _demanded(cells: Cells) -> str:
    """What the figures leave for all that a handler does, in µs a call, and what is taken."""
    base = cells.spread(CASE, BASELINE, "emitted_per_second")
    if base is None:
        return ""
    rest = 1e6 / base.median * (1 / LEAST_RATIO - 1)
    found = (
        f" Under `{BASELINE}` a call takes {number(1e6 / base.median)} µs, so the emitting rate"
        f" leaves {number(rest)} µs of a call's time for everything, from the first method to the"
        " last byte"
    )
    taken = [
        f"`{peer}` takes {number(rest_of_call.median)} µs"
        for peer in (LEAST, RELAY)
        if (rest_of_call := _time_above(cells, peer)) is not None
    ]
    return f"{found}{'; ' * bool(taken)}{', '.join(taken)}."


def _time_above(cells: Cells, peer: str) -> Spread | None:
    """What a call takes longer than under the inline `pass` handler, in µs, round by round."""
    ours, base = (
        [1e6 / rate for rate in cells.find(CASE, each).values("emitted_per_second")]
        for each in (peer, BASELINE)
    )
    return spread(paired_differences(ours, base))


def cpu_above_none(cells: Cells, peer: str) -> Spread | None:
    """CPU seconds for 1,000 records above no handler."""
    return cells.difference(CASE, peer, "cpu_seconds_per_1000", to="none")


def _above_none_text(cells: Cells, peer: str) -> str:
    if peer == "none":
        return NOTHING
    return cell_text(cells, CASE, peer, lambda: spread_text(cpu_above_none(cells, peer)))


WORKLOAD = Workload(NAME, run, section)
