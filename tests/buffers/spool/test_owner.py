"""Whose rows are in a spool: they go to the address and organisation they were captured for."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from arthur_relay.buffers.spool.buffer import Spool
from arthur_relay.buffers.spool.directory import SpoolDirectory
from arthur_relay.buffers.spool.disk_state import RETRY_SECONDS
from arthur_relay.buffers.spool.file_format import PAGE_BYTES, set_up_tables
from arthur_relay.buffers.spool.inspection import inspect_spools
from arthur_relay.buffers.spool.segments import ADOPT_SECONDS
from arthur_relay.buffers.spool.sqlite_file import SpoolFile
from arthur_relay.credentials import Credentials
from arthur_relay.row import Row, RowOwner
from tests.buffers.spool.sqlite_writes import Writes, put_back
from tests.buffers.spool.test_format import OLD, make_first_version
from tests.buffers.spools import (
    connection_of,
    crash,
    ids,
    made,
    new_spool,
    remember,
    remembered,
    rows_of,
)
from tests.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

A = RowOwner("https://a.example", "org", "me")
MISTYPED = RowOwner("https://a.example", None, "mistyped", is_refused=True)
SECRET = "a-secret-key-of-arthur"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def leave(path: Path, owner: RowOwner, count: int = 3) -> None:
    """Leave rows for somebody, as a process that is killed does."""
    spool = new_spool(path, owner=owner)
    spool.open()
    remember(spool, "theirs")
    assert spool.store(rows_of(count))
    crash(spool)


@pytest.mark.parametrize(
    ("us", "theirs", "said"),
    [
        (
            RowOwner("https://a.example/api/v1/traces", None, "me"),
            A,
            "3 rows for Arthur Scope, and this process sends to Arthur Engine: it is left alone",
        ),
        (
            A,
            RowOwner("https://a.example/api/v1/traces", None, "me"),
            "3 rows for Arthur Engine, and this process sends to Arthur Scope: it is left alone",
        ),
        (
            RowOwner("https://a.example/api/v1/traces", None, "new"),
            RowOwner("https://a.example/api/v1/traces", None, "old"),
            "captured with another key: it is left alone. To send them with this one: arthur-relay",
        ),
    ],
)
def test_the_log_says_what_can_be_done(
    us: RowOwner, theirs: RowOwner, said: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave(path, theirs)
    other = new_spool(path, owner=us)
    assert other.open() == 0
    [record] = caplog.records
    assert said in record.getMessage()
    is_of_product = "another key" not in said
    assert ("spool adopt" in record.getMessage()) is not is_of_product
    other.close()


def changing(path: Path, clock: Clock, known: list[RowOwner]) -> Spool:
    spool = Spool(
        SpoolDirectory(path),
        max_bytes=1 << 20,
        power_safe=False,
        clock=clock,
        owner=lambda: known[0],
    )
    made.append(spool)
    return spool


@pytest.mark.parametrize(
    ("us", "theirs", "may"),
    [
        (A, A, True),
        (A, RowOwner("https://b.example", "org", "me"), False),
        (A, RowOwner("https://a.example", "other", "me"), False),
        (A, RowOwner("https://a.example", "org", "another key of the same organisation"), True),
        # A login's or a key's only organisation is asked for; until then the same one is trusted.
        (RowOwner("https://a.example", None, "me"), A, True),
        (A, RowOwner("https://a.example", None, "me"), True),
        (RowOwner("https://a.example", None, "another"), A, None),
        (A, RowOwner("https://a.example", None, "another"), False),
        (RowOwner("https://a.example", None, "x"), RowOwner("https://a.example", None, "y"), False),
        # What was captured with a key that nobody has is for the first one that is taken.
        (A, MISTYPED, True),
        (RowOwner("https://b.example", "org", "me"), MISTYPED, False),
        (RowOwner("https://a.example", None, "another"), MISTYPED, None),
        (RowOwner("https://a.example", None, "mistyped"), MISTYPED, True),
        (MISTYPED, A, None),
        (MISTYPED, RowOwner("https://a.example", None, "mistyped"), True),
    ],
)
def test_who_may_send_whose(us: RowOwner, theirs: RowOwner, may: bool | None) -> None:
    assert us.may_send(theirs) is may


def test_a_principal_says_nothing_of_a_credential() -> None:
    def owner(**who: str) -> RowOwner:
        return Credentials("https://a.example", **who).owner  # type: ignore[arg-type] # texts

    key, login = owner(api_key=SECRET), owner(login="ann", password=SECRET)
    assert SECRET not in repr((key, login))
    assert key != login
    assert login == owner(login="ann", password="a new one"), "a password may be rotated"
    assert owner(api_key=SECRET) == key != owner(api_key=SECRET, organization_id="o")


def test_rows_for_somebody_else_are_left_alone_and_told_of_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave(path, A)
    clock = Clock()
    other = new_spool(path, clock, owner=RowOwner("https://b.example", "org", "me"))
    assert other.open() == 0
    assert remembered(other) == []
    assert other.store(rows_of(2, 100))
    for _ in range(3):
        clock.now += ADOPT_SECONDS
        assert other.adopt() == 0
    assert ids(other.lease(10)) == ["r100", "r101"]
    [record] = caplog.records
    assert record.getMessage() == (
        f"arthur-relay: the spool file {path / '0.spool'} has 3 inferences for https://a.example,"
        " organisation org, and this process sends to https://b.example, organisation org: it is"
        f" left alone. To send them here all the same: arthur-relay spool adopt {path / '0.spool'}"
    )
    other.release_all()
    assert other.close() == 2
    mine = new_spool(path, owner=A)
    assert mine.open() == 3
    assert ids(mine.lease(10)) == ["r0", "r1", "r2"]
    mine.close()


def test_a_file_without_rows_is_of_nobody(path: Path) -> None:
    leave(path, A, 1)
    spool = new_spool(path, owner=A)
    spool.open()
    spool.settle(spool.lease(1))
    assert spool.close() == 0
    assert (path / "0.spool").exists(), "for the models in it"
    other = new_spool(path, owner=RowOwner("https://b.example"))
    assert other.open() == 0
    assert remembered(other) == []
    assert other._segments[0].claim.path.name == "0.spool"
    assert other.store(rows_of(1))
    other.close()
    assert new_spool(path, owner=A).open() == 0


def test_a_file_of_the_first_version_is_taken_over_by_whoever_comes(path: Path) -> None:
    make_first_version(path)
    spool = new_spool(path, owner=A)
    assert spool.open() == len(OLD)
    spool.close()
    other = new_spool(path, owner=RowOwner("https://b.example"))
    assert other.open() == 0
    other.close()


def test_an_organisation_that_is_learned_later_decides(path: Path) -> None:
    """A key was rotated, and whose the new one is is not known at the start."""
    leave(path, A)
    clock = Clock()
    known = [RowOwner("https://a.example", None, "a new key")]
    spool = changing(path, clock, known)
    assert spool.open() == 0
    assert spool.store(rows_of(1, 50))
    clock.now += ADOPT_SECONDS
    assert spool.adopt() == 0
    known[0] = RowOwner("https://a.example", "org", "a new key")
    clock.now += RETRY_SECONDS
    spool.commit()
    assert spool.adopt() == 3, "at once"
    assert spool._segments[0].file.owner == known[0]
    assert spool.close() == 4
    assert new_spool(path, owner=RowOwner("https://a.example", "other", "a new key")).open() == 0


def test_who_becomes_somebody_else_sends_nothing(path: Path) -> None:
    known = [A]
    clock = Clock()
    spool = changing(path, clock, known)
    spool.open()
    assert spool.store(rows_of(2))
    known[0] = RowOwner("https://a.example", "other", "me")
    assert spool.lease(10) == []
    assert not spool.store(rows_of(1, 9))
    assert "organisation org" in str(spool.trouble)
    assert spool.rows == 2
    known[0] = A
    clock.now += RETRY_SECONDS
    spool.commit()
    assert len(spool.lease(10)) == 2
    assert spool.trouble is None
    spool.release_all()
    assert spool.close() == 2


def test_a_damaged_file_stays_whose_it_is(path: Path) -> None:
    spool = new_spool(path, owner=A)
    spool.open()
    assert spool.store([Row(f"r{number}", "m", b'{"a": 1}') for number in range(300)])
    spool.close()
    with (path / "0.spool").open("r+b") as file:
        file.write(b"\xff" * 3_000)
    other = new_spool(path, owner=RowOwner("https://b.example"))
    assert other.open() == 0
    other.close()
    mine = new_spool(path, owner=A)
    assert mine.open() == 300
    mine.close()


B = RowOwner("https://b.example", "org", "me")


def page_of(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path / "0.spool")) as connection:
        named = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
        ((root,),) = named
    return int(root)


def overwrite_pages(path: Path, *pages: int) -> None:
    with (path / "0.spool").open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE_BYTES)
            file.write(b"\xee" * PAGE_BYTES)


def leave_whole(path: Path, count: int) -> None:
    """Leave rows of A in a file without a log."""
    spool = new_spool(path, owner=A)
    spool.open()
    assert spool.store([Row(f"r{number}", "m", b'{"a": 1}') for number in range(count)])
    assert spool.close() == count


@pytest.mark.parametrize("table", ["owner", "owner_copy"])
def test_one_damaged_page_costs_no_file_its_owner(table: str, path: Path) -> None:
    leave_whole(path, 20)
    overwrite_pages(path, page_of(path, table))
    other = new_spool(path, owner=B)
    assert other.open() == 0
    other.close()
    mine = new_spool(path, owner=A)
    assert mine.open() == 20
    assert mine._segments[0].file.owner == A
    mine.close()


UNREADABLE = {
    "no rows": ("DELETE FROM {}",),
    "a number": ("UPDATE {} SET address = 5",),
    "bytes": ("UPDATE {} SET address = x'00'",),
    "no text": ("UPDATE {} SET address = CAST(x'ff' AS TEXT)",),
    "several": ("INSERT INTO {} VALUES ('https://b.example', 'org', 'me')",),
}


@pytest.mark.parametrize("name", [*UNREADABLE, "pages", "pages and header", "all but rows"])
@pytest.mark.parametrize("us", [A, B])
def test_a_file_that_does_not_say_whose_it_is_any_more_is_left_alone(
    us: RowOwner, name: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave_whole(path, 20)
    owners = [page_of(path, table) for table in ("owner", "owner_copy")]
    with closing(sqlite3.connect(path / "0.spool", isolation_level=None)) as connection:
        for statement in UNREADABLE.get(name, ()):
            for table in ("owner", "owner_copy"):
                if name in ("a number", "bytes"):  # a column of texts makes one of a number
                    connection.execute("PRAGMA writable_schema = 1")
                    changed = "UPDATE sqlite_master SET sql = replace(sql, 'TEXT', '')"
                    connection.execute(f"{changed} WHERE name = '{table}'")
                    connection.execute("PRAGMA writable_schema = RESET")
                connection.execute(statement.format(table))
    if name in ("pages", "pages and header"):
        overwrite_pages(path, *owners, *([1] if "header" in name else []))
    elif name == "all but rows":
        content = (path / "0.spool").read_bytes()
        leaves = [at // PAGE_BYTES + 1 for at in range(0, len(content), PAGE_BYTES)]
        rows = page_of(path, "rows")
        overwrite_pages(path, *[page for page in leaves if page != rows])
    for _ in range(2):
        spool = new_spool(path, owner=us)
        assert spool.open() == 0
        assert spool.lease(10) == []
        assert spool.lost().rows == 0
        assert spool.close() == 0
    assert "and does not say any more for whom: it is left alone" in caplog.text
    assert f"arthur-relay spool adopt {path / '0.spool'}" in caplog.text
    [finding] = inspect_spools(path)
    assert (finding.rows, finding.owner, finding.is_of_nobody) == (20, None, True)
    SpoolFile(path / "0.spool", power_safe=True, owner=us, is_adopted=True).close()
    adopter = new_spool(path, owner=us)
    assert adopter.open() == 20
    adopter.close()


def test_an_owner_that_is_damaged_in_mid_run_is_known_all_the_same(path: Path) -> None:
    leave_whole(path, 20)
    spool = new_spool(path, owner=A)
    spool.open()
    pages = [page_of(path, table) for table in ("owner", "owner_copy", "models")]
    connection_of(spool).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite_pages(path, *pages)
    connection_of(spool).execute("PRAGMA shrink_memory")
    remember(spool, "one")
    assert remembered(spool) == []
    assert len(list(path.glob("*-damaged-*.sqlite"))) == 1
    assert spool.close() == 20
    assert new_spool(path, owner=B).open() == 0
    assert new_spool(path, owner=A).open() == 20


@pytest.mark.parametrize("page", [2, 5])
def test_a_damaged_file_of_the_first_version_is_taken_over_by_whoever_comes(
    page: int, path: Path
) -> None:
    make_first_version(path)
    overwrite_pages(path, page)
    spool = new_spool(path, owner=A)
    spool.open()
    assert spool.rows == len(spool.lease(10)) >= 2
    assert spool._segments[0].file.owner == A
    spool.release_all()
    spool.close()


def test_rows_for_somebody_else_are_not_removed_because_their_count_is_wrong(path: Path) -> None:
    leave_whole(path, 20)
    with closing(sqlite3.connect(path / "0.spool", isolation_level=None)) as connection:
        connection.execute("UPDATE held SET rows = 0, last_seq = 0")
    other = new_spool(path, owner=B)
    assert other.open() == 0
    other.close()
    mine = new_spool(path, owner=A)
    assert mine.open() == 20
    mine.close()


def test_a_file_of_the_first_version_has_its_owner_from_the_moment_it_is_taken_over(
    path: Path, tmp_path: Path
) -> None:
    """A crash in between would leave a file of today that does not say whose it is."""
    make_first_version(path)
    connection = sqlite3.connect(path / "0.spool", isolation_level=None)
    connection.execute("SELECT * FROM held").fetchall()
    writes = Writes(connection, path / "0.spool")
    writes.wanted = lambda _number: True
    set_up_tables(connection, path, A)
    connection.close()
    assert len(writes.left) > 5
    for number, files in enumerate(writes.left):
        put_back(files, tmp_path / str(number))
        spool = new_spool(tmp_path / str(number), owner=A)
        assert spool.open() == len(OLD)
        crash(spool)


@pytest.mark.parametrize("is_refused", [True, False])
def test_what_was_captured_with_a_refused_key_is_sent_by_the_first_that_is_taken(
    is_refused: bool, path: Path
) -> None:
    """Where Arthur was only away the key may be good, and anybody's."""
    clock = Clock()
    known = [RowOwner("https://a.example", None, "mistyped")]
    first = changing(path, clock, known)
    first.open()
    assert first.store(rows_of(3))
    if is_refused:
        known[0] = MISTYPED
    clock.now += RETRY_SECONDS
    first.commit()
    assert len(first.lease(3)) == 3, "they are its own all the while"
    crash(first)
    again = changing(path, clock, known)
    assert again.open() == 3, "and of a start with the same key"
    crash(again)
    known = [RowOwner("https://a.example", None, "right")]
    second = changing(path, clock, known)
    assert second.open() == 0, "whether it is taken is not known yet"
    assert second.asks_for_owner == is_refused
    assert second.left_alone == 3
    known[0] = RowOwner("https://a.example", "org", "right")
    clock.now += ADOPT_SECONDS
    second.commit()
    assert second.adopt() == (3 if is_refused else 0)
    assert second.left_alone == (0 if is_refused else 3)
    assert second.close() == (3 if is_refused else 0)
    third = new_spool(path, owner=RowOwner("https://a.example", "other", "x"))
    assert third.open() == 0, "they are somebody's from then on"


def test_a_key_that_was_good_before_is_no_reason_to_give_its_rows_away(path: Path) -> None:
    leave(path, A)
    clock = Clock()
    known = [RowOwner("https://a.example", None, "me", is_refused=True)]
    revoked = changing(path, clock, known)
    assert revoked.open() == 3
    clock.now += RETRY_SECONDS
    revoked.commit()
    assert revoked._segments[0].file.owner == A
    crash(revoked)
    other = new_spool(path, owner=RowOwner("https://a.example", "other", "y"))
    assert other.open() == 0


@pytest.mark.parametrize("how", ["page", "header"])
def test_a_damaged_file_of_a_refused_key_is_one_still(how: str, path: Path) -> None:
    spool = new_spool(path, owner=RowOwner("https://a.example", None, "mistyped"))
    spool.open()
    assert spool.store([Row(f"r{number}", "m", b'{"a": 1}') for number in range(30)])
    spool._segments[0].file.belong_to(MISTYPED)
    spool.close()
    if how == "page":
        overwrite_pages(path, page_of(path, "owner"))
    else:
        with (path / "0.spool").open("r+b") as file:
            file.write(b"\xff" * 100)
    other = new_spool(path, owner=B)
    assert other.open() == 0
    other.close()
    mine = new_spool(path, owner=A)
    assert mine.open() == 30
    mine.close()
