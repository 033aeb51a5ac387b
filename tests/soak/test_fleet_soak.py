"""The fleet's soak: its short form, and what its verdict tells of evidence with one thing wrong."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.soak.evidence import Arrival, Life
from tests.soak.fleet_evidence import Disturbance, Disturbed, FleetEvidence, MemberCounts
from tests.soak.fleet_verdict import REDELIVERED, REPEATED, fleet_report, judge_fleet
from tests.soak.inferences import id_of
from tests.soak.test_soak import run
from tests.soak.verdict import LOST, Promise

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_python

ONE, TWO, THREE, BAD = (id_of(number) for number in (1, 2, 3, 97))


def test_the_short_form_of_a_fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each part of the fleet is killed once, a worker hangs, and Arthur is away and slow."""
    output = tmp_path / "soak"
    arguments = ("--fleet", "--rows", "400", "--rate", "25", "--seed", "7", "--output", str(output))
    status = run(monkeypatch, *arguments)
    report = (output / "report.md").read_text()
    assert status == 0, report
    assert report.startswith("# Soak of a fleet: kept")
    assert "of which 400 were acknowledged" in report


def digest_of(row_id: str) -> str:
    return f"digest of {row_id}"


def arrival(
    request: int, *ids: str, at: float, fault: str = "none", stored: bool = True
) -> Arrival:
    rows = [(row_id, digest_of(row_id)) for row_id in ids]
    return Arrival(request, at, fault, rows, [stored] * len(rows), at + 0.1)


def member(role: str, end: str = "status 0", **counts: int) -> MemberCounts:
    return MemberCounts(role, end, Counter(counts))


def evidence() -> FleetEvidence:
    """Three rows arrive and one is rejected, while all that can be is disturbed."""
    ids = (ONE, TWO, THREE, BAD)
    return FleetEvidence(
        clients=[Life({each: (digest_of(each), 1.0) for each in ids}, set(ids))],
        arrivals=[arrival(1, ONE, TWO, at=5.0), arrival(2, THREE, at=30.0)],
        letters=[BAD],
        disturbances=[
            Disturbed(kind, 10.0 + place, 11.0 + place) for place, kind in enumerate(Disturbance)
        ],
        rejects_every=97,
        lasts_seconds=1.0,
        calm_rows=1,
        calm=[
            member("gateway", "runs", intake_accepted=1),
            member("worker", captured=1, delivered=1),
        ],
        members=[
            member("gateway", "killed", intake_accepted=4),
            member("worker", captured=5, delivered=3, rejected=1, returned=1),
        ],
    )


def broken(seen: FleetEvidence) -> dict[Promise, list[str]]:
    return judge_fleet(seen).broken


def test_all_is_well() -> None:
    verdict = judge_fleet(evidence())
    assert verdict.kept, verdict.findings()
    assert (verdict.accepted, verdict.arrived, verdict.letters, verdict.waiting) == (4, 3, 1, 0)
    text = fleet_report(verdict, rows=4, rate=2, seed=3, seconds=1)
    assert text.startswith("# Soak of a fleet: kept\n\n`python -m tests.soak --fleet --rows 4")
    assert "| all | 4 | 5 | 3 | 1 | 0 | 1 | 0 | 0 |" in text


def test_what_was_acknowledged_is_accounted_for() -> None:
    seen = evidence()
    seen.arrivals[1].stored[0] = False
    seen.letters.clear()
    assert broken(seen) == {Promise.ACCOUNTED: [THREE, BAD]}


def test_what_stays_in_the_broker_is_not_lost_but_told() -> None:
    seen = evidence()
    seen.arrivals[1].stored[0] = False
    seen.left.append(THREE)
    assert broken(seen) == {Promise.BROKER_EMPTY: [THREE]}


def test_a_dead_letter_needs_its_reason() -> None:
    seen = evidence()
    seen.letters.append(ONE)
    assert broken(seen) == {Promise.LETTERS: [ONE]}


def test_other_bytes_and_strangers_are_told() -> None:
    seen = evidence()
    seen.arrivals.append(arrival(3, id_of(5), at=31.0))
    seen.arrivals[0].rows[0] = ONE, "other"
    assert broken(seen) == {Promise.SAME_BYTES: [ONE], Promise.NO_STRANGER: [id_of(5)]}


@pytest.mark.parametrize(
    ("first", "again", "fault", "reason"),
    [
        (5.0, 6.0, "none", None),  # before all disturbances
        (5.0, 6.0, "answer lost: cut", LOST),
        (5.0, 12.0, "none", REDELIVERED),  # a worker was killed in between
        (19.5, 20.0, "none", None),  # after all but those of Arthur
    ],
)
def test_a_row_comes_again_for_a_reason(
    first: float, again: float, fault: str, reason: str | None
) -> None:
    seen = evidence()
    seen.arrivals = [
        arrival(1, ONE, at=first, fault=fault),
        arrival(2, ONE, TWO, THREE, at=again),
    ]
    verdict = judge_fleet(seen)
    assert verdict.broken == ({} if reason else {Promise.ONCE: [ONE]})
    assert verdict.duplicates == ({reason: 1} if reason else {})


def test_a_client_that_repeats_has_its_rows_twice() -> None:
    seen = evidence()
    seen.clients[0].repeated.add(THREE)
    seen.arrivals.append(arrival(3, THREE, at=31.0))
    verdict = judge_fleet(seen)
    assert verdict.kept
    assert verdict.duplicates == {REPEATED: 1}


def test_accounts_and_ends_are_judged() -> None:
    seen = evidence()
    seen.calm[1].counts["redelivered"] = 1
    seen.members[1].counts["pending"] = 1
    seen.members.append(member("worker", "status 1"))
    del seen.disturbances[0]
    assert set(broken(seen)) == {
        Promise.BALANCED,
        Promise.ADDS_UP,
        Promise.ENDED,
        Promise.DISTURBED,
    }
