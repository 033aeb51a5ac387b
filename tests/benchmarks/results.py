"""What was measured: cells of samples, by workload, case and peer, and their form as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tests.benchmarks.ratios import Spread, paired_differences, paired_ratios, spread

Sample = dict[str, float]
"""One repetition: each number by a name with its unit."""


@dataclass
class Cell:
    """One peer in one case.

    Attributes:
        samples: One for each repetition, in order.
        failure: Why there are no more of them, or None.
    """

    samples: list[Sample] = field(default_factory=list)
    failure: str | None = None

    def values(self, metric: str) -> list[float]:
        """A number of each repetition."""
        return [sample[metric] for sample in self.samples if metric in sample]


@dataclass
class Cells:
    """A workload's cells, by case and then by peer, in the order in which they were measured."""

    cases: dict[str, dict[str, Cell]] = field(default_factory=dict)

    def cell(self, case: str, peer: str) -> Cell:
        """The cell, made when it is not there."""
        return self.cases.setdefault(case, {}).setdefault(peer, Cell())

    def find(self, case: str, peer: str) -> Cell:
        """The cell, or an empty one: the peer was not asked for."""
        return self.cases.get(case, {}).get(peer) or Cell()

    def peers(self, case: str) -> list[str]:
        """Who was measured in a case."""
        return list(self.cases.get(case, {}))

    def spread(self, case: str, peer: str, metric: str) -> Spread | None:
        """What a number came to; None when the cell has none."""
        return spread(self.find(case, peer).values(metric))

    def ratio(self, case: str, peer: str, metric: str, *, to: str) -> Spread | None:
        """What a number came to over that of another peer, round by round."""
        return spread(
            paired_ratios(self.find(case, peer).values(metric), self.find(case, to).values(metric))
        )

    def difference(self, case: str, peer: str, metric: str, *, to: str) -> Spread | None:
        """What a number came to above that of another peer, round by round."""
        return spread(
            paired_differences(
                self.find(case, peer).values(metric), self.find(case, to).values(metric)
            )
        )

    def ratio_above(
        self, case: str, peer: str, metric: str, *, to: str, base: str = "none"
    ) -> Spread | None:
        """What a number came to above the base, over what it came to for another peer, above it."""
        ours, theirs, least = (self.find(case, each).values(metric) for each in (peer, to, base))
        return spread(
            paired_ratios(paired_differences(ours, least), paired_differences(theirs, least))
        )


@dataclass
class Results:
    """A run of the benchmark.

    Attributes:
        facts: What the report begins with: date, machine, versions, command.
        quick: Whether it was the quick form.
        workloads: The cells of each workload that was run.
    """

    facts: dict[str, str]
    quick: bool
    workloads: dict[str, Cells] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The results as what JSON knows."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Results:
        """The results that `to_json` made this of."""
        return cls(
            facts=document["facts"],
            quick=document["quick"],
            workloads={
                name: Cells(
                    {
                        case: {peer: Cell(**cell) for peer, cell in row.items()}
                        for case, row in cells["cases"].items()
                    }
                )
                for name, cells in document["workloads"].items()
            },
        )
