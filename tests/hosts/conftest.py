"""A sandbox for each test, and programs that find it in their environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arthur_relay.sandbox import ArthurSandbox
from tests.hosts.programs import Programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sandbox() -> Iterator[ArthurSandbox]:
    with ArthurSandbox() as running:
        yield running


@pytest.fixture
def programs(sandbox: ArthurSandbox, tmp_path: Path) -> Iterator[Programs]:
    directory = tmp_path / "programs"
    directory.mkdir()
    started = Programs(sandbox, directory)
    yield started
    started.kill_all()
