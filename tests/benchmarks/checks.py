"""What must hold of every run's results, whatever the times: no empty cell, nothing lost; pure."""

from __future__ import annotations

from tests.benchmarks.results import Results

FOREIGN = frozenset({"old-handler", "langsmith", "langfuse", "openinference"})
DELIVERY = ("emitted", "delivered")
"""The numbers of a sample in which everything that was emitted should have been delivered."""


def problems(results: Results) -> list[str]:
    """What is wrong with the results, a sentence each.

    That a foreign peer hangs, or loses something, is a result; a cell that says so is filled.
    """
    found = []
    for workload, cells in results.workloads.items():
        if not cells.cases:
            found.append(f"{workload} measured nothing")
        for case, row in cells.cases.items():
            for peer, cell in row.items():
                where = f"{workload}, {case}, {peer}"
                if not cell.samples and cell.failure is None:
                    found.append(f"{where}: nothing was measured, and nothing says why")
                if peer in FOREIGN:
                    continue
                if cell.failure is not None:
                    found.append(f"{where}: {cell.failure}")
                for sample in cell.samples:
                    emitted, delivered = (sample.get(name) for name in DELIVERY)
                    if emitted != delivered:
                        found.append(f"{where}: {delivered} of {emitted} records were delivered")
    return found
