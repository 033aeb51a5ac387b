"""Rows that are acknowledged: one commit for all that wait, all of an offer or none, told once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from arthur_relay.accounting import Ledger
from arthur_relay.buffers.memory import MemoryBuffer
from arthur_relay.row import Row
from arthur_relay.worker.flush import FlushTracker
from arthur_relay.worker.ingest import IngestAnswer, IngestBatch, IngestQueue, IngestRefusal

BODY = b'{"x":1}'


class Disk(MemoryBuffer):
    """A buffer that can be told to fail, and remembers what it was given at once."""

    def __init__(self, max_rows: int = 100) -> None:
        super().__init__(max_rows=max_rows, max_bytes=1 << 20)
        self.fails = False
        self.dies = False
        self.commits: list[list[str]] = []

    def store(self, rows: Sequence[Row]) -> bool:
        if self.dies:
            self.dies = False
            raise RuntimeError
        if self.fails:
            return False
        self.commits.append([row.id for row in rows])
        return super().store(rows)


@dataclass
class IngestClient:
    """Remembers what it was told."""

    told: list[list[tuple[list[str], IngestRefusal | None]]] = field(default_factory=list)

    def answered(self, answers: Sequence[IngestAnswer]) -> None:
        self.told.append([([row.id for row in offer.rows], why) for offer, why in answers])


class Set:
    """An acceptance with its parts."""

    def __init__(self, **disk: Any) -> None:
        self.disk = Disk(**disk)
        self.ledger = Ledger()
        self.flushes = FlushTracker()
        self.wakes = 0
        self.now = 0.0
        self.ingest = IngestQueue(
            buffer=self.disk,
            ledger=self.ledger,
            flushes=self.flushes,
            worker=self,
            max_bytes=1 << 20,
            sender=self,
            clock=self,
        )

    def wake(self) -> None:
        self.wakes += 1

    def monotonic(self) -> float:
        return self.now

    def utc_now(self) -> datetime:
        raise NotImplementedError

    def is_held(self, model_id: str) -> bool:
        return model_id == "held"

    def offer(self, client: IngestClient, *ids: str, body: bytes = BODY, model: str = "m") -> None:
        self.ingest.offer(IngestBatch.of([Row(each, model, body) for each in ids], client))


def test_all_that_waits_shares_a_commit_and_each_client_is_told_once() -> None:
    it, one, other = Set(), IngestClient(), IngestClient()
    it.offer(one, "a", "b")
    it.offer(other, "c")
    it.offer(one, "d")
    assert it.wakes == 1, "a wake-up is a system call"
    assert it.ledger.totals().captured == 0
    assert not it.ingest.take_in()
    assert it.disk.commits == [["a", "b", "c", "d"]]
    assert one.told == [[(["a", "b"], None), (["d"], None)]]
    assert other.told == [[(["c"], None)]]
    assert it.ledger.totals().captured == 4
    it.offer(one, "e")
    assert it.wakes == 2


def test_what_does_not_fit_is_refused_and_was_never_captured() -> None:
    it, client = Set(max_rows=3), IngestClient()
    it.offer(client, "a", "b")
    it.offer(client, "c", "d")
    it.offer(client, "e")
    it.ingest.take_in()
    assert it.disk.commits == [["a", "b", "e"]]
    assert sorted(client.told[0], key=str) == sorted(
        [(["c", "d"], IngestRefusal.FULL), (["a", "b"], None), (["e"], None)], key=str
    )
    assert it.ledger.totals().captured == it.ledger.totals().pending == 3


def test_a_model_that_is_held_leaves_room_for_the_others() -> None:
    it, client = Set(), IngestClient()
    for name in "abc":
        it.offer(client, name, body=b"x" * 300_000, model="held")
    it.offer(client, "d", body=b"x" * 300_000)
    it.ingest.take_in()
    assert sorted(client.told[0], key=str) == sorted(
        [(["c"], IngestRefusal.HELD), (["a"], None), (["b"], None), (["d"], None)], key=str
    )
    assert it.ledger.totals().captured == 3


def test_what_can_not_be_written_is_not_held() -> None:
    it, client = Set(), IngestClient()
    it.disk.fails = True
    it.offer(client, "a")
    it.ingest.take_in()
    assert client.told == [[(["a"], IngestRefusal.UNWRITABLE)]]
    assert it.ledger.totals().captured == 0
    assert it.disk.rows == 0
    it.now = 3.0
    assert it.ingest.fails_for() == 3.0
    it.disk.fails = False
    it.offer(client, "a")
    it.ingest.take_in()
    assert client.told[1] == [(["a"], None)]
    assert it.ingest.fails_for() is None


def test_a_worker_that_dies_leaves_the_offers_to_the_next() -> None:
    it, client = Set(), IngestClient()
    it.disk.dies = True
    for name in ("a", "b"):
        it.offer(client, name)
    with pytest.raises(RuntimeError):
        it.ingest.take_in()
    assert client.told == []
    it.ingest.take_in()
    assert it.disk.commits == [["a", "b"]]
    assert client.told == [[(["a"], None), (["b"], None)]]


def test_a_commit_has_a_size() -> None:
    it, client = Set(), IngestClient()
    it.disk.__init__(max_rows=100)  # type: ignore[misc] # made anew, where others have it
    it.disk._max_bytes = 1 << 40
    for name in ("a", "b", "c"):
        it.offer(client, name, body=b"x" * (5 << 20))
    assert it.ingest.take_in(), "there is more"
    assert not it.ingest.take_in()
    assert it.disk.commits == [["a", "b"], ["c"]]


def test_after_the_end_all_is_refused() -> None:
    it, client = Set(), IngestClient()
    it.offer(client, "a")
    it.ingest.close()
    it.offer(client, "b")
    assert client.told == [[(["a"], IngestRefusal.CLOSED)], [(["b"], IngestRefusal.CLOSED)]]
    assert not it.ingest.take_in()
    assert it.disk.commits == []
