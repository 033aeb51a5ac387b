"""The quick form, as the gate runs it: it works, no cell is empty, nothing is lost.

`TESTS_QUICK_REPORT` names the directory of its report, which `nox -s benchmark` has made.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.benchmarks.checks import problems
from tests.benchmarks.children import ROOT
from tests.benchmarks.peers import LEAST
from tests.benchmarks.results import Cell, Results
from tests.benchmarks.run import CORE
from tests.benchmarks.workloads import WORKLOADS

REPORT = os.environ.get("TESTS_QUICK_REPORT")

pytestmark = pytest.mark.skipif(REPORT is None, reason="needs a report: `nox -s benchmark`")


@pytest.fixture(scope="module")
def output() -> Path:
    """Where a quick run has left its report."""
    assert REPORT is not None
    return Path(REPORT)


@pytest.fixture(scope="module")
def results(output: Path) -> Results:
    """What was measured."""
    return Results.from_json(json.loads((output / "results.json").read_text(encoding="utf-8")))


def test_every_workload_was_run(results: Results) -> None:
    expected = [name for name, workload in WORKLOADS.items() if workload.in_quick_form]
    assert list(results.workloads) == expected
    assert all(cells.cases for cells in results.workloads.values())


def test_every_cell_is_filled(results: Results) -> None:
    assert problems(results) == []
    for cells in results.workloads.values():
        for row in cells.cases.values():
            for cell in row.values():
                assert cell.samples


def test_everything_is_delivered_where_the_sink_is_up(results: Results) -> None:
    checked = [
        cell
        for cells in results.workloads.values()
        for row in cells.cases.values()
        for cell in row.values()
        if cell.values("delivered")
    ]
    assert len(checked) >= 10
    for cell in checked:
        assert cell.values("delivered") == cell.values("emitted")


def test_the_core_is_measured_in_each_mode_of_the_sink(results: Results) -> None:
    latency = results.workloads["latency"]
    assert list(latency.cases) == ["up", "slow", "hanging", "503", "refusing"]
    for row in latency.cases.values():
        assert set(row) == set(CORE)


def test_the_least_is_measured_where_the_relays_own_work_decides(results: Results) -> None:
    found = {
        name
        for name, cells in results.workloads.items()
        for row in cells.cases.values()
        if LEAST in row
    }
    assert found == {"throughput", "alone"}


def test_what_was_refused_arrives_later(results: Results) -> None:
    kept: Cell = results.workloads["memory"].find("outage", "relay")
    assert kept.values("kept") == kept.values("records")


def test_the_report_has_every_section_and_no_ragged_table(output: Path) -> None:
    report = (output / "report.md").read_text(encoding="utf-8")
    assert "Trust no number" in report
    for number in (*range(1, 8), *range(9, 15)):  # the exits are in the full form
        assert f"\n## {number}. " in report
    assert "not measured" not in report
    columns = 0
    for line in report.splitlines():
        if not line.startswith("|"):
            columns = 0
            continue
        cells = line.replace("\\|", "").split("|")[1:-1]
        assert len(cells) == (columns or len(cells)), line
        columns = len(cells)
        # The first cell of a header and the last one of the figures' may be empty.
        assert all(cell.strip() for cell in cells[1:-1]), line


def test_the_report_names_no_place_of_this_machine(output: Path) -> None:
    for name in ("report.md", "results.json"):
        text = (output / name).read_text(encoding="utf-8")
        assert str(ROOT) not in text
        assert sys.prefix not in text
        assert str(output) not in text


def test_there_is_a_plot_or_a_reason_why_not(output: Path) -> None:
    report = (output / "report.md").read_text(encoding="utf-8")
    if (output / "figure.svg").exists():
        assert "](figure.svg)" in report
    else:
        assert "There is no plot: matplotlib is not installed here." in report
