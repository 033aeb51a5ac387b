"""These tests run where OpenInference's instrumentor is, and are skipped elsewhere.

See tests/engine_sdk/environment.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.elsewhere import module_or_skip

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    reason = "needs the instrumentor: see tests/engine_sdk/environment.py"
    return module_or_skip("opentelemetry.instrumentation", reason, module_path, parent)
