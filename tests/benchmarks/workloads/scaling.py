"""Figure 7: what a record costs at more of everything: records, handlers, threads, messages."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks import texts
from tests.benchmarks.bench import Bench, Clocks, settle
from tests.benchmarks.chat_model import history, result_of
from tests.benchmarks.inferences import inferences
from tests.benchmarks.lineup import ROOM, Stage
from tests.benchmarks.markdown import NOTHING, TIMES, Figure, Section, Table, at_most, value_text
from tests.benchmarks.peers import MODEL_ID
from tests.benchmarks.ratios import paired_ratios, spread
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.workloads.workload import Commands, Workload

NAME = "scaling"
AXES = {
    "records": "records captured at a stretch",
    "handlers": "handlers that share the records",
    "threads": "threads capturing at once",
    "messages": "messages of history in a run",
}
MOST_RATIO = 1.2
"""Of the cost for each record or message, at ten times as many: 1 would be a straight line."""

MESSAGE_CHARACTERS = 170
_LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    records: int
    """Where their number is not what grows."""
    runs: int
    amounts: dict[str, tuple[int, ...]]
    repetitions: int


FULL = Size(
    records=10_000,
    runs=2_000,
    amounts={
        "records": (2_000, 5_000, 10_000, 20_000, 50_000, 100_000),
        "handlers": (1, 3, 10, 30, 100),
        "threads": (1, 2, 4, 8, 16, 32, 64),
        "messages": (1, 3, 10, 30, 100),
    },
    repetitions=10,
)
QUICK = Size(
    records=640,
    runs=100,
    amounts={
        "records": (100, 1_000),
        "handlers": (1, 10),
        "threads": (1, 10, 64),
        "messages": (1, 10, 100),
    },
    repetitions=1,
)


# In the measuring process.


def captures(bench: Bench, *, records: int, threads: int) -> Sample:
    """Capture records from a number of threads at once, and flush."""
    [handler] = bench.peer.callbacks
    relay = handler.relay
    given = inferences(records, prefix=str(uuid.uuid4()))
    start = threading.Barrier(threads + 1)

    def capture(share: Sequence[Any]) -> None:
        start.wait()
        for inference in share:
            relay.capture(inference)

    workers = [
        threading.Thread(target=capture, args=(given[number::threads],))
        for number in range(threads)
    ]
    for worker in workers:
        worker.start()
    settle()
    begun = Clocks.now()
    start.wait()
    for worker in workers:
        worker.join()
    return _costs(bench, begun, records)


def handlers(bench: Bench, *, runs: int, amount: int) -> Sample:
    """Make handlers, as an application does for each request, and share runs out to them."""
    from arthur_relay import ArthurCallbackHandler

    [first] = bench.peer.callbacks
    messages = [history(1, texts.text(1, MESSAGE_CHARACTERS))]
    result = result_of(texts.text(2, MESSAGE_CHARACTERS))
    settle()
    begun = Clocks.now()
    made = [ArthurCallbackHandler(relay=first.relay, model_id=MODEL_ID) for _ in range(amount)]
    for number in range(runs):
        handler = made[number % amount]
        run_id = uuid.uuid4()
        handler.on_chat_model_start({}, messages, run_id=run_id)
        handler.on_llm_end(result, run_id=run_id)
    return _costs(bench, begun, runs)


def histories(bench: Bench, *, runs: int, messages: int) -> Sample:
    """Drive a handler through runs with so many messages."""
    [handler] = bench.peer.callbacks
    # A list for each run, as in an application, of messages that most have in common.
    prompt = history(messages, texts.text(1, MESSAGE_CHARACTERS))
    result = result_of(texts.text(2, MESSAGE_CHARACTERS))
    settle()
    begun = Clocks.now()
    for _ in range(runs):
        run_id = uuid.uuid4()
        handler.on_chat_model_start({}, [list(prompt)], run_id=run_id)
        handler.on_llm_end(result, run_id=run_id)
    return _costs(bench, begun, runs)


def _costs(bench: Bench, begun: Clocks, records: int) -> Sample:
    """Flush, and return what a record has cost since then."""
    captured = Clocks.now()
    bench.flush()
    ended = Clocks.now()
    return {
        "records_per_second": records / (ended.wall - begun.wall),
        "cpu_us_per_record": (ended.process - begun.process) / records * 1e6,
        "caller_us_per_record": (captured.thread - begun.thread) / records * 1e6,
        "emitted": records,
    }


COMMANDS: Commands = {"captures": captures, "handlers": handlers, "histories": histories}

# In the run.


def run(stage: Stage) -> Cells:
    """Measure; the place of the peers is taken by the amounts."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    with stage.lineup(cells, peers=["relay"], settings=ROOM) as lineup:
        for repetition in range(-1, size.repetitions):
            for axis, amounts in size.amounts.items():
                for amount in amounts:
                    stage.sink.reset()
                    command, arguments = _command(size, axis, amount)
                    sample = lineup.ask(
                        "relay", axis, command, limit_seconds=_LIMIT_SECONDS, **arguments
                    )
                    if sample is None:
                        return cells
                    sample["delivered"] = stage.sink.counts().records
                    if repetition >= 0:
                        cells.cell(axis, str(amount)).samples.append(sample)
    return cells


def _command(size: Size, axis: str, amount: int) -> tuple[str, dict[str, int]]:
    match axis:
        case "records":
            return "captures", {"records": amount, "threads": 1}
        case "threads":
            return "captures", {"records": size.records, "threads": amount}
        case "handlers":
            return "handlers", {"runs": size.runs, "amount": amount}
        case _:
            return "histories", {"runs": size.runs, "messages": amount}


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    return Section(
        title="7. At more of everything",
        text=(
            "Cost is CPU of the whole process, from the first capture to the end of the flush."
            " What grows by itself is the one thing; the rest stays as it is."
        ),
        figures=[figure for axis in cells.cases for figure in _figures(cells, axis)],
        tables=[_table(cells, axis) for axis in cells.cases if axis in AXES],
    )


def _figures(cells: Cells, axis: str) -> list[Figure]:
    """The cost at ten times as many, for the pairs of amounts that were measured."""
    amounts = [int(peer) for peer in cells.peers(axis) if peer.isdigit()]
    figures = []
    for amount in amounts:
        fold = 64 if axis == "threads" else 10
        if amount * fold not in amounts:
            continue
        ratios = paired_ratios(
            cells.find(axis, str(amount * fold)).values("cpu_us_per_record"),
            cells.find(axis, str(amount)).values("cpu_us_per_record"),
        )
        what = f"cost of a record at {amount * fold:,} {axis}, over that at {amount:,}"
        if axis == "messages":
            # A record with ten times the messages may cost ten times as much.
            ratios = [ratio / fold for ratio in ratios]
            what = f"cost of a message at {amount * fold:,} of them in a run, over {amount:,}"
        figures.append(at_most(what, MOST_RATIO, TIMES, spread(ratios)))
    return figures


def _table(cells: Cells, axis: str) -> Table:
    rows = [
        (
            f"{int(amount):,}" if amount.isdigit() else amount,
            value_text(cells, axis, amount, "records_per_second"),
            value_text(cells, axis, amount, "cpu_us_per_record"),
            NOTHING
            if axis in ("records", "threads")
            else value_text(cells, axis, amount, "caller_us_per_record"),
        )
        for amount in cells.peers(axis)
    ]
    header = (AXES[axis], "records/s", "CPU µs a record", "of it the caller's")
    return Table(f"More {axis}", header, rows)


WORKLOAD = Workload(NAME, run, section)
