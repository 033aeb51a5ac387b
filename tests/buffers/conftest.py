"""What the tests of buffers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.buffers import spools

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_spool_outlives_its_test() -> Iterator[None]:
    """Close files that are still open, as the end of a process does: Python 3.13 asks for it."""
    yield
    spools.close_all()
