"""The fleet's table of faults, to read: Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.broker.faults import Fault

NONE = "—"

INTRODUCTION = """\
# What each fault makes a fleet do

For operators of a fleet who want to know what happens when something goes wrong. Clients send rows
through Arthur's API during each of these faults, then the fault is repaired.
[test_faults.py](test_faults.py) plays them with gateways and workers as real processes, and with
real NATS servers, and compares this page with what it finds. The columns are:

- **clients see:** the answers in their order, equal ones in a row once. A *late* answer came only
  after the fault was over. One gateway waits 25 seconds for the broker (`BROKER_PUBLISH_SECONDS`)
  and the other one a second, before they answer 503;
- **gateways:** they are ready, or say at `/readyz` within five seconds that they are not;
- **accepted rows:** what happens to rows that were answered with 207. Each of them is delivered in
  the end;
- **twice:** whether Arthur may get rows again that it has, with the same id;
- **unasked:** whether rows may arrive although no client knows that they were accepted: the answer
  was an error, or none came, and the client sends them again.

After each fault the counts are compared with what clients saw and with what Arthur has. The rows
that were accepted are no more than those that all workers delivered, rejected and dropped, and just
as many if nothing may arrive twice. The difference is what Arthur got twice, and it is no more than
what the workers count as handed out again; but if nodes of the broker died, the broker may have
forgotten that it had handed a packet out.
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
