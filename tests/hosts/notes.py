"""What the hosted processes note, and whether it is what the server got."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from tests.hosts.arrivals import check_arrivals
from tests.hosts.programs import wait_until

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox


@dataclass
class Notes:
    """The notes of all processes of a host.

    Attributes:
        directory: Where they are.
    """

    directory: Path

    def captured(self) -> dict[str, list[str]]:
        """By process, the ids of what it captured."""
        return {
            path.stem: path.read_text(encoding="utf-8").split()
            for path in self.directory.glob("*.captured")
        }

    def reports(self) -> dict[str, dict[str, Any]]:
        """By process, what its relay said at its end."""
        return {
            path.stem: json.loads(path.read_text(encoding="utf-8"))
            for path in self.directory.glob("*.json")
        }

    def wait_for(self, *processes: object) -> None:
        """Wait until processes have reported, which they do when they have flushed."""
        names = {str(process) for process in processes}
        wait_until(lambda: names <= self.reports().keys())

    def check(
        self,
        sandbox: ArthurSandbox,
        *,
        killed: Collection[object] = (),
        silent: Collection[object] = (),
    ) -> None:
        """Check that both sides agree: all of it arrived, once, and each process says so.

        Args:
            sandbox: The server.
            killed: Processes whose inferences others had to deliver.
            silent: Processes that deliver, but do not report.
        """
        captured, reports = self.captured(), self.reports()
        mute = {str(process) for process in silent}
        assert captured.keys() - mute - {str(process) for process in killed} <= reports.keys()
        names = sorted(name for names in captured.values() for name in names)
        rows = sorted(row["partner_inference_id"] for row in sandbox.inferences)
        assert rows == names, (captured, reports)
        if not killed:  # else one may have been killed while it waited for the server's answer
            assert sandbox.duplicates == 0
        for process, report in reports.items():
            assert report["captured"] == report["delivered"], (process, reports)
            assert report["captured"] >= len(captured.get(process, ()))
            assert (report["pending"], report["lost"], report["restarts"]) == (0, {}, 0), reports
        told = sum(report["captured"] for report in reports.values())
        assert told + sum(len(captured[process]) for process in mute) == len(names)
        if not killed:
            check_arrivals(sandbox, captured)


def log(port: str, path: str = "/log") -> int:
    """Have a worker log one inference. Returns which one."""
    answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=30, trust_env=False)
    return int(answer.raise_for_status().json()["pid"])


def log_in(port: str, workers: int) -> set[int]:
    """Have so many workers log, each at least once. Returns which they are."""
    found: set[int] = set()

    def log_some() -> bool:
        found.update(threads.map(log, [port] * 4))
        return len(found) >= workers

    with ThreadPoolExecutor(4) as threads:
        wait_until(log_some)
    return found
