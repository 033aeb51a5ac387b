"""Processes that other processes have started, and waiting for what they do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 30.0
"""How long a test waits for what has to come."""

T = TypeVar("T")


def wait_for(what: Callable[[], T | None], within_seconds: float = SECONDS) -> T:
    """Return what a function returns once it is something; a test fails when it stays nothing."""
    deadline = time.monotonic() + within_seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it has not become so in time"
        time.sleep(0.01)
    return found


def child_of(pid: int) -> int:
    """Return the id of a process's only child, once there is one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    (child,) = wait_for(lambda: children.read_text(encoding="ascii").split())
    return int(child)
