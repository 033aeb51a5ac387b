"""Processes that other processes have started."""

from __future__ import annotations

from pathlib import Path

from tests.waiting import wait_for


def child_of(pid: int) -> int:
    """Return the id of a process's only child, once there is one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    (child,) = wait_for(lambda: children.read_text(encoding="ascii").split())
    return int(child)
