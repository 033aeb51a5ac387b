"""Conformance tests run where the SDK is (see sdk_env.py), and are skipped everywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.elsewhere import module_or_skip

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "LOGIN", "PASSWORD", "ENDPOINT_URL", "ORGANIZATION_ID"):
        monkeypatch.delenv(f"ARTHUR_{name}", raising=False)
    monkeypatch.setenv("ARTHUR_LAST_MODEL_ID", "")  # the SDK sets it; put it back afterwards


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    reason = "needs the arthurai SDK: see sdk_env.py"
    return module_or_skip("arthurai", reason, module_path, parent)
