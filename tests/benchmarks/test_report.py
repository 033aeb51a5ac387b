"""The report: figures are judged by their numbers, and a peer that failed says so in its cell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.benchmarks import report
from tests.benchmarks.checks import problems
from tests.benchmarks.markdown import Table, at_least, at_most, number, spread_text
from tests.benchmarks.ratios import Spread, spread
from tests.benchmarks.report import render
from tests.benchmarks.results import Cell, Cells, Results
from tests.benchmarks.workloads import (
    WORKLOADS,
    alone,
    by_daemon,
    caller_path,
    exiting,
    importing,
    latency,
    memory,
    scaling,
    span_encoding,
    throughput,
    trace_delivery,
    tracing,
)
from tests.benchmarks.workloads.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Iterable

FACTS = {"Date": "2026-11-23", "Machine": "a machine", "To repeat": "`the command`"}


def cells_of(cases: dict[str, dict[str, list[dict[str, float]]]]) -> Cells:
    """Cells with these samples."""
    return Cells(
        {
            case: {peer: Cell(samples) for peer, samples in row.items()}
            for case, row in cases.items()
        }
    )


def caller_path_cells(relay_ms: float = 2.0, **method_us: float) -> Cells:
    """Calls that cost 2 ms under the inline handler; `relay_ms` under the relay."""
    costs = {"none": 1.6, "pass-inline": 2.0, "relay": relay_ms}
    method = {"start_us": 5.0, "end_us": 5.0, "run_us": 10.0, "first_token_us": 0.3}
    method |= {"token_us": 0.2, **method_us}
    return cells_of(
        {
            **{
                form: {
                    peer: [dict.fromkeys(caller_path.CLOCKS, cost)] * 3
                    for peer, cost in costs.items()
                }
                for form in caller_path.FORMS
            },
            **{
                case: {"relay": [method, method], "pass-inline": [{"run_us": 0.5}] * 2}
                for case in ("methods", "methods, short texts", "methods, long texts")
            },
        }
    )


def throughput_cells(*, emitted: float = 100, delivered: float = 100) -> Cells:
    """A hundred calls, and what became of them."""
    sample = {
        "emitted_per_second": 950.0,
        "cpu_seconds_per_1000": 0.2,
        "emitted": emitted,
        "delivered": delivered,
        "delivered_per_second": 900.0,
        "lost_percent": 100 * (emitted - delivered) / emitted,
    }
    none = {"emitted_per_second": 1000.0, "cpu_seconds_per_1000": 0.16}
    return cells_of({"invoke": {"none": [none], "pass-inline": [none], "relay": [sample]}})


def judged(workload: Workload, cells: Cells) -> dict[str, bool | None]:
    """What each figure of a section comes to."""
    return {figure.what: figure.reached for figure in workload.section(cells).figures}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (15.0, "15"),
        (1.0345, "1.03"),
        (0.123456, "0.123"),
        (0.0461, "0.0461"),
        (12.345, "12.3"),
        (123.456, "123"),
        (289_999.6, "290,000"),
        (-16.51, "-16.5"),
    ],
)
def test_a_number_has_three_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text


def test_a_spread_tells_its_repetitions() -> None:
    assert spread_text(spread([1.0, 2.0, 3.0, 4.0, 5.0]), "ms") == "3 ms (67 %, n = 5)"
    assert spread_text(spread([0.5])) == "0.500 (once)"
    assert spread_text(None) == "not measured"


def test_percents_of_nothing_are_not_given() -> None:
    assert spread_text(Spread(0.01, -0.2, 0.3, 9), "s") == "0.0100 s (-0.200 to 0.300, n = 9)"


@pytest.mark.parametrize(
    ("median", "most", "least"), [(1.0, True, False), (1.1, True, True), (1.2, False, True)]
)
def test_a_figure_is_judged_by_the_median(median: float, most: bool, least: bool) -> None:
    found = Spread(median, 0.1, 9.0, 5)
    assert at_most("it", 1.1, "ms", found).reached is most
    assert at_least("it", 1.1, "ms", found).reached is least


@pytest.mark.parametrize(
    ("median", "verdict"), [(1.05, "reached"), (1.15, "within the noise"), (1.3, "**not reached**")]
)
def test_a_figure_missed_by_less_than_the_margin_is_in_doubt(median: float, verdict: str) -> None:
    found = Spread(median, median - 0.2, median + 0.2, 25)  # its median may be off by 0.126
    assert at_most("it", 1.1, "ms", found).verdict == verdict
    assert at_least("it", 2.2 - 1.1, "ms", found._replace(median=2.2 - median)).verdict == verdict


def test_what_was_not_measured_is_not_judged() -> None:
    figure = at_most("it", 1.1, "ms", None)
    assert figure.reached is None
    assert figure.verdict == "not measured"


@pytest.mark.parametrize(("relay_ms", "reached"), [(2.1, True), (2.3, False)])
def test_the_callers_path_is_judged_against_the_inline_handler(
    relay_ms: float, reached: bool
) -> None:
    figures = judged(caller_path.WORKLOAD, caller_path_cells(relay_ms))
    streamed = [found for what, found in figures.items() if "CPU of" in what]
    assert streamed == [reached] * 6


@pytest.mark.parametrize(
    ("changed", "what"), [({"run_us": 15.1}, "start, end"), ({"token_us": 0.31}, "a token")]
)
def test_the_methods_are_judged_by_their_own_limits(changed: dict[str, float], what: str) -> None:
    good = judged(caller_path.WORKLOAD, caller_path_cells())
    bad = judged(caller_path.WORKLOAD, caller_path_cells(**changed))
    assert {name for name in good if good[name] != bad[name]} == {
        name for name in good if name.startswith(what)
    }


def test_texts_that_cost_by_their_length_are_noticed() -> None:
    def found(**run_us: float) -> bool | None:
        cells = caller_path_cells()
        for peer, value in run_us.items():
            name = peer.replace("_", "-")
            cells.cell("methods, long texts", name).samples = [{"run_us": value}] * 2
        figures = judged(caller_path.WORKLOAD, cells)
        return next(reached for what, reached in figures.items() if "as long" in what)

    assert found(relay=12.0) is False
    assert found(relay=12.0, pass_inline=0.6) is True  # the machine was slow in those rounds


def test_loss_is_judged() -> None:
    assert judged(throughput.WORKLOAD, throughput_cells())["lost"] is True
    assert judged(throughput.WORKLOAD, throughput_cells(delivered=99))["lost"] is False


def test_the_relay_has_to_keep_as_much_as_the_best_peer() -> None:
    def kept(relay: float) -> bool | None:
        cells = cells_of(
            {
                "outage": {
                    peer: [{"kept": count, "peak_mib": 1.0, "records": 60_000}]
                    for peer, count in (("relay", relay), ("langsmith", 58_000), ("langfuse", 2))
                }
            }
        )
        [found] = [f for what, f in judged(memory.WORKLOAD, cells).items() if "kept" in what]
        return found

    assert kept(58_000) is True
    assert kept(57_999) is False


def test_a_message_may_cost_as_much_as_ten_times_the_messages_do() -> None:
    def judge(cost_us: float) -> list[bool | None]:
        cells = cells_of(
            {
                "messages": {
                    "10": [{"cpu_us_per_record": 100.0}],
                    "100": [{"cpu_us_per_record": cost_us}],
                }
            }
        )
        return list(judged(scaling.WORKLOAD, cells).values())

    assert judge(1_000.0) == [True]
    assert judge(1_300.0) == [False]


def test_a_connection_of_a_lazy_handler_is_noticed() -> None:
    cells = cells_of({"construction": {"lazy": [{"connections": 1.0}]}})
    assert list(judged(importing.WORKLOAD, cells).values()) == [None, False]


def test_each_mode_of_the_sink_is_judged() -> None:
    def sample(ms: float) -> dict[str, float]:
        return dict.fromkeys(latency.METRICS, ms)

    cells = cells_of(
        {
            "up": {"pass-inline": [sample(10.0)], "relay": [sample(10.5)]},
            "hanging": {"pass-inline": [sample(10.0)], "relay": [sample(12.0)]},
        }
    )
    assert list(judged(latency.WORKLOAD, cells).values()) == [True] * 5 + [False] * 5


@pytest.mark.parametrize(
    ("daemon_ms", "reached", "meaning"),
    [
        (2.0, True, "So an application pays no more on its own path through a daemon"),
        (2.1, False, "So in 14 of 14 ratios an application pays more on its own path"),
    ],
)
def test_a_daemon_may_not_cost_the_application_more_than_none(
    daemon_ms: float, reached: bool, meaning: str
) -> None:
    def turns(metrics: Iterable[str]) -> dict[str, list[dict[str, float]]]:
        costs = {"pass-inline": 1.9, "relay": 2.0, "relay-by-daemon": daemon_ms}
        return {peer: [dict.fromkeys(metrics, cost)] * 3 for peer, cost in costs.items()}

    cells = cells_of(
        {
            **{form: turns(caller_path.CLOCKS) for form in caller_path.FORMS},
            by_daemon.THINKING: turns(latency.METRICS),
        }
    )
    assert set(judged(by_daemon.WORKLOAD, cells).values()) == {reached}
    assert meaning in by_daemon.WORKLOAD.section(cells).text


def agent_cells(**costs_ms: float) -> Cells:
    """Runs of an agent that cost 6 ms without a handler, and this above it by peer."""
    peers = {"none": 0.0, **{peer.replace("_", "-"): cost for peer, cost in costs_ms.items()}}
    return cells_of(
        {
            form: {
                peer: [dict.fromkeys(caller_path.CLOCKS, 6.0 + cost)] * 3
                for peer, cost in peers.items()
            }
            for form in tracing.AGENTS
        }
    )


@pytest.mark.parametrize(
    ("cost_ms", "of_the_thread", "of_the_process"),
    [(2.9, True, True), (3.5, False, True), (4.5, False, False)],
)
def test_a_trace_is_judged_by_what_it_costs_above_no_handler(
    cost_ms: float, of_the_thread: bool, of_the_process: bool
) -> None:
    cells = agent_cells(relay_engine=cost_ms, openinference=10.0)
    figures = judged(tracing.WORKLOAD, cells)
    theirs = {what: found for what, found in figures.items() if "openinference" in what}
    assert list(theirs.values()) == [of_the_thread] * 2 + [of_the_process] * 2


def test_tracers_that_were_not_measured_are_no_figures() -> None:
    figures = judged(tracing.WORKLOAD, agent_cells(relay_engine=1.0, langsmith=2.0))
    assert [what for what in figures if "openinference" in what] == []
    assert [found for what, found in figures.items() if "langsmith" in what] == [True, True]
    ours = cells_of({"spans": {"relay-engine": [{"encode_us": 1.0}]}})
    assert judged(span_encoding.WORKLOAD, ours) == {}


@pytest.mark.parametrize(("encode_us", "reached"), [(99.0, True), (101.0, False)])
def test_encoding_is_judged_by_opentelemetrys(encode_us: float, reached: bool) -> None:
    samples = {"relay-engine": [{"encode_us": encode_us}], "openinference": [{"encode_us": 100.0}]}
    known = {span_encoding.BYTES: [{"encode_us": 20.0}]}
    figures = judged(span_encoding.WORKLOAD, cells_of({"spans": {**samples, **known}}))
    assert list(figures.values()) == [True, reached]


def test_lost_spans_and_late_exits_are_noticed() -> None:
    def judge(lost_percent: float, exit_seconds: float) -> list[bool | None]:
        load, left = {"lost_percent": lost_percent}, {"exit_seconds": exit_seconds, "spans": 9.0}
        cells = cells_of({"load": {"relay-engine": [load]}, "exit": {"relay-engine": [left]}})
        return list(judged(trace_delivery.WORKLOAD, cells).values())

    assert judge(0, 5.2) == [True, True]
    assert judge(0.1, 9.0) == [False, False]


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_a_section_of_nothing_can_be_written(workload: Workload) -> None:
    section = workload.section(Cells())
    assert section.lines()
    assert all(figure.reached is None for figure in section.figures)


def test_a_peer_that_hung_says_so_in_its_cells_and_the_others_have_numbers() -> None:
    cells = caller_path_cells()
    cells.cell("stream", "old-handler").failure = "did not end within 60 s"
    text = render(results_of(caller_path=cells), plot=None, plot_missing=None)
    rows = [line for line in text.splitlines() if line.startswith("| old-handler ")]
    assert rows
    assert all("did not end within 60 s" in row for row in rows)
    assert "| relay | 1 (0 %, n = 3) | 1.25 (0 %, n = 3) |" in text


def test_an_exit_that_never_came_is_told() -> None:
    cells = cells_of(
        {"hanging": {"langsmith": [{"records": 9}], "relay": [{"records": 9, "exit_seconds": 5.2}]}}
    )
    text = "\n".join(exiting.WORKLOAD.section(cells).lines())
    assert "| langsmith | not in 60 s |" in text
    assert "| relay | 5.20 s |" in text


def test_the_report_begins_with_where_it_was_made() -> None:
    lines = render(results_of(), plot="figure.svg", plot_missing=None).splitlines()
    assert lines[2:5] == [f"- {name}: {value}" for name, value in FACTS.items()]
    assert any("](figure.svg)" in line for line in lines)


def test_a_missing_plot_has_its_reason() -> None:
    assert "There is no plot: it rained." in render(
        results_of(), plot=None, plot_missing="it rained"
    )


def test_the_remaining_cost_is_told_where_someone_wrote_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "REMAINING_COST", tmp_path / "remaining_cost.md")
    assert "remaining cost" not in render(results_of(), plot=None, plot_missing=None)
    (tmp_path / "remaining_cost.md").write_text("A clock.\n", encoding="utf-8")
    text = render(results_of(), plot=None, plot_missing=None)
    assert text.endswith("## What the remaining cost is\n\nA clock.\n")


def test_a_bar_does_not_split_a_cell() -> None:
    assert Table("it", ("a",), [("x|y",)]).lines()[-2] == "| x\\|y |"


def test_results_survive_their_file() -> None:
    results = results_of(caller_path=caller_path_cells(), throughput=throughput_cells())
    results.workloads["caller_path"].cell("stream", "langfuse").failure = "not installed"
    assert Results.from_json(json.loads(json.dumps(results.to_json()))) == results


def test_the_checks_find_what_is_wrong() -> None:
    assert problems(results_of(throughput=throughput_cells())) == []
    lost = problems(results_of(throughput=throughput_cells(delivered=90)))
    assert lost == ["throughput, invoke, relay: 90 of 100 records were delivered"]
    empty = Cells({"stream": {"relay": Cell(), "none": Cell(failure="did not end within 1 s")}})
    assert len(problems(results_of(caller_path=empty))) == 2
    assert problems(results_of(alone=Cells())) == ["alone measured nothing"]


def test_a_foreign_peers_failure_is_a_result_and_no_mistake() -> None:
    cells = Cells({"hanging": {"old-handler": Cell(failure="did not end within 60 s")}})
    assert problems(results_of(latency=cells)) == []
    silent = Cells({"hanging": {"old-handler": Cell()}})
    assert len(problems(results_of(latency=silent))) == 1


def test_the_limits_share_is_judged() -> None:
    cells = cells_of(
        {
            "batches of 500": {
                "none": [{"records_per_second": 1000.0}],
                "relay": [{"records_per_second": 590.0}],
            }
        }
    )
    assert list(judged(alone.WORKLOAD, cells).values()) == [False]


def test_what_the_figures_leave_is_told_beside_what_the_least_takes() -> None:
    alone_cells = cells_of(
        {
            "batches of 500": {
                "none": [{"records_per_second": 200_000.0}],
                "least": [{"records_per_second": 125_000.0}],
                "relay": [{"records_per_second": 50_000.0}],
            }
        }
    )
    lines = alone.WORKLOAD.section(alone_cells).lines()
    told = "the limit is 5 µs a record, and the figure leaves 8.33 µs for the capture and all else"
    assert f"In batches of 500 {told}; `least` takes 8 µs, `relay` takes 20 µs." in lines[2]
    assert any("| 0.625 (once) | 50,000 (once) | 0.250 (once) | 0.400 (once) |" in _ for _ in lines)

    cells = throughput_cells()
    cells.cell("invoke", "least").samples = [{"emitted_per_second": 975.0}]
    lines = throughput.WORKLOAD.section(cells).lines()
    assert "a call takes 1,000 µs, so the emitting rate leaves 111 µs" in lines[2]
    assert lines[2].endswith("; `least` takes 25.6 µs, `relay` takes 52.6 µs.")


def test_a_run_without_the_least_has_its_report_all_the_same() -> None:
    text = "\n".join(throughput.WORKLOAD.section(throughput_cells()).lines())
    assert "; `relay` takes 52.6 µs." in text
    assert "| relay | 950 (once) | 0.950 (once) | not measured |" in text


def test_the_least_is_no_peer_of_the_summary() -> None:
    cells = throughput_cells()
    cells.cell("invoke", "least").samples = [{"emitted_per_second": 975.0}]
    text = render(results_of(throughput=cells), plot=None, plot_missing=None)
    summary, _, rest = text.partition("## 3. ")
    assert "| relay |" in summary
    assert "| least |" not in summary
    assert "| least |" in rest


@pytest.mark.parametrize(
    ("asked", "measured"),
    [(("none", "relay"), ("none", "least", "relay")), (("langsmith",), ("langsmith",))],
)
def test_the_least_is_measured_beside_the_relay(
    asked: tuple[str, ...], measured: tuple[str, ...]
) -> None:
    assert throughput.with_least(asked) == measured


def results_of(**workloads: Cells) -> Results:
    """Results of a full run."""
    return Results(dict(FACTS), quick=False, workloads=workloads)
