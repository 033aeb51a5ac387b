"""Figure 6: what importing the handler takes, and that a lazy one connects to nothing."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.children import ChildError, run_fresh
from tests.benchmarks.lineup import Stage
from tests.benchmarks.markdown import Section, Table, at_most, value_text
from tests.benchmarks.peers import MODEL_ID
from tests.benchmarks.results import Cells
from tests.benchmarks.workloads.workload import Commands, Workload

CASE = "import"
HANDLER = "from arthur_relay import ArthurCallbackHandler"
BASE = "import langchain_core.callbacks"
STATEMENTS = (BASE, HANDLER, "import httpx")
CONSTRUCTION = "construction"
MOST_IMPORT_MS = 60.0
_LIMIT_SECONDS = 60.0

_IMPORTING = """
import time
begun = time.perf_counter()
{statement}
ended = time.perf_counter()
import json
print(json.dumps({{"import_ms": (ended - begun) * 1e3}}))
"""
_CONSTRUCTING = """
import json, os, sys, threading, time
from arthur_relay import ArthurCallbackHandler, RelaySettings

connecting = []

def watch(event, arguments):
    if event == "socket.connect":
        connecting.append(threading.get_ident())

sys.addaudithook(watch)
os.environ["ARTHUR_API_KEY"] = "key"
settings = RelaySettings(connect="{connect}")
begun = time.perf_counter()
ArthurCallbackHandler.from_credentials("{model_id}", arthur_url="{url}", settings=settings)
ended = time.perf_counter()
print(json.dumps({{
    "construct_ms": (ended - begun) * 1e3,
    "caller_connections": connecting.count(threading.get_ident()),
    "connections": len(connecting),
}}))
"""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    repetitions: int


FULL = Size(repetitions=20)
QUICK = Size(repetitions=1)

COMMANDS: Commands = {}
"""None: every repetition is a fresh interpreter."""

# In the run.


def run(stage: Stage) -> Cells:
    """Measure; whatever peers were asked for, this is about the relay."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    sources = {
        (CASE, statement): _IMPORTING.format(statement=statement) for statement in STATEMENTS
    }
    for connect in ("lazy", "eager"):
        sources[CONSTRUCTION, connect] = _CONSTRUCTING.format(
            connect=connect, model_id=MODEL_ID, url=stage.sink.url
        )
    # The first round, which does not count, caches bytecode and fills the page cache.
    for repetition in range(0 if stage.quick else -1, size.repetitions):
        for (case, peer), source in sources.items():
            cell = cells.cell(case, peer)
            try:
                sample = dict(
                    run_fresh(
                        stage.python, source, limit_seconds=stage.deadline.within(_LIMIT_SECONDS)
                    )
                )
            except ChildError as error:
                cell.failure = str(error)
                continue
            if repetition >= 0:
                cell.samples.append(sample)
    return cells


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    figures = [
        at_most(
            f"`{HANDLER}` above `{BASE}`",
            MOST_IMPORT_MS,
            "ms",
            cells.difference(CASE, HANDLER, "import_ms", to=BASE),
        ),
        at_most(
            'connections opened by constructing the handler with `connect="lazy"`',
            0,
            "",
            cells.spread(CONSTRUCTION, "lazy", "connections"),
        ),
    ]
    imports = Table(
        "In fresh interpreters, in turn",
        ("statement", "ms"),
        [
            (f"`{statement}`", value_text(cells, CASE, statement, "import_ms"))
            for statement in STATEMENTS
        ],
    )
    construction = Table(
        "Constructing the first handler of a process, the worker's start included",
        ("connect", "ms", "connections", "of them on the caller's thread"),
        [
            (
                connect,
                value_text(cells, CONSTRUCTION, connect, "construct_ms"),
                value_text(cells, CONSTRUCTION, connect, "connections"),
                value_text(cells, CONSTRUCTION, connect, "caller_connections"),
            )
            for connect in cells.peers(CONSTRUCTION)
        ],
    )
    return Section(
        title="6. Import and construction",
        text=(
            "Each repetition is a process of its own that imports one thing, with its bytecode"
            " cached; differences are those of the rounds."
        ),
        figures=figures,
        tables=[imports, construction],
    )


WORKLOAD = Workload("importing", run, section)
