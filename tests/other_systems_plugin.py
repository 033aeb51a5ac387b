"""A plugin of pytest that plays another system: see `tests/other_systems.py`."""

from __future__ import annotations

import os
import tempfile

import pytest

from tests.other_systems import VARIABLE, play


@pytest.hookimpl(tryfirst=True)  # before a conftest imports the relay, and after the other plugins
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Play the system that the environment names, but where xdist's workers run the tests."""
    has_workers = getattr(early_config.known_args_namespace, "numprocesses", None)
    if not has_workers or "PYTEST_XDIST_WORKER" in os.environ:
        play(os.environ[VARIABLE])


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have pytest do without what was taken away: the id of its user, and SIGALRM."""
    config.option.timeout_method = "thread"
    if config.option.basetemp is None:
        config.option.basetemp = tempfile.mkdtemp()
