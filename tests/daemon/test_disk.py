"""The daemon and what happens to its disk: a spool that goes away, is damaged, or is another's."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from arthur_relay.buffers.spool.file_format import PAGE_BYTES
from arthur_relay.sandbox import ArthurSandbox
from arthur_relay.system.files import KEPT_ASIDE
from tests.daemon.process import DaemonProcess, arrived, row
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def path_of(sandbox: ArthurSandbox) -> str:
    return f"/api/v3/models/{sandbox.model_id}/inferences"


def send(daemon: DaemonProcess, sandbox: ArthurSandbox, *ids: str) -> int:
    return daemon.client().post(path_of(sandbox), json=[row(each) for each in ids]).status_code


def remove(spool: Path) -> None:
    shutil.rmtree(spool)


def replace(spool: Path) -> None:
    spool.rename(spool.with_name("moved"))
    spool.mkdir(mode=0o700)


def remove_file(spool: Path) -> None:
    (spool / "0.spool").unlink()


@pytest.mark.parametrize("change", [remove, replace, remove_file])
def test_nothing_is_acknowledged_into_a_spool_that_is_gone(
    change: Callable[[Path], None],
    daemon: DaemonProcess,
    sandbox: ArthurSandbox,
) -> None:
    client = daemon.client()
    assert send(daemon, sandbox, "before") == 207
    wait_for(lambda: arrived(sandbox) == ["before"])
    change(daemon.spool)
    wait_for(lambda: client.get("/readyz").status_code == 503, 5.0)
    for number in range(20):
        answer = client.post(path_of(sandbox), json=[row(str(number))])
        assert answer.status_code == 503
        assert answer.json() == {"error": "the spool can't be written"}
    assert "can't keep rows" in client.get("/readyz").text
    assert client.get("/healthz").status_code == 200
    health = client.get("/status").json()["health"]
    assert health["status"] == "failing"
    assert "The spool can't keep rows" in health["detail"]
    assert daemon.end() == 0
    assert daemon.log.count("the spool can't be used") == 1
    assert arrived(sandbox) == ["before"]


def test_a_spool_that_comes_back_takes_rows_again(
    daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    moved = daemon.spool.with_name("moved")
    daemon.spool.rename(moved)
    assert send(daemon, sandbox, "a") == 503
    moved.rename(daemon.spool)
    wait_for(lambda: send(daemon, sandbox, "b") == 207)
    wait_for(lambda: arrived(sandbox) == ["b"])
    wait_for(lambda: daemon.client().get("/readyz").status_code == 200)
    assert daemon.end() == 0


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="file systems can't be mounted here"
)
def test_a_disk_that_becomes_read_only(
    tmp_path: Path, start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("file systems can't be mounted here")
    try:
        daemon = start(ARTHUR_RELAY_SPOOL_DIR=str(disk / "spool")).wait_until_ready()
        mount = ["mount", "-o", "remount,ro", str(disk)]
        if subprocess.run(mount, check=False).returncode:  # files are open for writing
            pytest.skip("it can't be mounted read-only while it is used")
        client = daemon.client()
        wait_for(lambda: client.get("/readyz").status_code == 503, 5.0)
        assert send(daemon, sandbox, "a") == 503
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        wait_for(lambda: send(daemon, sandbox, "b") == 207)
        assert daemon.end() == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_directory_that_others_may_write_to_stops_the_start(
    tmp_path: Path, start: Callable[..., DaemonProcess]
) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool").chmod(0o777)
    daemon = start()
    assert daemon.end(None) == 2
    assert "other users may write to it: chmod go-w" in daemon.log
    (tmp_path / "spool").chmod(0o700)
    (tmp_path / "spool" / "daemon.lock").symlink_to(tmp_path / "victim")
    daemon = start()
    assert daemon.end(None) == 2
    assert "links are not followed" in daemon.log
    assert not (tmp_path / "victim").exists()


def test_a_lock_file_that_is_taken_away_lets_no_second_daemon_in(
    daemon: DaemonProcess, start: Callable[..., DaemonProcess]
) -> None:
    (daemon.spool / "daemon.lock").unlink()
    other = start()
    assert other.end(None) == 2
    assert "Another daemon" in other.log
    assert daemon.client().get("/readyz").status_code == 200


@pytest.mark.parametrize("running", [True, False])
def test_damage_in_the_middle_of_the_spool(
    running: bool, start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    daemon = start().wait_until_ready()
    assert send(daemon, sandbox, "first") == 207
    wait_for(lambda: arrived(sandbox) == ["first"])
    sandbox.go_away()
    client = daemon.client()
    text = "x" * 2_000
    # While it runs, only what SQLite has no copy of in memory is read from the file again.
    count = 3_000 if running else 600
    for first in range(0, count, 100):
        rows = [row(f"{number}", output_text=text) for number in range(first, first + 100)]
        assert client.post(path_of(sandbox), json=rows).status_code == 207
    if not running:
        daemon.process.kill()
        daemon.process.wait()
    file, log = daemon.spool / "0.spool", daemon.spool / "0.spool-wal"
    # The pages are in the log until that is written back.
    head, frame = (32 + 24, PAGE_BYTES + 24) if not running else (0, PAGE_BYTES)
    with (file if running else log).open("r+b") as damaged:
        damaged.seek(head + (150 if running else 30) * frame)
        damaged.write(random.Random(1).randbytes(PAGE_BYTES))
    sandbox.come_back()
    if not running:
        daemon = start().wait_until_ready()
        client = daemon.client()
    wait_for(lambda: client.get("/status").json()["rows"]["pending"] == 0, 60)
    found = client.get("/status").json()["rows"]
    dropped = found["dropped_by_reason"].get("lost_in_spool", 0)
    assert found["captured"] == found["delivered"] + found["dropped"] + found["rejected"]
    assert dropped == found["dropped"] <= 30
    assert len(arrived(sandbox)) > count - 30
    assert send(daemon, sandbox, "after") == 207
    wait_for(lambda: "after" in arrived(sandbox))
    assert client.get("/readyz").status_code == 200
    assert daemon.end() == 0


def test_rows_for_one_arthur_are_not_sent_to_another(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    daemon = start().wait_until_ready()
    assert send(daemon, sandbox, "first") == 207
    wait_for(lambda: arrived(sandbox) == ["first"])
    sandbox.go_away()
    assert send(daemon, sandbox, "a", "b") == 207
    daemon.process.kill()
    daemon.process.wait()
    with ArthurSandbox() as other:
        variables = {**other.environment(), "ARTHUR_MODEL_ID": other.model_id}
        moved = start(**variables).wait_until_ready()
        moved.wait_for_log(f"has 2 inferences for {sandbox.url}")
        assert "2 rows of others wait" in moved.client().get("/readyz").json()["detail"]
        detail = moved.client().get("/status").json()["health"]["detail"]
        assert "2 in the spool's directory are for another Arthur or organisation" in detail
        assert send(moved, other, "c") == 207
        wait_for(lambda: arrived(other) == ["c"])
        assert moved.end() == 0
        assert arrived(other) == ["c"]
    sandbox.come_back()
    again = start().wait_until_ready()
    wait_for(lambda: arrived(sandbox) == ["a", "b", "first"])
    assert again.end() == 0


def test_a_key_that_was_changed_finds_the_rows_of_its_organisation(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    """Nothing but the rows that wait is a reason to ask Arthur who the new one is."""
    daemon = start().wait_until_ready()
    assert send(daemon, sandbox, "first") == 207
    wait_for(lambda: arrived(sandbox) == ["first"])
    # The organisation is written down with the next turn.
    wait_for(lambda: send(daemon, sandbox, "more") == 207 and "more" in arrived(sandbox))
    sandbox.go_away()
    wait_for(lambda: send(daemon, sandbox, "a") == 207 and b"sandbox-org" in b"".join(
        each.read_bytes() for each in daemon.spool.glob("0.spool*")))  # fmt: skip
    daemon.process.kill()
    daemon.process.wait()
    sandbox.come_back()
    login = {"ARTHUR_API_KEY": "", "ARTHUR_LOGIN": "admin", "ARTHUR_PASSWORD": "sandbox"}
    again = start(**login).wait_until_ready()
    wait_for(lambda: "a" in arrived(sandbox), 60)
    assert again.end() == 0
    assert "left alone" not in again.log


def test_damaged_files_that_are_set_aside_and_removed_are_counted(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    daemon = start().wait_until_ready()
    metrics = daemon.client().get("/metrics").text
    assert "arthur_relay_spool_damaged_files_total 0.0" in metrics
    assert "arthur_relay_spool_damaged_files_removed_total 0.0" in metrics
    assert daemon.end() == 0
    for number in range(KEPT_ASIDE + 1):
        (daemon.spool / f"0-damaged-2026010{number + 1}T000000Z.sqlite").touch(0o600)
    (daemon.spool / "0.spool").write_bytes(b"no database" * 1000)
    (daemon.spool / "0.spool").chmod(0o600)
    again = start().wait_until_ready()
    metrics = again.client().get("/metrics").text
    assert "arthur_relay_spool_damaged_files_total 1.0" in metrics
    assert "arthur_relay_spool_damaged_files_removed_total 2.0" in metrics
    assert len(list(again.spool.glob("*-damaged-*.sqlite"))) == KEPT_ASIDE
    assert send(again, sandbox, "a") == 207
    wait_for(lambda: arrived(sandbox) == ["a"])
    assert again.end() == 0
