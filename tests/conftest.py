"""What all tests share: no relay outlives its test; the helpers' assertions explain themselves."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arthur_relay.runtime.process_registry import registry

try:
    from hypothesis import settings
except ImportError:  # the environments of some tests do without it
    pass
else:
    # A busy machine takes its time; how long a test takes proves nothing.
    settings.register_profile("arthur-relay", deadline=None)
    settings.load_profile("arthur-relay")

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from arthur_relay.sandbox import ArthurSandbox

pytest.register_assert_rewrite(
    "tests.broker.faults",
    "tests.worker.harness",
    "tests.process.scripts",
    "tests.encoding.runs",
    "tests.hosts.arrivals",
    "tests.hosts.notes",
    "tests.hosts.programs",
)

TESTS = Path(__file__).parent

LONGEST = ("deploy", "soak", "process", "hosts", "daemon")
"""Directories whose tests start processes and wait for them."""


ON_ONE_PYTHON = ("encoding",)
"""Directories whose tests are arithmetic, so that what they prove depends on no Python. What comes
of it is proven on each, by tests/fidelity."""


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: most tests wait for something, and leave cores idle otherwise."""
    return 2 * len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import all tests without a look for cycles: nearly all that is made stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: the last one would keep a single worker of xdist's busy."""
    items.sort(key=lambda item: item.path.parent.name not in LONGEST)
    for item in items:
        if item.path.relative_to(TESTS).parts[0] in ON_ONE_PYTHON:
            item.add_marker(pytest.mark.one_python)


@pytest.fixture
def sandbox() -> Iterator[ArthurSandbox]:
    """An Arthur of the test's own, with nothing in it."""
    # Not before a test wants one: the environments of some have not what it takes.
    from arthur_relay.sandbox import ArthurSandbox

    with ArthurSandbox() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_relay_outlives_its_test() -> Iterator[None]:
    """Close what is left: handlers share relays that go on until the process ends."""
    yield
    for relay in registry().running():
        relay.begin_close()
        relay.finish_close(time.monotonic())
