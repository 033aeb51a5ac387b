"""These tests run where OpenInference's instrumentor is, and are skipped elsewhere.

See tests/engine_sdk/environment.py.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from pathlib import Path


class WithoutInstrumentor(pytest.Module):
    """A test module that is not even imported, because what it imports is not installed."""

    def collect(self) -> NoReturn:
        reason = "needs the instrumentor: see tests/engine_sdk/environment.py"
        pytest.skip(reason, allow_module_level=True)


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    if importlib.util.find_spec("opentelemetry.instrumentation") is None:
        return WithoutInstrumentor.from_parent(parent, path=module_path)
    return None
