"""Whether a fleet kept what it promises, from what the soak has seen; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from tests.soak.faults import TELLING, Kind
from tests.soak.fleet_evidence import Disturbance
from tests.soak.inferences import number_of
from tests.soak.verdict import (
    GIVEN_UP,
    LOST,
    Promise,
    Verdict,
    judge_arrivals,
    judge_duplicates,
    was_given_up,
)

if TYPE_CHECKING:
    from tests.soak.evidence import Arrival
    from tests.soak.fleet_evidence import Disturbed, FleetEvidence, MemberCounts

REPEATED: Final = "the client repeated its request"
REDELIVERED: Final = "a worker or the broker was disturbed"

SETTLED: Final = ("delivered", "rejected", "dropped")

_REDELIVERING: Final = frozenset(
    {
        Disturbance.WORKER_KILLED,
        Disturbance.WORKER_HANGS,
        Disturbance.LEADER_KILLED,
        Disturbance.NODES_KILLED,
    }
)


@dataclass
class FleetVerdict(Verdict):
    """What was found; see `Verdict`. Accepted are the rows that were acknowledged.

    Attributes:
        letters: Rows that are dead letters.
        waiting: Rows that the broker had in the end.
        repeated: Rows that clients sent again.
        disturbances: How often each came.
        calm: What the fleet had counted before them.
        members: What each process counted when it was last looked at.
    """

    letters: int = 0
    waiting: int = 0
    repeated: int = 0
    disturbances: Counter[str] = field(default_factory=Counter)
    calm: Sequence[MemberCounts] = ()
    members: Sequence[MemberCounts] = ()


def judge_fleet(seen: FleetEvidence) -> FleetVerdict:
    """Hold what was seen against what is promised."""
    digests = {
        row_id: row_digest
        for client in seen.clients
        for row_id, (row_digest, _) in client.captured.items()
    }
    accepted = {row_id for client in seen.clients for row_id in client.safe}
    repeated = {row_id for client in seen.clients for row_id in client.repeated}
    letters, left = set(seen.letters), set(seen.left)
    verdict = FleetVerdict(
        captured=len(digests),
        accepted=len(accepted),
        letters=len(letters),
        waiting=len(left),
        repeated=len(repeated),
        disturbances=Counter(each.kind for each in seen.disturbances),
        calm=seen.calm,
        members=seen.members,
    )
    stores = judge_arrivals(verdict, seen.arrivals, digests)
    verdict.broke(Promise.ACCOUNTED, sorted(accepted - stores.keys() - letters - left))
    verdict.broke(
        Promise.LETTERS,
        sorted(row_id for row_id in letters if number_of(row_id) % seen.rejects_every),
    )
    verdict.broke(Promise.BROKER_EMPTY, sorted(left))
    why = partial(_why_twice, seen.disturbances, repeated, seen.lasts_seconds)
    judge_duplicates(verdict, stores, why)
    _judge_counts(verdict, seen)
    missing = set(Disturbance) - verdict.disturbances.keys()
    verdict.broke(Promise.DISTURBED, sorted(missing))
    if len(accepted) < len(digests):
        verdict.broke(Promise.SHOWS, [f"{len(accepted)} of {len(digests)}"])
    return verdict


def _why_twice(
    disturbances: Sequence[Disturbed],
    repeated: set[str],
    lasts_seconds: float,
    row_id: str,
    earlier: Arrival,
    later: Arrival,
) -> str | None:
    """Say why a row may arrive once more; None when there is no reason."""
    if earlier.fault not in TELLING:
        return LOST
    if row_id in repeated:
        return REPEATED
    for each in disturbances:
        ended_at = each.ended_at + lasts_seconds
        if each.kind in _REDELIVERING and each.at <= later.at and earlier.at <= ended_at:
            return REDELIVERED
    return GIVEN_UP if was_given_up(earlier, later) else None


def _judge_counts(verdict: FleetVerdict, seen: FleetEvidence) -> None:
    wrong = [
        _shown(each)
        for each in [*seen.calm, *seen.members]
        if each.counts["captured"]
        != sum(each.counts[name] for name in (*SETTLED, "returned", "pending"))
    ]
    verdict.broke(Promise.ADDS_UP, wrong)
    calm = total(seen.calm)
    done = sum(calm[name] for name in SETTLED)
    if calm["redelivered"] or not calm["intake_accepted"] == done == seen.calm_rows:
        verdict.broke(Promise.BALANCED, [f"{seen.calm_rows} rows: {dict(calm)}"])
    bad = [_shown(each) for each in seen.members if each.end not in ("killed", "status 0")]
    verdict.broke(Promise.ENDED, bad)


def total(members: Sequence[MemberCounts]) -> Counter[str]:
    """The sums of what processes counted."""
    found: Counter[str] = Counter()
    for each in members:
        found.update(each.counts)
    return found


def _shown(member: MemberCounts) -> str:
    return f"{member.role} ({member.end}): {dict(member.counts)}"


COLUMNS: Final = {
    "accepted": "intake_accepted",
    "taken": "captured",
    **dict.fromkeys((*SETTLED, "returned", "pending", "redelivered")),
}
"""Of the accounts, and the count that each shows if that has another name."""


def fleet_report(
    verdict: FleetVerdict,
    *,
    rows: int,
    rate: float,
    seed: int,
    seconds: float,
    sabotaged: Mapping[str, str] | None = None,
) -> str:
    """Tell what was found, the numbers, and the accounts.

    Args:
        verdict: What was found.
        rows: How many rows clients had to send.
        rate: Rows a second.
        seed: Of what was drawn.
        seconds: How long it took.
        sabotaged: What was broken on purpose: the id of the row, by what was done to it.
    """
    requests = sum(verdict.requests.values())
    faults = ", ".join(
        f"{verdict.requests[kind]} {kind}" for kind in Kind if verdict.requests[kind]
    )
    why = ", ".join(
        f"{verdict.duplicates[each]}: {each}" for each in (LOST, REPEATED, REDELIVERED, GIVEN_UP)
    )
    numbers = {
        "Sent": f"{verdict.captured} rows in {seconds:.0f} s, of which {verdict.accepted} were"
        f" acknowledged; of {verdict.repeated} the request was repeated",
        "Found": f"{verdict.arrived} at Arthur, {verdict.letters} dead letters, {verdict.waiting}"
        " in the broker",
        "Disturbances": ", ".join(f"{kind}: {verdict.disturbances[kind]}" for kind in Disturbance),
        "Requests at Arthur": f"{requests} ({faults})",
        "Rows stored once more": f"{sum(verdict.duplicates.values())} ({why})",
    }
    if sabotaged:
        numbers["On purpose"] = ", ".join(f"{done} {row_id}" for done, row_id in sabotaged.items())
    lines = [
        f"# Soak of a fleet: {'kept' if verdict.kept else 'NOT kept'}",
        "",
        f"`python -m tests.soak --fleet --rows {rows} --rate {rate:g} --seed {seed}`",
        "",
        *(f"- **{finding}**" for finding in verdict.findings()),
        *(f"- {name}: {value}." for name, value in numbers.items()),
        "",
        "Accounts before the disturbances:",
        "",
        *_table(verdict.calm),
        "",
        "Accounts at the end; those of a killed process are of the moment before:",
        "",
        *_table(verdict.members),
        "",
    ]
    return "\n".join(lines)


def _table(members: Sequence[MemberCounts]) -> list[str]:
    rows = [
        ["process", *COLUMNS],
        ["---", *("---:" for _ in COLUMNS)],
        *([f"{each.role}, {each.end}", *_cells(each.counts)] for each in members),
        ["all", *_cells(total(members))],
    ]
    return [f"| {' | '.join(row)} |" for row in rows]


def _cells(counts: Counter[str]) -> list[str]:
    return [str(counts[source or name]) for name, source in COLUMNS.items()]
