"""These tests run where the Engine's SDK is (see environment.py), and are skipped elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.elsewhere import module_or_skip

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    reason = "needs arthur-observability-sdk: see tests/engine_sdk/environment.py"
    return module_or_skip("arthur_observability_sdk", reason, module_path, parent)
