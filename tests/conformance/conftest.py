"""Conformance tests run where the SDK is (see sdk_env.py), and are skipped everywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.elsewhere import module_or_skip

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    reason = "needs the arthurai SDK: see sdk_env.py"
    return module_or_skip("arthurai", reason, module_path, parent)
