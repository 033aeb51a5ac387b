"""The table of faults, to read: Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.end_to_end.engine_fault import EngineFault
    from tests.end_to_end.fault import Fault

NONE = "—"

INTRODUCTION = """\
# What each fault makes the relay do

For people who want to know what happens when something goes wrong. Three inferences are captured
and sent in one request, during each of these faults. [test_faults.py](test_faults.py) plays them
with a real server over real sockets, and compares this page with what it finds. The columns are:

- **attempts:** how often the relay tries to send them; **requests:** how many of these Arthur sees
  (a refused token is replaced within an attempt);
- **delivered**, and what was **not delivered, and why**: rejected ones are kept as dead letters;
- **doubled:** how many Arthur gets a second time, with the same id, because its answer was lost. It
  gets no others twice;
- **logins:** how many there are;
- **log:** how many lines at WARNING;
- **exit:** what happens when the process ends during the fault. An exit *in time* settles the
  inferences as the row says; one *at its deadline* counts the rest as dropped. No exit takes longer
  than its deadline.

If something can't be delivered, `health()` says why. After each fault, `stats()` is compared with
what Arthur has.
"""


ENGINE_INTRODUCTION = """\
## Arthur Engine

The same for Arthur Engine, from [engine_table.py](engine_table.py): a handler captures a chain, its
retriever and its model, and the three spans are sent in one request. If a span is sent twice, the
Engine stores it twice, so when an answer was lost the relay asks it which spans it has;
**questions** counts that. The Engine takes a key, so there are no logins.
"""

HEADER = (
    "fault",
    "attempts",
    "requests",
    "delivered",
    "not delivered, and why",
    "doubled",
    "logins",
    "log",
    "exit",
)

ENGINE_HEADER = tuple("questions" if name == "logins" else name for name in HEADER)


def page(
    table: Mapping[str, Mapping[str, Fault]],
    engine_table: Mapping[str, Mapping[str, EngineFault]],
) -> str:
    """Return the whole page."""
    lines = [INTRODUCTION]
    for title, faults in table.items():
        rows = [_cells(name, fault, _logins(fault)) for name, fault in faults.items()]
        lines += _table(f"## {title}", HEADER, rows)
    lines.append(ENGINE_INTRODUCTION)
    for title, of_engine in engine_table.items():
        rows = [_cells(name, fault, _questions(fault)) for name, fault in of_engine.items()]
        lines += _table(f"### {title}", ENGINE_HEADER, rows)
    return "\n".join(lines).rstrip() + "\n"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [title, "", *map(_line, (header, ["---"] * len(header), *rows)), ""]


def _logins(fault: Fault) -> str:
    return "each time" if fault.logs_in_again else str(fault.logins or NONE)


def _questions(fault: EngineFault) -> str:
    return "again and again" if fault.asks_again else str(fault.questions or NONE)


def _cells(name: str, fault: Fault, extra: str) -> list[str]:
    attempts = str(fault.attempts)
    requests = attempts if fault.requests is None else str(fault.requests)
    if fault.says:
        attempts, requests = "again and again", requests if requests == "0" else "as many"
    elif fault.minutes:
        attempts += f" in {fault.minutes:g} min or more"
    reasons = [f"{count} rejected: {reason}" for reason, count in fault.rejected.items()]
    if fault.says:
        reasons = [f"3 wait: {fault.says}"]
    return [
        name,
        attempts,
        requests,
        str(fault.delivered),
        ", ".join(reasons) or NONE,
        "each time" if fault.unheard and fault.says else str(fault.doubled or NONE),
        extra,
        str(fault.lines or NONE),
        _exit(fault),
    ]


def _exit(fault: Fault) -> str:
    if not fault.outlasts_an_exit:
        return "in time"
    more = f"; Arthur has {fault.unheard}, unheard" if fault.unheard else ""
    return f"at its deadline: 3 dropped, shutdown{more}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
