"""Figure 9: how requests in flight follow a server whose capacity changes in steps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from arthur_relay.delivery.concurrency import ConcurrencyLimit
from tests.benchmarks.bench import Bench
from tests.benchmarks.inferences import inferences
from tests.benchmarks.lineup import Stage
from tests.benchmarks.markdown import (
    TIMES,
    Figure,
    Section,
    Table,
    at_least,
    at_most,
    value_text,
)
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.sink.capacity import SERVICE_SECONDS, SERVICE_SIGMA, WAITING_FOR_ONE
from tests.benchmarks.workloads.workload import Commands, Workload

NAME = "adapting"
ADAPTIVE = "adaptive"
MOST_IN_FLIGHT = 16
VARIANTS: dict[str, tuple[int, bool]] = {
    ADAPTIVE: (MOST_IN_FLIGHT, True),
    "fixed 1": (1, False),
    "fixed 4": (4, False),
    "fixed 16": (MOST_IN_FLIGHT, False),
}
"""`max_in_flight` of each, and whether the relay adapts below it."""

ALL_STEPS = "all steps"
COURSE = "course"
"""The case that has, as its samples, the limit and the capacity at one moment each."""

LEAST_RATE_RATIO = 0.8
MOST_REFUSED_PERCENT = 5.0
BATCH_SIZE = 20
_WAITING_RECORDS = 100 * BATCH_SIZE
"""Always as many, so that there is always more to send than may be sent."""

_LOOK_SECONDS = 0.02
_LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    steps: tuple[int, ...]
    step_seconds: float
    repetitions: int


FULL = Size(steps=(8, 2, 12, 4), step_seconds=6.0, repetitions=3)
QUICK = Size(steps=(8, 2, 12), step_seconds=0.4, repetitions=1)


# In the measuring process.


class FixedLimit(ConcurrencyLimit):
    """A limit that does not adapt: what the relay would be without it."""

    def succeeded(self, began_in: int, *, seconds: float, size: int) -> None:
        """Stay."""

    def failed(self, began_in: int) -> None:
        """Stay."""


def saturate(bench: Bench, *, seconds: float, fixed: int) -> dict[str, Any]:
    """Always have records waiting, for some seconds, and look at the limit; then flush.

    Args:
        bench: The bench.
        seconds: For how long.
        fixed: Requests in flight, always; 0 lets the relay adapt.
    """
    [handler] = bench.peer.callbacks
    relay = handler.relay
    sender = relay._host.pipeline.worker.sender
    if fixed:
        sender.flow.limit = FixedLimit(fixed)
    moments = []
    emitted = 0
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        moments.append((now, sender.limit.requests))
        missing = _WAITING_RECORDS - relay.stats().pending
        for inference in inferences(missing, prefix=f"{now}"):
            relay.capture(inference)
        emitted += max(0, missing)
        time.sleep(_LOOK_SECONDS)
    bench.flush()
    # On a machine so busy that nothing had arrived by the end, this is the only one that counts.
    moments.append((time.monotonic(), sender.limit.requests))
    return {"emitted": emitted, "moments": moments}


COMMANDS: Commands = {"saturate": saturate}

# In the run.


def run(stage: Stage) -> Cells:
    """Measure; the place of the peers is taken by the ways to send."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    steps = [(at_once, size.step_seconds) for at_once in size.steps]
    for repetition in range(size.repetitions):
        for variant in VARIANTS:
            _measure(stage, cells, variant, steps, keep_course=repetition == 0)
    stage.sink.limit(None)
    return cells


def _measure(
    stage: Stage,
    cells: Cells,
    variant: str,
    steps: list[tuple[int, float]],
    *,
    keep_course: bool,
) -> None:
    in_flight, adapts = VARIANTS[variant]
    settings = {"max_in_flight": in_flight, "batch_size": BATCH_SIZE}
    stage.sink.reset()
    stage.sink.limit(steps)
    with stage.lineup(cells, peers=["relay"], settings=settings, unspoilt=False) as lineup:
        answer: Any = lineup.ask(
            "relay",
            ALL_STEPS,
            "saturate",
            limit_seconds=_LIMIT_SECONDS,
            seconds=sum(seconds for _, seconds in steps),
            fixed=0 if adapts else in_flight,
        )
        if answer is None:
            return
        delivered = stage.sink.counts().records
    tallies = stage.sink.tallies()
    for number, tally in enumerate(tallies):
        cells.cell(step_name(number, tally["at_once"]), variant).samples.append(
            _sample(tally, seconds=tally["seconds"])
        )
    everything = {
        name: sum(tally[name] for tally in tallies) for name in ("requests", "refused", "records")
    }
    sample = _sample(everything, seconds=sum(seconds for _, seconds in steps))
    sample |= {"emitted": answer["emitted"], "delivered": delivered}
    cells.cell(ALL_STEPS, variant).samples.append(sample)
    if keep_course and adapts:
        cells.cell(COURSE, variant).samples.extend(_course(answer["moments"], tallies))


def step_name(number: int, at_once: int) -> str:
    """What a step is called."""
    return f"{number + 1}. {at_once} at once"


def _sample(tally: dict[str, float], *, seconds: float) -> Sample:
    found = {
        "delivered_per_second": tally["records"] / seconds,
        "refused_percent": 100 * tally["refused"] / max(1, tally["requests"]),
    }
    return found | {name: tally[name] for name in ("p50_ms", "p99_ms") if name in tally}


def _course(moments: list[tuple[float, int]], tallies: list[dict[str, Any]]) -> list[Sample]:
    """The limit and the capacity at each moment; both processes have one clock."""
    begun = tallies[0]["begun"]
    return [
        {
            "seconds": at - begun,
            "limit": limit,
            "at_once": [tally["at_once"] for tally in tallies if tally["begun"] <= at][-1],
        }
        for at, limit in moments
        if at >= begun
    ]


# In the report.


def steps_of(cells: Cells) -> list[str]:
    """The steps, in their order."""
    return [case for case in cells.cases if case not in (ALL_STEPS, COURSE)]


def section(cells: Cells) -> Section:
    """The section of the report."""
    header = ("", "records/s", "refused (429)", "request, p50", "request, p99")
    return Section(
        title="9. Adaptive delivery",
        text=(
            "A server that serves a number of requests at once, each in"
            f" {SERVICE_SECONDS * 1e3:.0f} ms on average (log-normal, sigma {SERVICE_SIGMA});"
            f" {WAITING_FOR_ONE} more may wait for each of them, and the others are answered 429."
            " The number changes in steps, and there are always more records waiting, in batches"
            f" of {BATCH_SIZE}. `{ADAPTIVE}` is the relay with `max_in_flight = {MOST_IN_FLIGHT}`;"
            " `fixed` is the same relay without the adaptation, always with so many requests in"
            " flight. A step counts from its beginning, with the time that it takes to find out."
            " What it shows: a fixed number is right for one capacity; it leaves a larger one"
            " unused, and has a smaller one refuse. The relay need not know it: see the plot's end."
        ),
        figures=_figures(cells),
        tables=[
            Table(
                f"{case[:1].upper()}{case[1:]}",
                header,
                [
                    (
                        variant,
                        value_text(cells, case, variant, "delivered_per_second"),
                        value_text(cells, case, variant, "refused_percent", "%"),
                        value_text(cells, case, variant, "p50_ms", "ms"),
                        value_text(cells, case, variant, "p99_ms", "ms"),
                    )
                    for variant in cells.peers(case)
                ],
            )
            for case in [*steps_of(cells), ALL_STEPS]
        ],
    )


def _figures(cells: Cells) -> list[Figure]:
    figures = []
    for step in steps_of(cells):
        best = best_fixed(cells, step)
        figures.append(
            at_least(
                f"{step}: records/s, over those of {best}, the best fixed number there",
                LEAST_RATE_RATIO,
                TIMES,
                cells.ratio(step, ADAPTIVE, "delivered_per_second", to=best),
            )
        )
    refused = cells.spread(ALL_STEPS, ADAPTIVE, "refused_percent")
    figures.append(at_most("requests refused, of all", MOST_REFUSED_PERCENT, "%", refused))
    return figures


def best_fixed(cells: Cells, step: str) -> str:
    """The fixed number that delivers most in a step."""

    def rate(variant: str) -> float:
        found = cells.spread(step, variant, "delivered_per_second")
        return found.median if found else 0.0

    return max((variant for variant in VARIANTS if variant != ADAPTIVE), key=rate)


WORKLOAD = Workload(NAME, run, section)
