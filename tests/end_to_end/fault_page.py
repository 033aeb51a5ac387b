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

Made from the table in [test_faults.py](test_faults.py), which plays each fault against a real
server over real sockets, and holds this page to what it finds. Three inferences are captured and
travel in one request, while something goes wrong:

- **attempts** of the relay to send them, on which Arthur sees **requests** (a refused token is
  replaced within an attempt);
- **delivered**, and what was **not delivered, and why**: rejected ones are kept as dead letters;
- **doubled**: how many Arthur was given once more because an answer of it was lost, with the same
  id. No other ever is;
- **logins** in all;
- **log**: lines at WARNING, in all;
- **exit**: what becomes of them when the process ends while it goes wrong. An exit *in time*
  settles them as told in the row; *at its deadline* it ends with what is left counted as dropped.
  Beyond its deadline it never lasts.

Of what does not pass, `health()` says why. Each time, what `stats()` says is compared with what
Arthur has.
"""


ENGINE_INTRODUCTION = """\
## Arthur Engine

The same for Arthur Engine, from [engine_table.py](engine_table.py): a handler captures a chain, its
retriever and its model, and the three spans travel in one request. The Engine stores a span twice
that is sent twice, so after an answer that was lost it is asked which spans it has; **questions**
counts that. It takes a key, so there are no logins.
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
