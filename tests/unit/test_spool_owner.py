"""Whose rows are in a spool: they go to the address and organisation they were captured for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from arthur_relay.buffers.spool import ADOPT_SECONDS, RETRY_SECONDS, Spool
from arthur_relay.buffers.spool_directory import SpoolDirectory
from arthur_relay.credentials import Credentials
from arthur_relay.row import Row
from arthur_relay.row_owner import RowOwner
from arthur_relay.schema import ModelSchema
from arthur_relay.testing import LLM_ATTRIBUTES
from tests.unit.spools import Clock, crash, ids, new_spool, rows_of
from tests.unit.test_spool_format import OLD, make_first_version

if TYPE_CHECKING:
    from pathlib import Path

A = RowOwner("https://a.example", "org", "me")
SECRET = "a-secret-key-of-arthur"


def moment() -> datetime:
    return datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def leave(path: Path, owner: RowOwner, count: int = 3) -> None:
    """Leave rows for somebody, as a process that is killed does."""
    spool = new_spool(path, owner=owner)
    spool.open()
    spool.remember(ModelSchema("theirs", LLM_ATTRIBUTES))
    assert spool.store(rows_of(count))
    crash(spool)


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
    assert other.schemas() == []
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
    assert other.schemas() == []
    assert other._parts[0].claim.path.name == "0.spool"
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
    spool = Spool(
        SpoolDirectory(path),
        max_bytes=1 << 20,
        power_safe=False,
        monotonic=clock,
        utc_now=moment,
        owner=lambda: known[0],
    )
    assert spool.open() == 0
    assert spool.store(rows_of(1, 50))
    clock.now += ADOPT_SECONDS
    assert spool.adopt() == 0
    known[0] = RowOwner("https://a.example", "org", "a new key")
    clock.now += RETRY_SECONDS
    spool.commit()
    assert spool.adopt() == 3, "at once"
    assert spool._parts[0].file.owner == known[0]
    assert spool.close() == 4
    assert new_spool(path, owner=RowOwner("https://a.example", "other", "a new key")).open() == 0


def test_who_becomes_somebody_else_sends_nothing(path: Path) -> None:
    known = [A]
    clock = Clock()
    spool = Spool(
        SpoolDirectory(path),
        max_bytes=1 << 20,
        power_safe=False,
        monotonic=clock,
        utc_now=moment,
        owner=lambda: known[0],
    )
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
