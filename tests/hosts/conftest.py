"""A sandbox for each test, and programs that find it in their environment."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.hosts import recipes
from tests.hosts.notes import Notes
from tests.hosts.programs import Programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox


@pytest.fixture
def programs(sandbox: ArthurSandbox, tmp_path: Path) -> Iterator[Programs]:
    directory = tmp_path / "programs"
    directory.mkdir()
    recipes.write_modules(directory)
    started = Programs(sandbox, directory)
    started.environment["PYTHONPATH"] = os.pathsep.join([str(directory), *sys.path])
    yield started
    started.kill_all()


@pytest.fixture
def notes(programs: Programs, tmp_path: Path) -> Notes:
    """What the hosted application notes; nothing leaves it but by a flush."""
    directory = tmp_path / "notes"
    directory.mkdir()
    programs.environment |= {
        "HOSTED_NOTES": str(directory),
        "ARTHUR_RELAY_FLUSH_INTERVAL_SECONDS": "3600",
    }
    return Notes(directory)
