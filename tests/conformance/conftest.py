"""Conformance tests run where the SDK is (see sdk_env.py), and are skipped everywhere else."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from pathlib import Path


class WithoutSdk(pytest.Module):
    """A test module that is not even imported, because what it imports is not installed."""

    def collect(self) -> NoReturn:
        pytest.skip("needs the arthurai SDK: see sdk_env.py", allow_module_level=True)


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    if importlib.util.find_spec("arthurai") is None:
        return WithoutSdk.from_parent(parent, path=module_path)
    return None
