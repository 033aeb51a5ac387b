"""The figures of the source: what the script counts, and that it can be run."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.figures import JOURNEY, PACKAGE, ROOT, Source

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_python

FUNCTIONS = """
from collections.abc import Callable
from typing import Protocol, TypeAlias

Clock = Callable[[], float]
Random: TypeAlias = "Callable[[], float] | None"

class Hook(Protocol):
    def __call__(self) -> None: ...

class Seam(Protocol[T]):
    size: int
    def put(self) -> None: ...
    async def take(self) -> None: ...
"""

OWNERS = """
from dataclasses import dataclass, field
from arthur_relay.functions import Clock as Time, Hook, Random, Seam

class Wide(Seam[int], Protocol):
    def put(self) -> None: ...
    def close(self) -> None: ...

@dataclass(slots=True)
class Part:
    name: str
    now: Time
    later: Random = None
    made: Hook = field(init=False)
    random: Callable[[], float] = lambda: 0.5

class Whole:
    def __init__(self, part: Part, *, on_end: Hook | None = None, key: int = 0) -> None:
        self.other: Clock = lambda: (lambda: 1.0)()

    def use(self, action: Callable[[], None]) -> None: ...
"""


def test_what_counts(tmp_path: Path) -> None:
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text(OWNERS)
    source = Source(tmp_path)
    found = [each.split()[1] for each in source.callable_parameters()]
    assert found == ["Part.now", "Part.later", "Part.random", "Whole.on_end"]
    assert len(list(source.lambdas())) == 3
    assert source.largest_protocol() == (4, "Wide")
    assert source.top_files == 1
    assert source.lines == FUNCTIONS.count("\n") + OWNERS.count("\n")


def test_the_way_of_a_row_is_one_of_files_that_are_there() -> None:
    assert [name for name in JOURNEY if not (PACKAGE / name).is_file()] == []
    assert len(set(JOURNEY)) == len(JOURNEY)


def test_the_script_prints_the_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.figures", "--where"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["before", "now", "to", "reach"]
    assert "lines of src" in done.stdout
    assert [line for line in lines if line.strip() == JOURNEY[0]]
