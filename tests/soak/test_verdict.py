"""What the verdict tells of small pieces of evidence, each with one thing wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.evidence import Arrival, Evidence, Kill, Life, Sample
from tests.soak.faults import Kind
from tests.soak.report import report
from tests.soak.verdict import (
    GIVEN_UP,
    KILLED,
    LOST,
    MIB,
    RESIDENT_MORE_BYTES,
    SETTLED_WITHIN_REQUESTS,
    SPOOL_MORE_BYTES,
    Promise,
    Verdict,
    judge,
)

pytestmark = pytest.mark.one_python


def digest_of(row_id: str) -> str:
    return f"digest of {row_id}"


def life(*ids: str, safe: tuple[str, ...] = (), stats: dict[str, object] | None = None) -> Life:
    return Life(
        {row_id: (digest_of(row_id), float(place)) for place, row_id in enumerate(ids)},
        set(safe),
        stats=stats,
    )


def counts(rows: int) -> dict[str, object]:
    return {"captured": rows, "delivered": rows, "rejected": 0, "dropped": {}, "pending": 0}


def arrival(request: int, *ids: str, at: float, told: bool = True, stored: bool = True) -> Arrival:
    rows = [(row_id, digest_of(row_id)) for row_id in ids]
    told_at = at + 0.1 if told else None
    return Arrival(request, at, "none", rows, [stored] * len(rows), told_at)


def evidence() -> Evidence:
    """A process that is killed at 10, with b in its spool, and another one that ends well."""
    return Evidence(
        lives=[life("a", "b", "c", safe=("a", "b")), life("d", safe=("d",), stats=counts(2))],
        kills=[Kill(10.0, 10.1, {"b": digest_of("b")})],
        arrivals=[arrival(1, "a", at=5.0), arrival(2, "b", "d", at=12.0)],
        before=[Sample(1.0, 0, 50 * MIB, 1 * MIB)],
        storm=[Sample(8.0, 0, 70 * MIB, 9 * MIB)],
        after=[Sample(14.0, 1, 51 * MIB, 1 * MIB)],
    )


def broken(seen: Evidence) -> dict[Promise, list[str]]:
    return judge(seen).broken


def test_all_is_well() -> None:
    verdict = judge(evidence())
    assert verdict.kept
    assert (verdict.captured, verdict.accepted, verdict.arrived) == (4, 3, 3)
    assert (verdict.unsafe, verdict.unsafe_seconds) == (1, 8.0)  # c was captured at 2
    assert (verdict.kills, verdict.left) == (1, 1)
    assert verdict.resident == (50 * MIB, 70 * MIB, 51 * MIB)
    text = report(verdict, seconds=1, rate=2, seed=3)
    assert text.startswith("# Soak: kept\n\n`python -m tests.soak --seconds 1 --rate 2 --seed 3`")
    assert "50.0 MiB before, 70.0 MiB at most, 51.0 MiB after" in text


def test_what_was_safe_has_to_arrive() -> None:
    seen = evidence()
    seen.lives[0].safe.add("c")
    assert broken(seen) == {Promise.ARRIVES: ["c"]}


def test_what_was_in_the_spool_has_to_arrive() -> None:
    seen = evidence()
    seen.kills[0].left["c"] = digest_of("c")
    seen.lives[-1].stats = counts(3)
    assert broken(seen) == {Promise.ARRIVES: ["c"]}


def test_what_the_last_process_captured_has_to_arrive() -> None:
    seen = evidence()
    seen.lives[-1].captured["e"] = digest_of("e"), 13.0
    seen.lives[-1].stats = counts(3)
    assert broken(seen) == {Promise.ARRIVES: ["e"]}


def test_a_row_that_was_refused_has_not_arrived() -> None:
    seen = evidence()
    seen.arrivals[0].stored = [False]
    assert broken(seen) == {Promise.ARRIVES: ["a"]}


def test_other_bytes_and_strangers_are_told_of_refused_rows_as_well() -> None:
    seen = evidence()
    seen.arrivals.append(arrival(3, "c", "x", at=13.0, stored=False))
    seen.arrivals[-1].rows[0] = ("c", "another digest")
    seen.kills[0].left["b"] = "another digest"
    assert broken(seen) == {
        Promise.SAME_BYTES: ["c"],
        Promise.NO_STRANGER: ["x"],
        Promise.SPOOLED_BYTES: ["b"],
    }


def test_rows_twice_after_a_good_answer_are_told() -> None:
    seen = evidence()
    seen.arrivals.append(arrival(3, "a", at=13.0))
    assert broken(seen) == {Promise.ONCE: ["a"]}
    seen = evidence()
    seen.arrivals[0] = arrival(1, "a", "a", at=5.0)
    assert broken(seen) == {Promise.ONCE: ["a"]}


@pytest.mark.parametrize("reason", [LOST, KILLED, GIVEN_UP])
def test_rows_twice_for_a_reason_are_counted(reason: str) -> None:
    seen = evidence()
    first = arrival(0, "b", at=9.0)
    if reason is LOST:
        first = replace(first, fault=Kind.LOST_BY_CUT, told_at=None)
    if reason is GIVEN_UP:
        first.unread_at = 9.2
        seen.kills[0].left.clear()
        seen.lives[-1].stats = counts(1)
    seen.arrivals.insert(0, first)
    verdict = judge(seen)
    assert verdict.kept
    assert verdict.duplicates == {reason: 1}


def test_an_answer_that_came_too_late_is_given_up_or_was_that_of_a_killed_process() -> None:
    seen = evidence()
    seen.arrivals.insert(0, replace(arrival(0, "b", at=9.0), fault=Kind.SLOW, told_at=None))
    assert judge(seen).duplicates == {KILLED: 1}
    seen.arrivals[0].rows = [("d", digest_of("d"))]
    assert judge(seen).duplicates == {GIVEN_UP: 1}


def test_rows_that_stay_in_the_spool_are_told() -> None:
    seen = evidence()
    seen.arrivals.insert(0, arrival(0, "b", at=3.0))
    seen.arrivals += [
        arrival(10 + number, at=4.0 + number / 100) for number in range(SETTLED_WITHIN_REQUESTS - 1)
    ]
    verdict = judge(seen)
    assert verdict.kept
    assert verdict.late_requests == SETTLED_WITHIN_REQUESTS  # with that of a
    seen.arrivals.append(arrival(99, at=5.0))
    assert broken(seen) == {Promise.SETTLED: ["b"]}


def test_rows_left_at_the_end_are_told() -> None:
    seen = replace(evidence(), left_at_end={"d": digest_of("d")})
    assert broken(seen) == {Promise.SPOOL_EMPTY: ["d"]}


@pytest.mark.parametrize(
    "wrong",
    [{"captured": 3}, {"delivered": 1, "pending": 1}, {"dropped": {"overflow": 1}}],
    ids=str,
)
def test_wrong_counts_are_told(wrong: dict[str, object]) -> None:
    seen = evidence()
    seen.lives[-1].stats = {**counts(2), **wrong}
    assert list(broken(seen)) == [Promise.COUNTS]


def test_a_process_that_does_not_end_is_told() -> None:
    seen = evidence()
    seen.lives[-1].stats = None
    assert list(broken(seen)) == [Promise.ENDS]


def test_memory_and_files_that_stay_are_told() -> None:
    seen = evidence()
    most = Sample(14.0, 1, 50 * MIB + RESIDENT_MORE_BYTES, 1 * MIB + SPOOL_MORE_BYTES)
    seen.after = [most]
    assert broken(seen) == {}
    seen.after = [most._replace(resident=most.resident + 1, spool=most.spool + 1)]
    assert broken(seen) == {
        Promise.MEMORY: ["66.0 MiB, not 50.0 MiB"],
        Promise.FILES: ["13.0 MiB, not 1.0 MiB"],
    }


def test_a_soak_that_shows_nothing_is_told() -> None:
    seen = evidence()
    seen.lives[0].captured |= {f"c{number}": ("", 2.0) for number in range(10)}
    assert broken(seen) == {Promise.SHOWS: ["3 of 14"]}


def test_findings_are_short() -> None:
    verdict = Verdict()
    verdict.broke(Promise.ONCE, "abcde")
    assert verdict.findings() == [f"{Promise.ONCE}: a, b, c and 2 more"]
