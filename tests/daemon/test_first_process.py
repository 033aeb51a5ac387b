"""The daemon as process 1 of a container, whose signals without a handler the kernel ignores."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.daemon.process import DaemonProcess
from tests.waiting import SECONDS, wait_for

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox

NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--")

IN_THE_IMPORT = """
import sys
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "arthur_relay.cli.app":
            import os, time
            os.open({mark!r}, os.O_CREAT)
            time.sleep({seconds})
sys.meta_path.insert(0, Slow())
"""
"""Stands still at the second import of the command, and says so by a file."""


def _can_make_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False, timeout=SECONDS)
    return done.returncode == 0


pytestmark = pytest.mark.skipif(
    not _can_make_namespaces(), reason="this system lets us make no namespace of processes"
)


def child_of(pid: int) -> int:
    """Return the one child of a process: the first of its namespace."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return int(wait_for(lambda: path.read_text(encoding="ascii").split())[0])


def test_sigterm_ends_it_while_it_imports(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    mark = tmp_path / "importing"
    before = IN_THE_IMPORT.format(mark=str(mark), seconds=SECONDS)
    with DaemonProcess(sandbox, tmp_path, prefix=NAMESPACE, before=before) as daemon:
        wait_for(mark.exists)
        os.kill(child_of(daemon.process.pid), signal.SIGTERM)
        assert daemon.end(None) == 128 + signal.SIGTERM
        assert "Traceback" not in daemon.log


def test_sigterm_stops_it_once_it_runs(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    with DaemonProcess(sandbox, tmp_path, prefix=NAMESPACE) as daemon:
        daemon.wait_until_ready()
        os.kill(child_of(daemon.process.pid), signal.SIGTERM)
        assert daemon.end(None) == 0
        assert '"message": "stopped: ' in daemon.log


@pytest.mark.parametrize("arguments", [["check"], ["sandbox"], ["healthcheck"]])
def test_other_commands_too(arguments: list[str], tmp_path: Path) -> None:
    mark = tmp_path / "importing"
    program = IN_THE_IMPORT.format(mark=str(mark), seconds=SECONDS)
    program += "import arthur_relay.cli\narthur_relay.cli.main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*NAMESPACE, sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, env=environment) as process:
        wait_for(mark.exists)
        os.kill(child_of(process.pid), signal.SIGTERM)
        assert process.wait(SECONDS) == 128 + signal.SIGTERM
