"""A sandbox, and daemons that deliver to it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from arthur_relay.sandbox import ArthurSandbox
from tests.daemon.process import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def start(sandbox: ArthurSandbox, tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Return a function that starts a daemon with some arguments and variables."""
    with ExitStack() as stack:

        def start_one(*arguments: str, **variables: str) -> DaemonProcess:
            daemon = DaemonProcess(sandbox, tmp_path, *arguments, variables=variables)
            return stack.enter_context(daemon)

        yield start_one


@pytest.fixture
def daemon(start: Callable[..., DaemonProcess]) -> DaemonProcess:
    """A daemon that is ready."""
    return start().wait_until_ready()


@pytest.fixture
def start_for_engine(
    sandbox: ArthurSandbox, tmp_path: Path
) -> Iterator[Callable[..., DaemonProcess]]:
    """Return a function that starts a daemon that delivers to the sandbox's Engine."""
    with ExitStack() as stack:

        def start_one(*arguments: str, **variables: str) -> DaemonProcess:
            daemon = DaemonProcess(
                sandbox, tmp_path, *arguments, variables=variables, for_engine=True
            )
            return stack.enter_context(daemon)

        yield start_one


@pytest.fixture
def engine_daemon(start_for_engine: Callable[..., DaemonProcess]) -> DaemonProcess:
    """A daemon that delivers to the sandbox's Engine, and is ready."""
    return start_for_engine().wait_until_ready()


@pytest.fixture
def engine() -> Iterator[ArthurSandbox]:
    """The sandbox whose Engine is delivered to; the other one's Scope is."""
    with ArthurSandbox() as running:
        yield running


@pytest.fixture
def start_both(
    sandbox: ArthurSandbox, engine: ArthurSandbox, tmp_path: Path
) -> Iterator[Callable[..., DaemonProcess]]:
    """Return a function that starts a daemon for both."""
    found = engine.engine_environment()
    both = {
        "ARTHUR_BASE_URL": found["ARTHUR_BASE_URL"],
        "ARTHUR_ENGINE_API_KEY": found["ARTHUR_API_KEY"],
    }
    with ExitStack() as stack:

        def start_one(*arguments: str, **variables: str) -> DaemonProcess:
            given = {**both, **variables}
            return stack.enter_context(
                DaemonProcess(sandbox, tmp_path, *arguments, variables=given)
            )

        yield start_one
