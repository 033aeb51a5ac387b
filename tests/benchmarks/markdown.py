"""What a report is made of: sections with figures and tables, and how a number reads; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.ratios import Spread
from tests.benchmarks.results import Cells

TIMES = "\N{MULTIPLICATION SIGN}"
NOTHING = "—"
"""What stands where a peer has nothing to say by its nature."""


@dataclass(frozen=True)
class Figure:
    """A figure to reach.

    Attributes:
        what: What is measured.
        demanded: What the issue demands.
        measured: What it came to.
        reached: Whether that is enough; None when it was not measured.
        in_doubt: Whether repetitions differ too much to tell that it is not.
    """

    what: str
    demanded: str
    measured: str
    reached: bool | None
    in_doubt: bool = False

    @property
    def verdict(self) -> str:
        """Reached or not, in words."""
        if self.in_doubt:
            return "within the noise"
        return {True: "reached", False: "**not reached**", None: "not measured"}[self.reached]


@dataclass(frozen=True)
class Table:
    """A table, the first column of which names the rows."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def lines(self) -> list[str]:
        """It in Markdown."""
        return [
            f"*{self.title}*",
            "",
            _row(self.header),
            _row(("---",) * len(self.header)),
            *map(_row, self.rows),
            "",
        ]


@dataclass(frozen=True)
class Section:
    """A section of the report."""

    title: str
    text: str
    figures: Sequence[Figure] = field(default_factory=tuple)
    tables: Sequence[Table] = field(default_factory=tuple)

    def lines(self) -> list[str]:
        """It in Markdown."""
        lines = [f"## {self.title}", "", self.text, ""]
        if self.figures:
            rows = [(f.what, f.demanded, f.measured, f.verdict) for f in self.figures]
            table = Table("Figures to reach", ("what", "demanded", "measured", ""), rows)
            lines += table.lines()
        for table in self.tables:
            lines += table.lines()
        return lines


def at_most(what: str, most: float, unit: str, found: Spread | None) -> Figure:
    """A figure that has to stay below a limit, judged by the median."""
    reached = None if found is None else found.median <= most
    in_doubt = found is not None and most < found.median <= most + found.margin
    demanded = f"≤ {number(most)} {unit}".rstrip()
    return Figure(what, demanded, spread_text(found, unit), reached, in_doubt)


def at_least(what: str, least: float, unit: str, found: Spread | None) -> Figure:
    """A figure that has to come up to something, judged by the median."""
    reached = None if found is None else found.median >= least
    in_doubt = found is not None and least - found.margin <= found.median < least
    demanded = f"≥ {number(least)} {unit}".rstrip()
    return Figure(what, demanded, spread_text(found, unit), reached, in_doubt)


def number(value: float) -> str:
    """Three digits that mean something, thousands apart, and no exponent."""
    size = abs(value)
    if value == round(value) or size >= 100:
        return f"{value:,.0f}"
    decimals = next(
        (n for n, least in enumerate((10.0, 1.0, 0.1, 0.01), start=1) if size >= least), 5
    )
    return f"{value:.{decimals}f}"


def spread_text(found: Spread | None, unit: str = "") -> str:
    """A median with its spread and the number of repetitions."""
    if found is None:
        return "not measured"
    value = f"{number(found.median)} {unit}".rstrip()
    if found.repetitions == 1:
        return f"{value} (once)"
    if found.low < 0 < found.high or found.median <= 0:
        # Around nothing, percents say nothing.
        return f"{value} ({number(found.low)} to {number(found.high)}, n = {found.repetitions})"
    return f"{value} ({found.percent:.0f} %, n = {found.repetitions})"


def cell_text(cells: Cells, case: str, peer: str, show: Callable[[], str]) -> str:
    """What a table shows of a cell: its numbers, and why there are no more of them, if so."""
    cell = cells.find(case, peer)
    if not cell.samples:
        return cell.failure or NOTHING
    return f"{show()}; then {cell.failure}" if cell.failure else show()


def value_text(cells: Cells, case: str, peer: str, metric: str, unit: str = "") -> str:
    """A cell's number; nothing when the peer has none of the kind."""
    cell = cells.find(case, peer)
    if cell.samples and not cell.values(metric):
        return NOTHING
    return cell_text(cells, case, peer, lambda: spread_text(cells.spread(case, peer, metric), unit))


def ratio_text(cells: Cells, case: str, peer: str, metric: str, *, to: str) -> str:
    """A cell's number over that of another peer."""
    return cell_text(cells, case, peer, lambda: spread_text(cells.ratio(case, peer, metric, to=to)))


def _row(values: Sequence[str]) -> str:
    return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"
