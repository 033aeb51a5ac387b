"""The fleet's table of faults, to read: Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.broker.faults import Fault

NONE = "—"

INTRODUCTION = """\
# What each fault makes a fleet do

Made from the table in [test_faults.py](test_faults.py), which plays each fault against gateways and
workers as real processes over real NATS servers, and holds this page to what it finds. Clients send
rows by Arthur's API while something goes wrong, then it is mended:

- **clients see** the answers in their order, the same one in a row once. *Late* is an answer that
  came only after what it waited for was over; one gateway waits for the broker for 25 seconds
  (`BROKER_PUBLISH_SECONDS`), the other one for a second, and then answers 503;
- **gateways** are ready, or say within five seconds at `/readyz` that they are not;
- **accepted rows** are those that were answered with 207. Each of them is delivered in the end;
- **twice**: whether Arthur may be given rows again that it has, with the same id;
- **unasked**: whether rows may arrive of which no client knows that they were accepted. They were
  answered with an error, or not at all, and the client sends them again.

After each fault the accounts are held against what clients saw and what Arthur has: rows accepted ≤
delivered + rejected + dropped at all workers, and equal where nothing may arrive twice. The
difference is what Arthur was given twice, and no more than the workers count as handed out again;
but where nodes of the broker died, it may have forgotten that a packet had been handed out.
"""

HEADER = ("fault", "clients see", "gateways", "accepted rows", "twice", "unasked")


def page(cluster: Mapping[str, Fault], node: Mapping[str, Fault]) -> str:
    """Return the whole page."""
    lines = [INTRODUCTION]
    for title, table in (("A broker of three nodes", cluster), ("Any broker", node)):
        rows = [_cells(name, fault) for name, fault in table.items()]
        lines += [f"## {title}", "", *map(_line, (HEADER, ["---"] * len(HEADER), *rows)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _cells(name: str, fault: Fault) -> list[str]:
    return [
        name,
        "; then ".join(fault.clients),
        fault.gateways,
        fault.rows,
        "possible" if fault.doubled else NONE,
        "possible" if fault.unheard else NONE,
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
