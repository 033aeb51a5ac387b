"""Faults under the daemon: a full disk, a full spool, a worker that dies, a crowd, a backlog."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.daemon.process import DaemonProcess, arrived, row
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arthur_relay.sandbox import ArthurSandbox

TEXT = "x" * 20_000


def path(sandbox: ArthurSandbox) -> str:
    return f"/api/v3/models/{sandbox.model_id}/inferences"


def fill(client: httpx.Client, sandbox: ArthurSandbox) -> tuple[set[str], httpx.Response]:
    """Send rows until they are put off; returns those that were acknowledged, and the answer."""
    acknowledged: set[str] = set()
    for number in range(1000):
        ids = [f"{number}-{each}" for each in range(10)]
        answer = client.post(path(sandbox), json=[row(each, output_text=TEXT) for each in ids])
        if answer.status_code != 207:
            return acknowledged, answer
        acknowledged |= set(ids)
    raise AssertionError("it never became full")


def check_recovery(
    daemon: DaemonProcess, sandbox: ArthurSandbox, acknowledged: set[str], answer: httpx.Response
) -> None:
    """Arthur comes back: all that was acknowledged arrives, and rows are taken once more."""
    client = daemon.client()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert len(acknowledged) >= 20, "else nothing was at stake"
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200
    sandbox.come_back()
    wait_for(lambda: acknowledged <= set(arrived(sandbox)))
    wait_for(lambda: client.post(path(sandbox), json=[row("after")]).status_code == 207)
    # A row may fit in a little before the usual request does for which it calls itself ready.
    wait_for(lambda: client.get("/readyz").status_code == 200)
    wait_for(lambda: "after" in arrived(sandbox))
    assert set(arrived(sandbox)) == acknowledged | {"after"}, "what was put off is the client's"
    assert daemon.end() == 0, daemon.log


def test_a_full_spool(start: Callable[..., DaemonProcess], sandbox: ArthurSandbox) -> None:
    daemon = start(
        ARTHUR_RELAY_SPOOL_BYTES="2097152", ARTHUR_RELAY_DAEMON_MAX_BODY_BYTES="1000000"
    ).wait_until_ready()
    assert daemon.client().get("/readyz").status_code == 200
    sandbox.go_away()
    acknowledged, answer = fill(daemon.client(), sandbox)
    assert answer.json() == {"error": "the spool is full"}
    check_recovery(daemon, sandbox, acknowledged, answer)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    found = tmp_path / "disk"
    found.mkdir()
    mounted = os.name == "posix" and sys.platform == "linux" and os.getuid() == 0
    options = ["-t", "tmpfs", "-o", "size=8m", "tmpfs", str(found)]
    if not mounted or subprocess.run(["mount", *options], check=False).returncode:
        pytest.skip("file systems can't be mounted here")
    yield found
    subprocess.run(["umount", str(found)], check=True)


def test_a_full_disk(
    small_disk: Path, start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    daemon = start(ARTHUR_RELAY_SPOOL_DIR=str(small_disk / "spool")).wait_until_ready()
    sandbox.go_away()
    acknowledged, answer = fill(daemon.client(), sandbox)
    assert answer.json() == {"error": "the spool can't be written"}
    daemon.wait_for_log("the spool can't be used (database or disk is full)")
    check_recovery(daemon, sandbox, acknowledged, answer)


LIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
"""


def test_a_file_that_may_not_grow(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    with DaemonProcess(sandbox, tmp_path, before=LIMIT) as daemon:
        daemon.wait_until_ready()
        sandbox.go_away()
        acknowledged, answer = fill(daemon.client(), sandbox)
        assert answer.json() == {"error": "the spool can't be written"}
        check_recovery(daemon, sandbox, acknowledged, answer)


DIE = """
from arthur_relay.buffers.spool.sqlite_file import SpoolFile
write = SpoolFile.write
died = []
def writing(self, fresh, gone, changed, **now):
    if fresh and not died:
        died.append(True)
        raise RuntimeError
    write(self, fresh, gone, changed, **now)
SpoolFile.write = writing
"""


def test_a_worker_that_dies_comes_back_and_answers(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    with DaemonProcess(sandbox, tmp_path, before=DIE) as daemon:
        answer = daemon.wait_until_ready().client().post(path(sandbox), json=[row("a")])
        assert answer.status_code == 207
        daemon.wait_for_log("the worker died and is started again")
        wait_for(lambda: arrived(sandbox) == ["a"])
        assert daemon.end() == 0
        assert "1 rows were delivered, 0 rejected, 0 stay" in daemon.log


def test_a_crowd(daemon: DaemonProcess, sandbox: ArthurSandbox) -> None:
    def send(worker: int) -> list[str]:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(daemon.socket)),
            base_url="http://x",
            timeout=60,
        ) as client:
            found = []
            for number in range(5):
                ids = [f"{worker}-{number}-{each}" for each in range(3)]
                answer = client.post(path(sandbox), json=[row(each) for each in ids])
                assert answer.json()["counts"] == {"success": 3, "failure": 0, "total": 3}
                found += ids
            return found

    with ThreadPoolExecutor(200) as pool:
        sent = [each for found in pool.map(send, range(200)) for each in found]
    assert len(sent) == 3000
    wait_for(lambda: len(sandbox.inferences) == 3000, 60)
    assert arrived(sandbox) == sorted(sent)
    assert daemon.end() == 0


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_is_flat_while_a_backlog_builds_and_drains(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    """The rows of the backlog take many times the memory that the process may grow by."""
    daemon = start().wait_until_ready()
    client = daemon.client()
    client.post(path(sandbox), json=[row("first")])
    wait_for(lambda: arrived(sandbox) == ["first"])
    sandbox.go_away()
    sent = 0
    grown: list[int] = []
    before = 0
    for number in range(50):
        rows = [row(f"{number}-{each}", output_text=TEXT[:4000]) for each in range(500)]
        assert client.post(path(sandbox), json=rows).status_code == 207
        sent += 500
        if number == 10:  # the buffers of a few requests are there by now
            before = resident_bytes(daemon.process.pid)
        grown.append(resident_bytes(daemon.process.pid) - before)
    backlog = sent * 4000
    assert backlog == 100_000_000
    sandbox.come_back()
    peak = max(grown[11:])

    def is_drained() -> bool:
        nonlocal peak
        peak = max(peak, resident_bytes(daemon.process.pid) - before)
        return len(sandbox.inferences) == sent + 1

    wait_for(is_drained, 100)
    assert peak < backlog / 4, f"it grew by {peak / 1e6:.0f} MB"
    assert daemon.end() == 0
