"""Dead letters are safe before their rows leave the spool; without them the rows stay, bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from arthur_relay.buffers.spool.buffer import Spool
from arthur_relay.dead_letters import UNWRITTEN_BYTES, DeadLetters
from arthur_relay.row import RECOVERED, Row
from tests.buffers.spools import MIB, crash, ids, new_spool, rows_of
from tests.clock import Clock
from tests.dead_letters.test_dead_letters import Broken, letter_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def reject(spool: Spool, letters: DeadLetters, rows: list[Row], size: int = 100) -> None:
    """Do what the worker does with rows that Arthur rejects."""
    for row in rows:
        letters.add(letter_of(int(row.id[1:]), size=size), spool.retain(row))
    spool.settle(rows)


def turn(spool: Spool, letters: DeadLetters) -> None:
    spool.let_go(letters.commit())
    spool.commit()


def rows_after_a_crash(spool: Spool, path: Path) -> list[str]:
    crash(spool)
    again = new_spool(path)
    count = again.open()
    found = ids(again.lease(1_000))
    assert len(found) == count
    again.release_all()
    again.close()
    return found


def test_a_row_stays_until_its_letter_is_safe(path: Path) -> None:
    keeper, clock = Broken(), Clock()
    letters = DeadLetters([keeper])
    spool = new_spool(path, clock)
    spool.open()
    assert spool.store(rows_of(5))
    rows = spool.lease(5)
    spool.settle(rows[3:])
    reject(spool, letters, rows[:3])
    assert (spool.rows, spool.kept) == (0, 0)
    turn(spool, letters)
    assert spool.store(rows_of(1, 9)), "which commits as well"
    spool.note(spool.lease(1), at_once=True)
    assert (spool.rows, spool.kept) == (1, 1)
    keeper.is_broken = False
    turn(spool, letters)
    assert [letter.inference_id for letter in letters.letters()] == ["i0", "i1", "i2"]
    assert rows_after_a_crash(spool, path) == ["r9"]


def test_a_crash_before_it_is_brings_the_row_back(path: Path) -> None:
    letters = DeadLetters([Broken()])
    spool = new_spool(path)
    spool.open()
    assert spool.store(rows_of(5))
    rows = spool.lease(4)
    reject(spool, letters, rows[:2])
    spool.settle(rows[2:])
    turn(spool, letters)
    assert rows_after_a_crash(spool, path) == ["r0", "r1", "r4"]


def test_a_clean_end_without_the_letters_keeps_the_rows_too(path: Path) -> None:
    letters = DeadLetters([Broken()])
    spool = new_spool(path)
    spool.open()
    assert spool.store(rows_of(2))
    reject(spool, letters, spool.lease(1))
    turn(spool, letters)
    assert spool.close() == 1, "the one that is pending"
    again = new_spool(path)
    assert again.open() == 2
    assert {row.epoch for row in again.lease(2)} == {RECOVERED}
    again.close()


def test_letters_that_memory_has_no_room_for_leave_their_rows_in_the_spool(path: Path) -> None:
    keeper = Broken()
    letters = DeadLetters([keeper])
    spool = new_spool(path, max_bytes=8 * MIB)
    spool.open()
    count = 0
    while spool.has_room(rows=1, size=20_000):
        assert spool.store(rows_of(1, count, size=20_000))
        reject(spool, letters, spool.lease(1), size=20_000)
        turn(spool, letters)
        count += 1
        assert count < 1_000, "it is bounded by nothing"
    assert count > 200
    keeper.is_broken = False
    turn(spool, letters)
    written = len(letters.letters())
    assert UNWRITTEN_BYTES * 0.9 < written * 20_000 < UNWRITTEN_BYTES * 1.1
    assert len(rows_after_a_crash(spool, path)) == count - written


def test_a_row_that_was_never_written_needs_no_keeping(path: Path) -> None:
    letters = DeadLetters([Broken()])
    spool = new_spool(path)
    spool.open()
    spool.put(rows_of(1))
    rows = spool.lease(1)
    assert spool.retain(rows[0]) is None
    spool.settle(rows)
    letters.add(letter_of(0), None)
    assert letters.commit() == []
    assert spool.close() == 0
