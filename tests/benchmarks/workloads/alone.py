"""Figure 4: the relay alone, beside what the HTTP client can do at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from tests.benchmarks.bench import Bench, settle
from tests.benchmarks.inferences import documents, inferences
from tests.benchmarks.least import IN_FLIGHT, LeastSender, encoded_inference
from tests.benchmarks.lineup import ROOM, Lineup, Stage
from tests.benchmarks.markdown import (
    TIMES,
    Section,
    Table,
    at_least,
    number,
    ratio_text,
    value_text,
)
from tests.benchmarks.peers import LEAST, MODEL_ID
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.workloads.workload import Commands, Workload

BATCHES: dict[int, Mapping[str, Any]] = {500: ROOM, 100: {**ROOM, "batch_size": 100}}
"""The relay's settings by the size of the batches; 500 is the default."""

RELAY = "relay"
LIMIT = "none"
"""The peer in whose process the limit is measured."""

LEAST_SHARE = 0.60

_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    records: int
    repetitions: int


FULL = Size(records=50_000, repetitions=20)
QUICK = Size(records=2_000, repetitions=2)


# In the measuring process.


def capture(bench: Bench, *, records: int) -> Sample:
    """Capture records and flush; returns how many passed in a second."""
    [handler] = bench.peer.callbacks
    return _timed(handler.relay.capture, bench.flush, records)


def append(bench: Bench, *, records: int, batch_size: int) -> Sample:
    """Do the same with the least that could deliver."""
    sender = LeastSender(_url(bench), encoded_inference, batch_size=batch_size)
    found = _timed(sender.append, lambda: sender.flush(_LIMIT_SECONDS), records)
    sender.close()
    return found


def _timed(take: Callable[[Any], object], flush: Callable[[], object], records: int) -> Sample:
    given = inferences(records)
    settle()
    begun = time.perf_counter()
    for inference in given:
        take(inference)
    captured = time.perf_counter()
    flush()
    ended = time.perf_counter()
    return {
        "records_per_second": records / (ended - begun),
        "captured_per_second": records / (captured - begun),
        "emitted": records,
    }


def post(bench: Bench, *, records: int, batch_size: int) -> Sample:
    """Encode and post the same records with nothing around the client."""
    given = documents(records)
    settle()
    seconds = bench.run(_post(_url(bench), given, batch_size))
    return {"records_per_second": records / seconds, "emitted": records}


def _url(bench: Bench) -> str:
    return f"{bench.url}/api/v3/models/{MODEL_ID}/inferences"


async def _post(url: str, given: list[dict[str, object]], batch_size: int) -> float:
    headers = {"Content-Type": "application/json", "Authorization": "key"}
    starts = iter(range(0, len(given), batch_size))

    async def sender(client: httpx.AsyncClient) -> None:
        for start in starts:
            body = orjson.dumps(given[start : start + batch_size])
            answer = await client.post(url, content=body, headers=headers)
            assert answer.status_code == 207

    async with httpx.AsyncClient(trust_env=False, timeout=60.0) as client:
        begun = time.perf_counter()
        await asyncio.gather(*[sender(client) for _ in range(IN_FLIGHT)])
        return time.perf_counter() - begun


COMMANDS: Commands = {"capture": capture, "append": append, "post": post}

# In the run.


def run(stage: Stage) -> Cells:
    """Measure; whatever peers were asked for, this is about the relay."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    for batch_size, settings in BATCHES.items():
        case = f"batches of {batch_size}"
        commands: dict[str, tuple[str, Mapping[str, int]]] = {
            LIMIT: ("post", {"batch_size": batch_size}),
            LEAST: ("append", {"batch_size": batch_size}),
            RELAY: ("capture", {}),
        }
        with stage.lineup(cells, peers=commands, settings=settings) as lineup:
            for repetition in range(-1, size.repetitions):
                for peer, (command, arguments) in commands.items():
                    sample = _measure(stage, lineup, peer, case, command, size, **arguments)
                    if repetition >= 0 and sample is not None:
                        cells.cell(case, peer).samples.append(sample)
    return cells


def _measure(
    stage: Stage,
    lineup: Lineup,
    peer: str,
    case: str,
    command: str,
    size: Size,
    **arguments: object,
) -> Sample | None:
    stage.sink.reset()
    sample = lineup.ask(
        peer, case, command, limit_seconds=_LIMIT_SECONDS, records=size.records, **arguments
    )
    if sample is not None:
        sample["delivered"] = stage.sink.counts().records
    return sample


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    figures = [
        at_least(
            f"{case}: records/s of the relay, over the limit's",
            LEAST_SHARE,
            TIMES,
            cells.ratio(case, RELAY, "records_per_second", to=LIMIT),
        )
        for case in cells.cases
    ]
    rows = [
        (
            case,
            value_text(cells, case, LIMIT, "records_per_second"),
            value_text(cells, case, LEAST, "records_per_second"),
            ratio_text(cells, case, LEAST, "records_per_second", to=LIMIT),
            value_text(cells, case, RELAY, "records_per_second"),
            ratio_text(cells, case, RELAY, "records_per_second", to=LIMIT),
            ratio_text(cells, case, RELAY, "records_per_second", to=LEAST),
            value_text(cells, case, RELAY, "captured_per_second"),
        )
        for case in cells.cases
    ]
    header = (
        "",
        "limit, records/s",
        "least, records/s",
        "its share",
        "relay, records/s",
        "its share",
        "relay over least",
        "captured/s",
    )
    return Section(
        title="4. The relay alone",
        text=(
            "`Relay.capture` of ready records of 2 KB until the flush returns. The limit is one"
            f" httpx client that posts the same records, encoded with orjson, {IN_FLIGHT} requests"
            " in flight, and does nothing else. `least` is a yardstick and no tool: a"
            " `deque.append` by the caller, and a thread with a loop that makes JSON of each record"
            " and posts it with such a client, without bounds, accounting, schema, retries or"
            " verdicts (`least.py`). All in turn, against the same sink."
            + "".join(f" {_demanded(cells, case)}" for case in cells.cases)
        ),
        figures=figures,
        tables=[Table("Records of 2 KB a second", header, rows)],
    )


def _demanded(cells: Cells, case: str) -> str:
    """What the figure leaves for a record, in µs, and what is taken."""
    limit = cells.spread(case, LIMIT, "records_per_second")
    if limit is None:
        return ""
    rest = 1e6 / limit.median
    taken = [
        f"`{peer}` takes {number(1e6 / found.median)} µs"
        for peer in (LEAST, RELAY)
        if (found := cells.spread(case, peer, "records_per_second")) is not None
    ]
    return (
        f"In {case} the limit is {number(rest)} µs a record, and the figure leaves"
        f" {number(rest / LEAST_SHARE)} µs for the capture and all else"
        f"{'; ' * bool(taken)}{', '.join(taken)}."
    )


WORKLOAD = Workload("alone", run, section)
