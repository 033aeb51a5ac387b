"""The plot: peers beside each other, the relay at more of everything, and adapting; one SVG.

Its ground is transparent and its grey is legible on white and on black, so that a page in either
colours can show it. Text stays text, in the reader's own font.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import LEAST
from tests.benchmarks.results import Cells, Results
from tests.benchmarks.workloads import adapting, caller_path, scaling, throughput

FIGURE_NAME = "figure.svg"
NOT_INSTALLED = "matplotlib is not installed here"

_GREY = "#808080"
_BLUE = "#3b82d6"
_ORANGE = "#d9822b"
_GREEN = "#3a9d5d"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "arthur-relay",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _GREY,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _GREY,
    "axes.titlecolor": _GREY,
    "axes.titlesize": 10,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "legend.frameon": False,
}
_BAR_HEIGHT = 0.26


def draw(results: Results, path: Path) -> str | None:
    """Draw what was measured.

    Returns:
        Why there is no plot, or None when there is one.
    """
    # By name: the project's own environment has no matplotlib, and its types are not needed.
    try:
        matplotlib: Any = import_module("matplotlib")
        figures: Any = import_module("matplotlib.figure")
    except ImportError:
        return NOT_INSTALLED
    with matplotlib.rc_context(_STYLE):
        figure = figures.Figure(figsize=(11, 9.5), layout="constrained")
        grid = figure.add_gridspec(3, 4, height_ratios=(1.2, 1, 0.8))
        _draw_calls(
            figure.add_subplot(grid[0, :2]), results.workloads.get(caller_path.NAME, Cells())
        )
        _draw_invokes(
            figure.add_subplot(grid[0, 2:]), results.workloads.get(throughput.NAME, Cells())
        )
        grown = results.workloads.get(scaling.NAME, Cells())
        for place, axis in enumerate(scaling.AXES):
            _draw_growth(figure.add_subplot(grid[1, place]), grown, axis)
        _draw_course(figure.add_subplot(grid[2, :]), results.workloads.get(adapting.NAME, Cells()))
        figure.savefig(path, format="svg", metadata={"Date": None})
    return None


def _draw_calls(panel: Any, cells: Cells) -> None:
    """A group of bars for each peer: how many times a call without a handler it costs."""
    peers = cells.peers(caller_path.FIRST_FORM)[::-1]
    colours = (_BLUE, _ORANGE, _GREEN)
    for place, (form, colour) in enumerate(zip(caller_path.FORMS, colours, strict=True)):
        found = [cells.ratio(form, peer, "process_cpu_ms", to="none") for peer in peers]
        panel.barh(
            [row + (1 - place) * _BAR_HEIGHT for row in range(len(peers))],
            [ratio.median if ratio else 0.0 for ratio in found],
            height=_BAR_HEIGHT,
            color=colour,
            label=caller_path.FORMS[form],
        )
    panel.set_yticks(range(len(peers)), peers)
    panel.set_xscale("log")
    panel.set_xticks((1, 2, 5, 10, 20), ("1", "2", "5", "10", "20"))
    panel.minorticks_off()
    panel.axvline(1.0, color=_GREY, linewidth=0.8)
    panel.set_title("CPU of a streamed call, times no handler", pad=24)
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=3)


def _draw_invokes(panel: Any, cells: Cells) -> None:
    """Two bars for each peer: calls made and records delivered in a second."""
    peers = [peer for peer in cells.peers(throughput.CASE) if peer != LEAST][::-1]
    for offset, metric, colour, label in (
        (0.5, "emitted_per_second", _GREY, "calls made"),
        (-0.5, "delivered_per_second", _BLUE, "records delivered"),
    ):
        found = [cells.spread(throughput.CASE, peer, metric) for peer in peers]
        panel.barh(
            [row + offset * 1.2 * _BAR_HEIGHT for row in range(len(peers))],
            [rate.median if rate else 0.0 for rate in found],
            height=1.2 * _BAR_HEIGHT,
            color=colour,
            label=label,
        )
    panel.set_yticks(range(len(peers)), peers)
    panel.set_title("Short invokes, a second")
    panel.legend(loc="lower right")


def _draw_growth(panel: Any, cells: Cells, axis: str) -> None:
    """Two lines over the amounts: records a second, and what one costs."""
    amounts = [int(peer) for peer in cells.peers(axis) if peer.isdigit()]
    panel.set_title(scaling.AXES[axis])
    if not amounts:
        return
    beside = panel.twinx()
    beside.spines["right"].set_visible(True)
    for target, metric, colour, label in (
        (panel, "records_per_second", _BLUE, "records/s"),
        (beside, "cpu_us_per_record", _ORANGE, "CPU µs a record"),
    ):
        values = [_median(cells, axis, amount, metric) for amount in amounts]
        target.plot(amounts, values, color=colour, marker="o", markersize=3)
        target.set_ylabel(label, color=colour)
        target.set_ylim(0, _ceiling(values))
    panel.set_xscale("log")
    # The last one has its label, and not all of the others have room for theirs.
    shown = amounts[::-1][:: 1 + len(amounts) // 6]
    panel.set_xticks(shown, [_short(amount) for amount in shown])
    panel.minorticks_off()


def _draw_course(panel: Any, cells: Cells) -> None:
    """Two lines over time: what the server can take, and what the relay lets set off."""
    course = cells.find(adapting.COURSE, adapting.ADAPTIVE)
    seconds = course.values("seconds")
    for metric, colour, label in (
        ("at_once", _GREY, "served at once"),
        ("limit", _BLUE, "requests that may be in flight"),
    ):
        panel.step(seconds, course.values(metric), where="post", color=colour, label=label)
    panel.set_title("Adaptive delivery to a server whose capacity changes")
    panel.set_xlabel("seconds")
    panel.set_ylim(0, 1.3 * adapting.MOST_IN_FLIGHT)  # room for the legend
    panel.set_yticks(range(0, adapting.MOST_IN_FLIGHT + 1, 4))
    panel.legend(loc="upper right", ncols=2)


def _median(cells: Cells, axis: str, amount: int, metric: str) -> float:
    found = cells.spread(axis, str(amount), metric)
    return found.median if found else float("nan")


def _short(amount: int) -> str:
    """An amount as its label: 50k for 50,000."""
    return f"{amount // 1000}k" if amount >= 1000 else str(amount)


def _ceiling(values: Sequence[float]) -> float:
    """A little above the highest, so that a level line looks level."""
    return 1.25 * max(values, default=1.0)
