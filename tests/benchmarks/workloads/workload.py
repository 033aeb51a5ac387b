"""What a workload is: a measurement in the run, and a section in the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.lineup import Stage
from tests.benchmarks.markdown import Section
from tests.benchmarks.results import Cells

Commands = dict[str, Callable[..., Any]]
"""What a measuring process can do, by name.

Each takes the bench and keyword arguments that JSON knows, and returns what JSON knows.
"""


@dataclass(frozen=True)
class Workload:
    """A workload.

    Attributes:
        name: What the command line and the results call it.
        run: Measures it.
        section: Tells what came of it.
        in_quick_form: Whether the quick form has it.
    """

    name: str
    run: Callable[[Stage], Cells]
    section: Callable[[Cells], Section]
    in_quick_form: bool = True
