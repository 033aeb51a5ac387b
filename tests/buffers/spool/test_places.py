"""Where a spool's files are: who may write there, who has them, and whether they still are."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arthur_relay.buffers.spool.disk_state import RETRY_SECONDS
from arthur_relay.buffers.spool.segments import ADOPT_SECONDS
from arthur_relay.buffers.spool.sqlite_file import SpoolFile
from arthur_relay.dead_letters.jsonl import JsonLinesStore
from arthur_relay.dead_letters.sqlite import FILE_NAME, SqliteStore
from arthur_relay.errors import SpoolError
from arthur_relay.system import files
from tests import needs
from tests.buffers.spools import connection_of, crash, ids, new_spool, rows_of
from tests.clock import Clock
from tests.dead_letters.test_dead_letters import letter_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay.buffers.spool.buffer import Spool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(path: Path, clock: Clock) -> Spool:
    found = new_spool(path, clock)
    found.open()
    assert found.store(rows_of(3))
    assert found.trouble is None
    return found


def remove_directory(path: Path) -> None:
    shutil.rmtree(path)


def move_directory(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace_directory(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.mkdir(mode=0o700)


def remove_file(path: Path) -> None:
    (path / "0.spool").unlink()


def replace_file(path: Path) -> None:
    shutil.copy(path / "0.spool", path / "copy")
    (path / "copy").replace(path / "0.spool")


def remove_log(path: Path) -> None:
    (path / "0.spool-wal").unlink()


@needs.movable_files
@pytest.mark.parametrize(
    "change",
    [remove_directory, move_directory, replace_directory, remove_file, replace_file, remove_log],
)
def test_nothing_is_kept_in_a_file_that_a_later_process_would_not_find(
    change: Callable[[Path], None],
    path: Path,
    spool: Spool,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    change(path)
    assert spool.trouble is not None
    assert not spool.store(rows_of(1, 10))
    spool.put(rows_of(1, 20))
    for _ in range(5):
        clock.now += RETRY_SECONDS
        spool.commit()
        assert not spool.store(rows_of(1, 10))
    assert spool.kept == 0
    assert len(caplog.records) == 1
    assert "the spool can't be used" in caplog.text
    rows = spool.lease(10)  # what can be read is delivered
    assert ids(rows) == ["r0", "r1", "r2", "r20"]
    spool.settle(rows)
    assert spool.close() == 0
    if change is replace_directory:
        assert not [each for each in path.iterdir() if each.suffix == ".spool"]


@needs.movable_files
def test_a_directory_that_comes_back_is_used_again(
    path: Path, spool: Spool, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="arthur_relay")
    move_directory(path)
    spool.put(rows_of(1, 20))
    spool.commit()
    assert spool.kept == 0
    path.with_name("elsewhere").rename(path)
    clock.now += RETRY_SECONDS
    spool.commit()
    assert spool.trouble is None
    assert spool.kept == 4
    assert "can be written again" in caplog.text
    assert spool.close() == 4


@needs.movable_files
def test_a_spool_that_nobody_writes_to_is_looked_at_too(path: Path, spool: Spool) -> None:
    remove_directory(path)
    assert "is gone" in str(spool.trouble)
    crash(spool)


@needs.no_root
def test_a_directory_that_becomes_read_only(path: Path, spool: Spool) -> None:
    path.chmod(0o500)
    assert "can't be written to" in str(spool.trouble)
    path.chmod(0o700)
    spool.close()


NOBODY_UID = 65_534


def in_a_child(function: Callable[[], str]) -> str:
    """Return what a function does in a forked child, where it may be another user."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "it died"
        with suppress(BaseException):
            said = function()
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@needs.root
def test_a_directory_that_becomes_read_only_for_who_is_not_root(spool: Spool) -> None:
    with tempfile.TemporaryDirectory(prefix="arthur-") as directory:
        path = Path(directory, "spool")
        Path(directory).chmod(0o755)
        path.mkdir(0o700)
        os.chown(path, NOBODY_UID, NOBODY_UID)
        crash(spool)

        def use() -> str:
            os.setgroups([])
            os.setgid(NOBODY_UID)
            os.setuid(NOBODY_UID)
            ours = new_spool(path)
            ours.open()
            assert ours.store(rows_of(2))
            assert ours.trouble is None
            path.chmod(0o500)
            trouble = str(ours.trouble)
            path.chmod(0o700)
            assert ours.trouble is None
            assert ours.close() == 2
            return trouble

        assert "can't be written to" in in_a_child(use)


def pose(monkeypatch: pytest.MonkeyPatch, user: int) -> None:
    """Be another user than the one that owns the files."""
    monkeypatch.setattr(os, "geteuid", lambda: user)


def refuse(path: Path, match: str) -> None:
    with pytest.raises(SpoolError, match=match):
        new_spool(path).open()


@needs.owners
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o1777, 0o2777])
def test_a_directory_that_others_may_write_to_is_refused(mode: int, path: Path) -> None:
    path.mkdir()
    path.chmod(mode)
    refuse(path, f"spool_dir .* can't be used: other users may write to it: chmod go-w {path}")
    assert list(path.iterdir()) == []


@needs.owners
def test_a_directory_that_a_group_of_ours_shares_on_purpose_is_used(path: Path) -> None:
    path.mkdir()
    os.chown(path, -1, os.getegid())
    path.chmod(0o2770)
    spool = new_spool(path)
    spool.open()
    spool.close()
    (path / "0.lock").chmod(0o660)  # as Kubernetes does it
    spool = new_spool(path)
    spool.open()
    spool.close()
    (path / "0.lock").chmod(0o666)
    refuse(path, "other users may write to .*0.lock")


@needs.root
def test_the_top_of_a_volume_is_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.mkdir()
    path.chmod(0o777)
    refuse(path, "other users may write to it")
    with monkeypatch.context() as patched:
        patched.setattr(type(path), "is_mount", lambda _: True)
        spool = new_spool(path)
        spool.open()
        spool.close()
        path.chmod(0o1777)  # as /dev/shm, which is everybody's
        refuse(path, "other users may write to it")


@needs.owners
def test_a_directory_of_another_user_is_refused_unless_that_is_root(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.mkdir(mode=0o755)
    owner = path.stat().st_uid
    pose(monkeypatch, owner + 1)
    if owner == 0:
        files.check_directory(path)
        (path / "x").touch()
        with pytest.raises(OSError, match="belongs to another user"):
            files.check_file(path / "x", (path / "x").lstat())
    else:
        refuse(path, "belongs to another user")


FILES = ["0.spool", "0.lock", "0.spool-wal", "3.spool", FILE_NAME]


@pytest.mark.parametrize("name", FILES)
def test_links_are_refused(name: str, path: Path, tmp_path: Path) -> None:
    path.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (path / name).symlink_to(victim)
    refuse(path, f"{name} is a link, and links are not followed")
    (path / name).unlink()
    (path / name).symlink_to(tmp_path / "not there")
    refuse(path, f"{name} is a link, and links are not followed")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "not there").exists()


@needs.owners
@pytest.mark.parametrize("name", FILES)
def test_files_that_others_may_write_to_are_refused(name: str, path: Path) -> None:
    path.mkdir(mode=0o700)
    (path / name).write_bytes(b"")
    (path / name).chmod(0o620)
    refuse(path, f"other users may write to .*{name}: chmod go-w")


@needs.pipes
@pytest.mark.parametrize("name", FILES)
def test_pipes_are_refused(name: str, path: Path) -> None:
    path.mkdir(mode=0o700)
    os.mkfifo(path / name)
    refuse(path, f"{name} is no regular file")


@pytest.mark.parametrize("name", ["0.spool", "0.lock"])
def test_a_link_that_comes_after_the_look_is_not_followed_either(
    name: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.mkdir(mode=0o700)
    (path / name).symlink_to(tmp_path / "not there")
    monkeypatch.setattr("arthur_relay.buffers.spool.directory.check_spool_directory", lambda _: 0)
    refuse(path, "is a link, and links are not followed")
    assert not (tmp_path / "not there").exists()


def test_dead_letters_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "victim")
    (tmp_path / "letters.jsonl").symlink_to(tmp_path / "victim")
    for keeper in (
        SqliteStore(tmp_path, max_bytes=10_000),
        JsonLinesStore(tmp_path / "letters.jsonl", max_bytes=10_000),
    ):
        with pytest.raises(OSError, match="links are not followed"):
            keeper.add([letter_of(1)])
    (tmp_path / "letters.jsonl").unlink()
    (tmp_path / "letters.jsonl.new").symlink_to(tmp_path / "victim")
    keeper = JsonLinesStore(tmp_path / "letters.jsonl", max_bytes=10_000)
    keeper.add([letter_of(1), letter_of(2)])
    keeper.remove([key for key, _ in keeper.letters()][:1])
    assert len(list(keeper.letters())) == 1
    assert not (tmp_path / "victim").exists()


@needs.data_locks
def test_a_lock_file_that_is_taken_away_does_not_give_one_spool_to_two(
    path: Path, spool: Spool, clock: Clock
) -> None:
    """The other is a process, since one process never has a file twice."""
    (path / "0.lock").unlink()
    script = """
import sys
import tempfile
from pathlib import Path
from tests.buffers.spools import new_spool, rows_of
spool = new_spool(Path(sys.argv[1]))
print(spool.open(), *sorted(part.claim.path.name for part in spool._segments))
assert spool.store(rows_of(2, 100))
spool.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 1.spool\n"
    assert spool.trouble is None
    clock.now += ADOPT_SECONDS
    spool.commit()
    assert spool.adopt() == 2
    assert sorted(ids(spool.lease(10))) == ["r0", "r1", "r100", "r101", "r2"]
    assert spool.store(rows_of(1, 3))
    with closing(sqlite3.connect(path / "0.spool")) as other:
        assert other.execute("SELECT count(*) FROM rows").fetchone() == (4,)
    assert spool.store(rows_of(1, 4)), "the end of a reader does not take the log away"
    assert spool.trouble is None
    assert spool.close() == 7


@needs.movable_files
def test_a_lock_file_that_is_taken_away_is_made_again(
    path: Path, spool: Spool, clock: Clock
) -> None:
    before = (path / "0.lock").stat().st_ino
    (path / "0.lock").rename(path / "elsewhere")
    clock.now += RETRY_SECONDS
    spool.commit()
    assert (path / "0.lock").stat().st_ino != before
    assert new_spool(path).open() == 0
    crash(spool)


def test_the_log_counts_and_a_reader_that_keeps_it_is_told_of_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limit = 8 * 1024 * 1024
    spool = new_spool(path, max_bytes=limit)
    spool.open()
    assert spool.store(rows_of(10, size=20_000))
    with closing(sqlite3.connect(path / "0.spool", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM rows").fetchall()
        number = 10
        while spool.has_room(rows=1, size=20_000):
            assert spool.store(rows_of(1, number, size=20_000))
            spool.settle(spool.lease(1))
            number += 1
            assert number < 1_000, "it would never be full"
        spool.commit()
        on_disk = sum(
            each.stat().st_size for each in path.glob("0.spool*") if "shm" not in each.name
        )
        assert limit * 0.9 < on_disk < limit * 1.1
        assert abs(spool.size - on_disk) < limit * 0.1
        [record] = caplog.records
        assert record.getMessage() == (
            f"arthur-relay: another process reads the spool file {path / '0.spool'} and keeps its"
            " log from shrinking; the log counts in spool_bytes (or ARTHUR_RELAY_SPOOL_BYTES)"
        )
    spool.settle(spool.lease(1_000))
    spool.commit()
    spool.put(rows_of(1, number))
    spool.commit()
    spool.settle(spool.lease(1))
    spool.commit()
    assert (path / "0.spool-wal").stat().st_size < limit / 4
    assert spool.has_room(rows=1, size=20_000)
    spool.close()


def test_a_file_is_never_readable_by_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while a damaged one is made anew."""
    modes: list[int] = []
    restore = SpoolFile.restore

    def restored(self: SpoolFile, *arguments: object) -> None:
        modes.extend(each.stat().st_mode & 0o077 for each in path.iterdir())
        restore(self, *arguments)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(SpoolFile, "restore", restored)
    spool = new_spool(path)
    spool.open()
    spool.store(rows_of(200))
    connection_of(spool).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spool.close()
    with (path / "0.spool").open("r+b") as file:
        file.write(b"\xff" * 100)
    spool = new_spool(path)
    spool.open()
    modes.extend(each.stat().st_mode & 0o077 for each in path.iterdir())
    assert len(modes) > 5
    assert set(modes) == {0}
    spool.close()
