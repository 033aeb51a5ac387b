"""The size of a fleet is calculated from what was measured, and the page has it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.benchmarks import sizing
from tests.benchmarks.intake.rows import ROW_BYTES, numbered, template
from tests.benchmarks.report import render
from tests.benchmarks.results import Cell, Cells, Results
from tests.benchmarks.sizing import GIVEN, Costs, plan, stream_bounds, worker_bounds
from tests.benchmarks.workloads import fleet
from tests.readme import marked

pytestmark = pytest.mark.one_python

COSTS = Costs(
    batch=100,
    host_us=60.0,
    gateway_us=30.0,
    worker_us=40.0,
    servers_us=120.0,
    leader_us=50.0,
    written_bytes=4_000.0,
    leader_sent_bytes=5_000.0,
    sent_bytes=6_000.0,
)


def measured(**of_one: float) -> Cells:
    """Return a run in which each size of a request cost the same."""
    names = {name: getattr(COSTS, name) for name in Costs._fields[2:]} | of_one
    return Cells(
        {
            fleet.case_of(batch): {
                fleet.HOST: Cell([{"total_us": COSTS.host_us}]),
                fleet.ONE.name: Cell([names]),
            }
            for batch in fleet.FULL.rows
        }
    )


def test_costs_are_the_medians_of_a_run() -> None:
    assert Costs.of(measured(), 100) == COSTS
    with pytest.raises(ValueError, match="gateway_us of 1 gateway, 1 worker was not measured"):
        Costs.of(Cells({fleet.case_of(100): {fleet.HOST: Cell([{"total_us": 1.0}])}}), 100)


def test_a_fleet_has_at_least_three_servers_and_two_of_each_role() -> None:
    found = plan(10, COSTS, GIVEN)
    assert (found.gateways, found.workers, found.servers, found.streams) == (2, 2, 3, 1)
    assert found.hosts == 1


def test_processes_are_those_whose_cores_are_used_as_planned() -> None:
    found = plan(1_000_000, COSTS, GIVEN)
    assert found.gateways == 50  # 30 core seconds a second, at 60 %
    assert found.hosts == 100
    assert found.cores == pytest.approx(190)


@pytest.mark.parametrize(
    ("latency", "worker_us", "bound"),
    [(0.5, 400.0, "cpu"), (0.01, 40.0, "memory"), (0.5, 40.0, "arthur"), (2.0, 40.0, "arthur")],
)
def test_a_worker_is_bounded_by_its_core_its_memory_or_arthur(
    latency: float, worker_us: float, bound: str
) -> None:
    given = replace(GIVEN, latency_seconds=latency)
    costs = COSTS._replace(worker_us=worker_us)
    found = worker_bounds(costs, given)
    assert found.cpu == pytest.approx(600_000 / worker_us)
    assert found.arthur == 4 * 500 / latency
    assert getattr(found, bound) == min(found)
    planned = plan(100_000, costs, given)
    assert planned.worker_bound == bound
    assert (planned.workers - 1) * min(found) < 100_000 <= planned.workers * min(found)


@pytest.mark.parametrize(
    ("change", "bound"),
    [
        ({}, "the leader's CPU"),
        ({"stream_cores": 100.0, "network_bytes": 1e8}, "the leader's network"),
        ({"stream_cores": 100.0, "disk_bytes": 1e8}, "the disks"),
        ({"stream_cores": 100.0, "latency_seconds": 60.0}, "packets in flight"),
    ],
)
def test_a_stream_ends_at_the_first_of_its_bounds(change: dict[str, float], bound: str) -> None:
    given = replace(GIVEN, **change)  # type: ignore[arg-type] # floats, all of these
    found = stream_bounds(COSTS, given)
    assert found.name == bound
    planned = plan(100_000, COSTS, given)
    assert (planned.streams - 1) * min(found) < 100_000 <= planned.streams * min(found)


@pytest.mark.parametrize(
    ("change", "servers"),
    [
        ({"disk_bytes": 1e12}, 25),
        ({}, 40),
        ({"server_cores": 1}, 200),
        ({"disk_bytes": 1e8}, 200),
        ({"network_bytes": 1e8}, 100),
    ],
)
def test_servers_are_as_many_as_their_cores_disks_or_networks_need(
    change: dict[str, float], servers: int
) -> None:
    found = plan(1_000_000, COSTS, replace(GIVEN, **change))  # type: ignore[arg-type] # as above
    assert found.servers == servers


def test_a_backlog_is_kept_three_times_and_spread_over_the_servers() -> None:
    found = plan(10_000, COSTS, GIVEN)
    whole = 10_000 * sizing.STORED_BYTES * 8 * 3600
    assert found.backlog_bytes * found.servers == pytest.approx(3 * whole)
    assert found.host_backlog_bytes * found.hosts == pytest.approx(whole)


def test_requests_of_one_row_are_packets_of_one_row() -> None:
    one, many = (stream_bounds(COSTS._replace(batch=batch), GIVEN).in_flight for batch in (1, 100))
    assert many == pytest.approx(100 * one)
    # A packet has a bound of its own, however large the request is.
    largest = [stream_bounds(COSTS._replace(batch=n), GIVEN).in_flight for n in (500, 5000)]
    assert largest[0] == largest[1]


def test_the_page_has_what_was_measured_and_calculated() -> None:
    found = marked("capacity", "docs/capacity.md")
    assert found == sizing.page_block(sizing.read(sizing.RESULTS)), (
        "replace the page's block by what `python3 -m tests.benchmarks.sizing` prints"
    )


def test_the_report_is_that_of_the_results() -> None:
    results = sizing.read(sizing.RESULTS)
    text = sizing.RESULTS.with_name("report.md").read_text(encoding="utf-8")
    assert text == render(results, plot=None, plot_missing="it has no peers")
    assert not results.quick


def test_a_run_of_the_fleet_alone_is_reported_without_peers() -> None:
    results = Results({"Date": "today"}, quick=False, workloads={fleet.NAME: measured()})
    text = render(results, plot="figure.svg", plot_missing=None)
    assert "## 15. A fleet" in text
    assert "## Summary" not in text
    assert "figure.svg" not in text
    assert "remaining cost" not in text


def test_more_processes_are_judged_by_what_a_row_costs_them() -> None:
    cells = measured()
    row = cells.cases[fleet.case_of(fleet.JUDGED)]
    row[fleet.Shape(4, 1).name] = Cell([{"gateway_us": 37.0}])
    row[fleet.Shape(1, 4).name] = Cell([{"worker_us": 51.0}])
    assert [figure.reached for figure in fleet.WORKLOAD.section(cells).figures] == [True, False]


def test_rows_of_prose_are_json_and_no_two_alike() -> None:
    found = json.loads(numbered(template(300, prose=True), 7))
    assert {len(json.dumps(each, separators=(",", ":"))) for each in found} == {ROW_BYTES}
    assert len({each["partner_inference_id"] for each in found}) == 300
    assert len({each["inference_data"]["input_text"] for each in found}) == 300


def test_the_command_calculates_for_other_machines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["sizing", "--latency-seconds", "2", "--server-cores", "16"])
    sizing.main()
    given = replace(GIVEN, latency_seconds=2.0, server_cores=16)
    assert capsys.readouterr().out == sizing.page_block(sizing.read(sizing.RESULTS), given) + "\n"
    assert "a server has 16 cores" in sizing.page_block(sizing.read(sizing.RESULTS), given)
