"""Tests that run in an environment of their own, and are skipped everywhere else."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # nor is its parent
        return False


class Elsewhere(pytest.Module):
    """A test module that is not even imported, because what it imports is not installed."""

    reason = ""

    def collect(self) -> NoReturn:
        pytest.skip(self.reason, allow_module_level=True)


def module_or_skip(
    package: str, reason: str, path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    """Return a module that is skipped where a package is missing; None has pytest make its own."""
    if is_installed(package):
        return None
    found: Elsewhere = Elsewhere.from_parent(parent, path=path)
    found.reason = reason
    return found
