"""Where an open file can be neither renamed nor deleted, as on Windows, ours are closed first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay.buffers.spool import directory
from arthur_relay.buffers.spool.disk_state import RETRY_SECONDS
from arthur_relay.dead_letters import jsonl
from arthur_relay.errors import SpoolError
from tests import needs
from tests.buffers.spools import connection_of, ids, new_spool, rows_of
from tests.clock import Clock
from tests.dead_letters.test_dead_letters import letter_of
from tests.other_systems import is_open

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = needs.open_files


@pytest.fixture(autouse=True)
def moved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Refuse to move what is open; return the names of what was moved."""
    names: list[str] = []

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*paths: Any, **options: Any) -> Any:
            for path in paths:
                names.append(os.path.basename(path))  # noqa: PTH119 - a name is enough
                if is_open(path):
                    raise PermissionError(13, "it is open", path)
            return function(*paths, **options)

        return call

    monkeypatch.setattr(directory, "CAN_MOVE_OPEN_FILES", False)
    monkeypatch.setattr(jsonl, "CAN_MOVE_OPEN_FILES", False)
    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    return names


def test_a_damaged_file_is_replaced(tmp_path: Path, moved: list[str]) -> None:
    spool = new_spool(tmp_path / "spool")
    spool.open()
    assert spool.store(rows_of(5))
    connection_of(spool).execute("UPDATE rows SET body = 'no bytes' WHERE seq = 2")
    assert ids(spool.lease(10)) == ["r0", "r2", "r3", "r4"]
    assert spool.trouble is None
    assert any("-damaged-" in name for name in moved)
    assert spool.close() == 4


def test_a_file_without_rows_is_deleted(tmp_path: Path, moved: list[str]) -> None:
    clock = Clock()
    spool = new_spool(tmp_path / "spool", clock)
    spool.open()
    assert spool.store(rows_of(5))
    spool.settle(spool.lease(5))
    clock.now += RETRY_SECONDS
    spool.commit()
    assert spool.close() == 0
    assert "0.spool" in moved
    assert [each.name for each in (tmp_path / "spool").iterdir()] == ["0.lock"]


def test_a_file_of_dead_letters_is_rotated_and_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    store = jsonl.JsonLinesStore(path, max_bytes=2_000)
    for number in range(30):
        store.add([letter_of(number)])
    kept = list(store.letters())
    assert kept[-1][1] == letter_of(29)
    assert len(kept) > 5
    assert store.remove([key for key, _ in kept[1:]]) == len(kept) - 1
    assert [letter for _, letter in store.letters()] == [kept[0][1]]
    assert {each.name for each in tmp_path.iterdir()} == {path.name, f"{path.name}.lock"}


def test_without_locks_there_is_no_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "HAS_FILE_LOCKS", False)
    with pytest.raises(SpoolError, match="needs file locks .* kept in memory"):
        new_spool(tmp_path / "spool").open()


@pytest.mark.parametrize("power_safe", [False, True])
def test_macos_is_asked_for_more_than_fsync(power_safe: bool, tmp_path: Path) -> None:
    spool = new_spool(tmp_path / "spool", power_safe=power_safe)
    spool.open()
    for pragma in ("fullfsync", "checkpoint_fullfsync"):
        assert connection_of(spool).execute(f"PRAGMA {pragma}").fetchone() == (power_safe,)
    spool.close()
