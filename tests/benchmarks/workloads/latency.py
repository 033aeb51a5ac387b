"""Figure 2: what concurrent streams and the event loop notice, in each mode of the sink."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tests.benchmarks import texts
from tests.benchmarks.bench import Bench, settle
from tests.benchmarks.chat_model import FakeChat, short_conversation
from tests.benchmarks.lineup import Repetitions, Stage
from tests.benchmarks.markdown import TIMES, Section, Table, at_most, ratio_text, value_text
from tests.benchmarks.ratios import percentile
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.sink import Mode
from tests.benchmarks.workloads.workload import Commands, Workload

STREAMS = 50
THINK_SECONDS = 0.002
SLEEP_SECONDS = 0.005
SEED = 20_261_123
METRICS = {
    "stream_p50_ms": "stream, p50",
    "stream_p99_ms": "stream, p99",
    "stream_max_ms": "stream, max",
    "lateness_p50_ms": "lateness, p50",
    "lateness_p99_ms": "lateness, p99",
}
MOST_RATIO = 1.10
_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    tokens: int
    waves: int
    repetitions: Repetitions


FULL = Size(tokens=100, waves=2, repetitions=Repetitions(24, 3))
QUICK = Size(tokens=10, waves=1, repetitions=Repetitions(1, 1))


# In the measuring process.


def waves(bench: Bench, *, tokens: int, count: int) -> Sample:
    """Run waves of concurrent streams, and return how long they took and how late the loop was."""
    settle()
    streams_ms: list[float] = []
    lateness_ms: list[float] = []
    for wave in range(count):
        bench.run(_wave(bench, tokens, SEED + wave, streams_ms, lateness_ms))
    return {
        "stream_p50_ms": percentile(streams_ms, 50),
        "stream_p99_ms": percentile(streams_ms, 99),
        "stream_max_ms": max(streams_ms),
        "lateness_p50_ms": percentile(lateness_ms, 50),
        "lateness_p99_ms": percentile(lateness_ms, 99),
    }


async def _wave(
    bench: Bench, tokens: int, seed: int, streams_ms: list[float], lateness_ms: list[float]
) -> None:
    config = bench.config
    messages = short_conversation()
    answer = texts.tokens(seed, tokens)

    async def stream(place: int) -> None:
        # The same waits for every peer, and others for every stream.
        model = FakeChat(tokens=answer, think_seconds=THINK_SECONDS, seed=seed * STREAMS + place)
        begun = time.perf_counter()
        async for _ in model.astream(messages, config):
            pass
        streams_ms.append((time.perf_counter() - begun) * 1e3)

    watch = asyncio.create_task(_watch(lateness_ms))
    await asyncio.gather(*[stream(place) for place in range(STREAMS)])
    watch.cancel()


async def _watch(lateness_ms: list[float]) -> None:
    """Sleep, again and again, and note how much later than asked for the loop comes back."""
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(SLEEP_SECONDS)
        lateness_ms.append((time.perf_counter() - begun - SLEEP_SECONDS) * 1e3)


COMMANDS: Commands = {"waves": waves}

# In the run.


def run(stage: Stage) -> Cells:
    """Measure."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    # The quick form is over before some peers have given up on one call.
    peers = [peer for peer in stage.peers if peer in stage.core or not stage.quick]
    for mode in Mode:
        # Opened while the sink is up, as an application is before Arthur fails; and fresh for each
        # mode, so that what one mode has left behind is not delivered during the next.
        stage.sink.mode(Mode.UP)
        is_up = mode in (Mode.UP, Mode.SLOW)
        with stage.lineup(cells, peers=peers, unspoilt=is_up) as lineup:
            stage.sink.mode(mode)
            lineup.rounds(
                mode,
                "waves",
                size.repetitions,
                limit_seconds=_LIMIT_SECONDS,
                # What a peer still has to send is not to run beside the next one.
                flush=is_up,
                tokens=size.tokens,
                count=size.waves,
            )
    stage.sink.mode(Mode.UP)
    return cells


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    figures = [
        at_most(
            f"sink {mode}: {label}",
            MOST_RATIO,
            TIMES,
            cells.ratio(mode, "relay", metric, to="pass-inline"),
        )
        for mode in cells.cases
        for metric, label in METRICS.items()
    ]
    return Section(
        title="2. Whatever the sink does",
        text=(
            f"{STREAMS} streams at once, with a think time of {THINK_SECONDS * 1e3:g} ms between"
            " tokens, the same for every peer; a task beside them sleeps"
            f" {SLEEP_SECONDS * 1e3:g} ms at a time, and its lateness is the event loop's. The"
            " handler is made while the sink is up; then the sink changes its mode, and one round"
            " goes by that does not count. All figures are ratios to the inline `pass` handler."
        ),
        figures=figures,
        tables=[_table(cells, mode) for mode in cells.cases],
    )


def _table(cells: Cells, mode: str) -> Table:
    rows = []
    for peer in cells.peers(mode):
        row = [peer]
        for metric in METRICS:
            if peer == "pass-inline":
                row.append(value_text(cells, mode, peer, metric, "ms"))
            else:
                row.append(ratio_text(cells, mode, peer, metric, to="pass-inline"))
        rows.append(tuple(row))
    title = f"Sink {mode}: {TIMES} the inline `pass` handler, which is in ms"
    return Table(title, ("peer", *METRICS.values()), rows)


WORKLOAD = Workload("latency", run, section)
