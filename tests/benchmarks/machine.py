"""What a report must say of where it was made: machine and versions, and nothing that names it."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.peers import versions

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")


def facts(command: str) -> dict[str, str]:
    """The report's first lines.

    Args:
        command: How to repeat the run.
    """
    found = {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "Machine": f"{processor()}, {cores()} cores, {memory_gib():.0f} GiB, {platform.system()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
        "To repeat": f"`{command}`",
    }
    if "arthur-relay" not in versions():
        found["Versions"] = f"arthur-relay from the checkout, {found['Versions']}"
    return found


def processor() -> str:
    """The processor's model, as the kernel calls it."""
    for line in _lines(_CPUINFO):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return platform.machine()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_gib() -> float:
    """The machine's memory."""
    for line in _lines(_MEMINFO):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) / (1 << 20)
    return 0.0


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
