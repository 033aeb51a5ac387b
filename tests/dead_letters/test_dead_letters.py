"""Where dead letters are kept: bounded, for their owner only, by several processes."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arthur_relay.dead_letters import UNWRITTEN_BYTES, DeadLetter, DeadLetters
from arthur_relay.dead_letters.jsonl import JsonLinesStore
from arthur_relay.dead_letters.memory import MemoryStore
from arthur_relay.dead_letters.sqlite import FILE_NAME, VERSION, SqliteStore
from arthur_relay.row import RowKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arthur_relay.dead_letters import DeadLetterStore

SMALL_BYTES = 20_000


def letter_of(number: int, *, size: int = 100, reason: str = "row 400") -> DeadLetter:
    return DeadLetter(
        inference_id=f"i{number}",
        model_id="m",
        kind=RowKind.INFERENCE,
        reason=reason,
        status=400,
        attempts=2,
        rejected_at=datetime(2026, 11, 25, 12, 0, number % 60, tzinfo=UTC),
        destination="https://arthur.example",
        body=json.dumps({"text": "x" * size}, separators=(",", ":")).encode(),
    )


KEEPERS: dict[str, Callable[[Path], DeadLetterStore]] = {
    "in memory": lambda _path: MemoryStore(max_bytes=SMALL_BYTES),
    "in the spool": lambda path: SqliteStore(path, max_bytes=SMALL_BYTES),
    "in a file": lambda path: JsonLinesStore(path / "letters.jsonl", max_bytes=SMALL_BYTES),
}


@pytest.fixture(params=KEEPERS)
def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> DeadLetterStore:
    return KEEPERS[request.param](tmp_path)


def test_letters_come_back_as_they_were(keeper: DeadLetterStore) -> None:
    assert list(keeper.letters()) == []
    letters = [letter_of(number) for number in range(5)]
    letters[1] = replace(letters[1], said="attribute 'x' is unknown")
    keeper.add(letters[:2])
    keeper.add(letters[2:])
    assert [letter for _, letter in keeper.letters()] == letters


def test_letters_are_removed_by_key(keeper: DeadLetterStore) -> None:
    keeper.add([letter_of(number) for number in range(5)])
    keys = [key for key, letter in keeper.letters() if letter.inference_id in ("i1", "i3")]
    assert keeper.remove(keys) == 2
    assert [letter.inference_id for _, letter in keeper.letters()] == ["i0", "i2", "i4"]


def test_the_oldest_give_way(keeper: DeadLetterStore, tmp_path: Path) -> None:
    for number in range(300):
        keeper.add([letter_of(number)])
    kept = [int(letter.inference_id[1:]) for _, letter in keeper.letters()]
    assert kept == list(range(300 - len(kept), 300))
    assert 20 < len(kept) < 150
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 10 * SMALL_BYTES


@pytest.mark.parametrize("name", ["in the spool", "in a file"])
def test_files_are_for_their_owner_only(name: str, tmp_path: Path) -> None:
    keeper = KEEPERS[name](tmp_path)
    for number in range(300):  # the file is rotated as well
        keeper.add([letter_of(number)])
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.iterdir())


def add_many(name: str, path: str, first: int) -> None:
    keeper: DeadLetterStore = (
        SqliteStore(Path(path), max_bytes=10_000_000)
        if name == "in the spool"
        else JsonLinesStore(Path(path) / "letters.jsonl", max_bytes=10_000_000)
    )
    letters = DeadLetters([keeper])
    for number in range(first, first + 50):
        letters.add(letter_of(number), number)
        done = letters.commit()
    while first + 49 not in done:  # the others had the file for too long
        done = letters.commit()


@pytest.mark.parametrize("name", ["in the spool", "in a file"])
def test_processes_share_them(name: str, tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(add_many, name, str(tmp_path), 50 * n) for n in range(3)]:
            done.result()
    found = KEEPERS[name](tmp_path).letters()
    assert sorted(int(letter.inference_id[1:]) for _, letter in found) == list(range(150))


def test_letters_are_removed_though_the_file_was_rotated_meanwhile(tmp_path: Path) -> None:
    keeper = JsonLinesStore(tmp_path / "letters.jsonl", max_bytes=2_000)
    numbers = iter(range(100))
    while not (tmp_path / "letters.jsonl.1").exists():
        keeper.add([letter_of(next(numbers))])
    seen = dict(keeper.letters())
    before = (tmp_path / "letters.jsonl.1").read_bytes()
    while (tmp_path / "letters.jsonl.1").read_bytes() == before:  # the oldest ones are gone
        keeper.add([letter_of(next(numbers))])
    kept = [letter.inference_id for _, letter in keeper.letters()]
    still = [letter.inference_id for letter in seen.values() if letter.inference_id in kept]
    assert 0 < len(still) < len(kept)
    assert keeper.remove(seen) == len(still)
    left = [letter.inference_id for _, letter in keeper.letters()]
    assert left == [name for name in kept if name not in still]
    keeper.add([letter_of(1000)])  # the file is in use again, and for its owner only
    assert [letter.inference_id for _, letter in keeper.letters()] == [*left, "i1000"]
    assert not (tmp_path / "letters.jsonl.new").exists()
    assert (tmp_path / "letters.jsonl").stat().st_mode & 0o077 == 0


def test_a_line_that_was_cut_off_costs_no_other(tmp_path: Path) -> None:
    keeper = JsonLinesStore(tmp_path / "letters.jsonl", max_bytes=SMALL_BYTES)
    keeper.add([letter_of(1)])
    with (tmp_path / "letters.jsonl").open("ab") as file:
        file.write(b'{"inference_id": "half\n[]\n')
    keeper.add([letter_of(2)])
    assert [letter.inference_id for _, letter in keeper.letters()] == ["i1", "i2"]


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 1000)
    keeper = SqliteStore(tmp_path, max_bytes=SMALL_BYTES)
    keeper.add([letter_of(1)])
    assert [letter.inference_id for _, letter in keeper.letters()] == ["i1"]
    assert [file.name[:20] for file in tmp_path.glob("*damaged*")] == ["dead-letters-damaged"]


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    keeper = SqliteStore(tmp_path, max_bytes=SMALL_BYTES)
    keeper.add([letter_of(1)])
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(sqlite3.OperationalError, match="later version"):
        keeper.add([letter_of(2)])
    assert (tmp_path / FILE_NAME).read_bytes() == before


class Broken(MemoryStore):
    """A keeper whose disk is full for a while."""

    def __init__(self) -> None:
        super().__init__(max_bytes=1 << 30)
        self.is_broken = True

    def add(self, letters: Sequence[DeadLetter]) -> int:
        if self.is_broken:
            raise OSError("no space left on device")
        return super().add(letters)


def test_what_cannot_be_written_waits_in_memory_and_is_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keeper = Broken()
    letters = DeadLetters([keeper])
    for number in range(300):
        letters.add(letter_of(number, size=10_000))
        letters.commit()
    assert len(caplog.records) == 1
    assert "can't be written" in caplog.text
    keeper.is_broken = False
    letters.commit()
    kept = [int(letter.inference_id[1:]) for letter in letters.letters()]
    assert kept == list(range(300 - len(kept), 300))
    assert letters.evicted == 300 - len(kept)
    assert UNWRITTEN_BYTES * 0.8 < sum(each.size for each in letters.letters()) <= UNWRITTEN_BYTES


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_function_is_told_and_may_fail(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def tell(letter: DeadLetter) -> None:
        told.append(letter.inference_id)
        raise error("a secret")

    letters = DeadLetters([MemoryStore(max_bytes=SMALL_BYTES)], on_dead_letter=tell)
    letters.add(letter_of(1))
    letters.add(letter_of(2))
    letters.commit()
    assert told == ["i1", "i2"]
    assert len(letters.letters()) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"arthur-relay: on_dead_letter raised {error.__name__}"
    ]


def test_a_letter_does_not_show_its_text() -> None:
    assert "xxx" not in repr(letter_of(1))


def test_those_that_give_way_are_counted_and_told_once(
    keeper: DeadLetterStore, caplog: pytest.LogCaptureFixture
) -> None:
    letters = DeadLetters([keeper])
    for number in range(60):
        letters.add(letter_of(number, size=1000))
        letters.commit()
        assert letters.evicted + sum((letters.count() or {}).values()) == number + 1
    assert letters.evicted > 20
    (line,) = [record.getMessage() for record in caplog.records]
    assert "the oldest are lost" in line
