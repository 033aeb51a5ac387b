"""Dead letters that are damaged, huge, or of another version: they are seen, and cost no other."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest

from arthur_relay.dead_letters import DAMAGED, DeadLetter
from arthur_relay.dead_letters.jsonl import JsonLinesStore
from arthur_relay.dead_letters.sqlite import (
    FILE_NAME,
    LATER_VERSIONS,
    PAGE_BYTES,
    VERSION,
    SqliteStore,
)
from arthur_relay.dead_letters.stores import AllStores
from arthur_relay.system.files import KEPT_ASIDE
from tests.dead_letters.test_dead_letters import KEEPERS, SMALL_BYTES, letter_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from arthur_relay.dead_letters import DeadLetterStore, LetterKey

BODIES = {
    "empty": b"",
    "no JSON": b"\xff\x00{ not JSON",
    "a number that is none": b'{"a": NaN}',
    "half a character": b'{"a": "\\ud800"}',
    "on several lines": b'{\n  "a": [1,\r\n 2]\n}',
    "with the mark in it": b'{"a": ",\\"row\\":", "row": {"row": null}}',
    "a large number": b'{"a": 123456789012345678901234567890, "b": 1.10}',
    "null": b"null",
}


@pytest.fixture(params=KEEPERS)
def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> DeadLetterStore:
    return KEEPERS[request.param](tmp_path)


def ids(letters: Iterable[tuple[LetterKey, DeadLetter]]) -> list[str]:
    return [letter.inference_id for _, letter in letters]


@pytest.mark.parametrize("name", BODIES)
def test_any_row_is_kept_as_it_was(name: str, keeper: DeadLetterStore) -> None:
    body = BODIES[name]
    keeper.add([letter_of(1), replace(letter_of(2), body=body), letter_of(3)])
    found = dict(zip("123", [letter for _, letter in keeper.letters()], strict=True))
    assert found["1"] == letter_of(1)
    assert found["3"] == letter_of(3)
    if isinstance(keeper, JsonLinesStore):
        # A line break that means nothing is none in a file of lines; nor is `null` kept.
        body = b"" if body == b"null" else body.replace(b"\n", b" ")
    assert found["2"].body == body
    assert found["2"].can_be_sent is (name in ("on several lines", "with the mark in it",
                                               "a large number"))  # fmt: skip
    assert keeper.remove([key for key, each in keeper.letters() if each == found["2"]]) == 1
    assert ids(keeper.letters()) == ["i1", "i3"]


def test_a_letter_that_is_larger_than_all_may_be_is_kept_without_its_row(
    keeper: DeadLetterStore,
) -> None:
    if isinstance(keeper, JsonLinesStore):
        pytest.skip("a file of lines has it as its last one")
    keeper.add([letter_of(1)])
    keeper.add([letter_of(2, size=10 * SMALL_BYTES), letter_of(3)])
    found = [letter for _, letter in keeper.letters()]
    assert [letter.inference_id for letter in found] == ["i1", "i2", "i3"]
    assert found[1].body == b""
    assert not found[1].can_be_sent


def write_by_hand(path: Path, **columns: object) -> None:
    with closing(sqlite3.connect(path / FILE_NAME)) as connection, connection:
        for name, value in columns.items():
            connection.execute(f"UPDATE letters SET {name} = ? WHERE key = 2", (value,))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", "something that comes later"),
        ("rejected_at", "yesterday"),
        ("status", "gone"),
        ("attempts", "many"),
        ("body", "a text"),
    ],
)
def test_a_letter_with_something_else_in_a_column_is_seen(
    column: str, value: object, tmp_path: Path
) -> None:
    keeper = SqliteStore(tmp_path, max_bytes=1 << 20)
    keeper.add([letter_of(number) for number in (1, 2, 3)])
    write_by_hand(tmp_path, **{column: value})
    assert ids(keeper.letters()) == ["i1", "i2", "i3"]
    _, found = list(keeper.letters())[1]
    assert not found.can_be_sent
    assert keeper.remove([2]) == 1
    assert ids(keeper.letters()) == ["i1", "i3"]


def test_a_moment_without_a_time_zone_is_one_of_utc(tmp_path: Path) -> None:
    keeper = SqliteStore(tmp_path, max_bytes=1 << 20)
    keeper.add([letter_of(1), letter_of(2)])
    write_by_hand(tmp_path, rejected_at="2026-11-25T12:00:02")
    assert [letter for _, letter in keeper.letters()] == [letter_of(1), letter_of(2)]


def test_a_text_that_is_none_costs_only_its_letter(tmp_path: Path) -> None:
    keeper = SqliteStore(tmp_path, max_bytes=1 << 20)
    keeper.add([letter_of(number) for number in (1, 2, 3)])
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection, connection:
        connection.execute("UPDATE letters SET reason = CAST(x'ff' AS TEXT) WHERE key = 2")
    assert ids(keeper.letters()) == ["i1", "i3"]


def test_letters_of_a_later_version_are_shown(tmp_path: Path) -> None:
    keeper = SqliteStore(tmp_path, max_bytes=1 << 20)
    keeper.add([letter_of(1)])
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("ALTER TABLE letters ADD COLUMN more TEXT")
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    assert [letter for _, letter in keeper.letters()] == [letter_of(1)]
    assert keeper.count() == {"row 400": 1}
    lines = JsonLinesStore(tmp_path / "letters.jsonl", max_bytes=1 << 20)
    lines.add([letter_of(1)])
    document = orjson.loads((tmp_path / "letters.jsonl").read_bytes())
    later = orjson.dumps({**document, "kind": "later", "inference_id": "i2", "more": 1})
    with (tmp_path / "letters.jsonl").open("ab") as file:
        file.write(later + b"\n")
    assert ids(lines.letters()) == ["i1", "i2"]
    assert [letter.can_be_sent for _, letter in lines.letters()] == [True, False]


def test_a_file_of_an_earlier_version_is_read_and_goes_on_to_be_used(tmp_path: Path) -> None:
    """That version knows nothing of Arthur's words, and can use the file again afterwards."""
    keeper = SqliteStore(tmp_path, max_bytes=1 << 20)
    keeper.add([letter_of(1), letter_of(2)])
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("ALTER TABLE letters DROP COLUMN said")
    assert [letter for _, letter in keeper.letters()] == [letter_of(1), letter_of(2)]
    assert keeper.count() == {"row 400": 2}
    assert keeper.remove([1]) == 1
    new = replace(letter_of(3), said="attribute 'x' is unknown")
    keeper.add([new])
    assert [letter for _, letter in keeper.letters()] == [letter_of(2), new]
    damage(tmp_path / FILE_NAME, 1)
    assert [letter for _, letter in keeper.letters()] == [letter_of(2), new]
    other = SqliteStore(tmp_path, max_bytes=1 << 20)
    other.add([letter_of(4)])
    assert [letter for _, letter in other.letters()] == [letter_of(2), new, letter_of(4)]


def test_words_count_for_the_size_of_a_letter(tmp_path: Path) -> None:
    keeper = SqliteStore(tmp_path, max_bytes=SMALL_BYTES)
    letters = [replace(letter_of(number), said="is " * 100) for number in range(26)]
    keeper.add(letters)
    kept = [letter for _, letter in keeper.letters()]
    assert kept == letters[-len(kept) :]
    assert sum(letter.size for letter in kept) <= SMALL_BYTES < sum(each.size for each in letters)


def damage(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(b"\xee" * PAGE_BYTES)


@pytest.mark.parametrize("page", [1, 2, 5])
def test_what_can_be_read_of_a_damaged_file_goes_on(page: int, tmp_path: Path) -> None:
    keeper = SqliteStore(tmp_path, max_bytes=1 << 20)
    keeper.add([letter_of(number, size=900) for number in range(50)])
    damage(tmp_path / FILE_NAME, page)
    read = ids(keeper.letters())
    assert len(read) >= 45
    keeper.add([letter_of(1_000)])
    assert {*read, "i1000"} >= set(ids(keeper.letters())) >= {*read[10:], "i1000"}


def test_letters_are_found_wherever_they_are_and_each_once(tmp_path: Path) -> None:
    old = SqliteStore(tmp_path, max_bytes=1 << 20)
    old.add([letter_of(number) for number in range(3)])
    # What an older version did with a file that was damaged.
    (tmp_path / FILE_NAME).rename(tmp_path / "dead-letters-damaged-20260101T000000Z.sqlite")
    database = SqliteStore(tmp_path, max_bytes=1 << 20)
    file = tmp_path / "letters.jsonl"
    lines = JsonLinesStore(file, max_bytes=1 << 20, with_damaged=True)
    database.add([letter_of(2), letter_of(3)])
    lines.add([letter_of(3), letter_of(4)])
    file.rename(tmp_path / "letters.jsonl.1")
    lines.add([letter_of(5)])
    with file.open("ab") as stream:
        stream.write(b'{"inference_id": "half')
    kept = AllStores([database, lines])
    assert sorted(ids(kept.letters())) == ["?", "i0", "i1", "i2", "i3", "i4", "i5"]
    [half] = [letter for _, letter in kept.letters() if letter.inference_id == "?"]
    assert (half.reason, half.body) == (DAMAGED, b'{"inference_id": "half')
    kept.take_back()
    assert not list(tmp_path.glob("*-damaged-*"))
    wanted = [key for key, letter in kept.letters() if letter.inference_id in ("i0", "i3")]
    assert kept.remove(wanted) == 2
    assert sorted(ids(kept.letters())) == ["?", "i1", "i2", "i4", "i5"]
    assert kept.remove([key for key, _ in kept.letters()]) == 5
    assert ids(kept.letters()) == []


def test_what_is_taken_back_costs_no_other_letter(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path, max_bytes=20_000)
    first.add([letter_of(number, size=1_000) for number in range(12)])
    (tmp_path / FILE_NAME).rename(tmp_path / "dead-letters-damaged-20260101T000000Z.sqlite")
    database = SqliteStore(tmp_path, max_bytes=20_000)
    database.add([letter_of(number, size=1_000) for number in range(100, 112)])
    shown = sorted(ids(AllStores([database]).letters()))
    database.take_back()
    assert sorted(ids(database.letters())) == shown
    assert len(shown) == 24


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path / FILE_NAME, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "statements",
    [
        ("DROP TABLE letters",),
        ("DROP TABLE held",),
        ("ALTER TABLE letters RENAME COLUMN body TO bodies",),
        (f"PRAGMA user_version = {VERSION + LATER_VERSIONS + 1}",),
        ("PRAGMA user_version = -9",),
        ("PRAGMA writable_schema = 1", "UPDATE sqlite_master SET sql = 'nonsense'"),
    ],
)
def test_tables_that_are_not_as_they_were_made_stop_no_letter(
    statements: tuple[str, ...], tmp_path: Path
) -> None:
    keeper = SqliteStore(tmp_path, max_bytes=1 << 20)
    keeper.add([letter_of(1), letter_of(2)])
    change(tmp_path, *statements)
    there = [] if "DROP TABLE letters" in statements else ["i1", "i2"]
    if there:
        assert ids(keeper.letters()) == there
        assert sum(keeper.count().values()) == 2
    keeper.add([letter_of(3)])
    assert ids(keeper.letters()) == [*there, "i3"]
    assert keeper.remove([key for key, _ in keeper.letters()]) == len(there) + 1


@pytest.mark.parametrize(
    "held",
    [
        "UPDATE held SET size = 9223372036854775807",
        "UPDATE held SET size = 1000000000",
        "UPDATE held SET size = -1000000000",
        "UPDATE held SET size = 'large'",
        "DELETE FROM held",
        "INSERT INTO held VALUES (1)",
    ],
)
def test_a_size_that_is_not_that_of_the_letters_costs_none(held: str, tmp_path: Path) -> None:
    keeper = SqliteStore(tmp_path, max_bytes=20_000)
    for number in range(8):
        keeper.add([letter_of(number, size=1_000)])
    change(tmp_path, held)
    assert keeper.add([letter_of(8, size=1_000)]) == 0
    assert len(list(keeper.letters())) == 9
    for number in range(20):
        keeper.add([letter_of(100 + number, size=1_000)])
    assert len(list(keeper.letters())) == 12, "they are bounded as before"


def test_files_that_were_set_aside_are_bounded_and_no_letter_is_lost_by_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = SqliteStore(tmp_path, max_bytes=1 << 20)
    # What nobody has taken over: the file of an older version.
    keeper.add([letter_of(1_000), letter_of(1_001)])
    (tmp_path / FILE_NAME).rename(tmp_path / "dead-letters-damaged-20250101T000000Z.sqlite")
    gone = 0
    for number in range(KEPT_ASIDE + 2):
        keeper.add([letter_of(number)])
        change(tmp_path, f"PRAGMA user_version = {VERSION}", "DROP TABLE held")
        gone += keeper.add([letter_of(100 + number)])
    assert len(keeper.quarantined_files()) == KEPT_ASIDE
    assert len(list(keeper.letters())) == 2 * (KEPT_ASIDE + 2)
    assert gone == 2, "those of the older version are counted as given up"
    assert "damaged files of dead letters, the oldest ones, were removed" in caplog.text


def test_a_file_that_is_damaged_can_be_emptied(tmp_path: Path) -> None:
    keeper = SqliteStore(tmp_path, max_bytes=1 << 20)
    keeper.add([letter_of(number, size=900) for number in range(50)])
    damage(tmp_path / FILE_NAME, 5)
    kept = AllStores([keeper])
    shown = ids(kept.letters())
    kept.take_back()
    assert sorted(ids(kept.letters())) == sorted(shown)
    assert kept.remove([key for key, _ in kept.letters()]) == len(shown)
    assert ids(kept.letters()) == []
