"""Processes that are started by a test, and a sandbox that they find in their environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.process.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arthur_relay.sandbox import ArthurSandbox


@pytest.fixture
def scripts(sandbox: ArthurSandbox) -> Iterator[Scripts]:
    started = Scripts(sandbox)
    yield started
    started.kill_all()
