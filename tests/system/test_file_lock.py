"""FileLock: who has a file, and what happens when it is taken away."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from arthur_relay.system import operating_system
from arthur_relay.system.file_lock import FileLock
from arthur_relay.system.files import UntrustedError
from tests import needs
from tests.other_systems import Msvcrt
from tests.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["this system", "Windows"], autouse=True)
def _locks_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Windows" and operating_system.msvcrt is None:
        if sys.platform != "linux":
            pytest.skip("the locks that stand for those of Windows are Linux's")
        monkeypatch.setattr(operating_system, "msvcrt", Msvcrt())


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = FileLock.take(path)
    assert first is not None
    assert FileLock.take(path) is None
    assert FileLock.share(path) is None
    first.release()
    first.release()  # never raises
    second = FileLock.take(path)
    assert second is not None
    second.release()


def test_a_shared_lock_keeps_out_who_wants_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(FileNotFoundError):
        FileLock.share(path)
    path.touch()
    one, other = FileLock.share(path), FileLock.share(path)
    assert one is not None
    assert other is not None
    assert FileLock.take(path) is None
    one.release()
    other.release()


@needs.movable_files
def test_a_file_that_is_taken_away_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = FileLock.take(path)
    assert first is not None
    assert first.is_current()
    path.unlink()
    assert not first.is_current()
    second = FileLock.take(path)
    assert second is not None
    assert second.is_current()
    assert not first.is_current()
    first.release()
    second.release()


def test_who_waits_gets_it_when_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = FileLock.take(path)
    assert first is not None
    found: list[FileLock | None] = []
    waiting = threading.Thread(target=lambda: found.append(FileLock.take(path, wait=True)))
    waiting.start()
    first.release()
    waiting.join(SECONDS)
    (second,) = found
    assert second is not None
    assert FileLock.take(path) is None
    second.release()


@needs.movable_files
def test_who_waits_gets_the_file_that_is_there_then(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = FileLock.take(path)
    assert first is not None
    found: list[FileLock | None] = []
    waiting = threading.Thread(target=lambda: found.append(FileLock.take(path, wait=True)))
    waiting.start()
    path.rename(tmp_path / "rotated")
    first.release()
    waiting.join(SECONDS)
    (second,) = found
    assert second is not None
    assert os.path.samestat(os.fstat(second.descriptor), path.lstat())
    second.release()


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UntrustedError):
        FileLock.take(tmp_path / "lock")
