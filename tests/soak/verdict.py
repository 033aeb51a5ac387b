"""Whether the promises were kept, from what the soak has seen: findings and numbers; pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Final

from arthur_relay.buffers.spool.file_format import PAGE_BYTES
from arthur_relay.buffers.spool.sqlite_file import CHECKPOINT_PAGES
from tests.soak.evidence import Arrival, Evidence, Kill, Sample
from tests.soak.faults import TELLING

MIB: Final = 1024 * 1024

RESIDENT_MORE_BYTES: Final = 16 * MIB
"""What the allocator may keep beyond what the process had before; see `remaining_cost.md`."""

SPOOL_MORE_BYTES: Final = 3 * CHECKPOINT_PAGES * PAGE_BYTES
"""What an empty spool may keep: a file that is not worth shortening, and its log, twice that."""

SETTLED_WITHIN_REQUESTS: Final = 16
"""A row that was answered is no longer in the spool when so many more requests have arrived.

Four times `max_in_flight`: a request sets off in a turn of the worker that has written down what
was settled before.
"""

TOLD_EXAMPLES: Final = 3


class Promise(StrEnum):
    """What is held against what was seen; each in the words of its being broken."""

    ARRIVES = "accepted by the spool, or captured by the last process, and never arrived"
    SAME_BYTES = "arrived with other bytes than were captured"
    NO_STRANGER = "arrived, and was never captured"
    SPOOLED_BYTES = "in the spool with other bytes than were captured"
    SPOOL_EMPTY = "still in the spool after all was delivered"
    ONCE = "stored once more, though it was answered that it is stored"
    SETTLED = "still in the spool long after it was answered that it is stored"
    ENDS = "the last process did not end by itself"
    COUNTS = "the last process has counted wrong"
    MEMORY = "the process takes more than before"
    FILES = "the spool takes more than before"
    SHOWS = "too few were accepted by the spool to show anything"
    ACCOUNTED = "acknowledged, and neither at Arthur nor a dead letter nor in the broker"
    LETTERS = "a dead letter, and Arthur had not rejected it"
    BROKER_EMPTY = "still in the broker long after all was well"
    ADDS_UP = "a process of the fleet has counted wrong"
    BALANCED = "the fleet's accounts did not balance while nothing went wrong"
    ENDED = "a process of the fleet did not end in order"
    DISTURBED = "a disturbance that never came"


LOST = "an answer was lost"
KILLED = "killed between sending and settling"
GIVEN_UP = "the client ended the connection without the answer"


@dataclass
class Verdict:
    """What was found.

    Attributes:
        broken: The promises that were broken, each with the ids or the numbers that show it.
        captured: Inferences that were captured, or were about to be in the moment of a kill.
        accepted: Those that were delivered or in the spool, as far as anyone was told.
        arrived: Those that are stored.
        unsafe: Those that ended with a killed process, before the spool had them.
        unsafe_seconds: How long before the kill the oldest of them was captured.
        duplicates: Rows that were stored again, by the reason.
        requests: Requests with rows, by what went wrong with them.
        kills: How often it was killed.
        left: Rows that the killed processes left in the spool, in all.
        late_requests: The most requests that arrived between an answer and a kill that came
            before its rows had left the spool.
        resident: What the process took before, at most, and after; bytes.
        spool: What the spool took before, at most, and after; bytes.
    """

    broken: dict[Promise, list[str]] = field(default_factory=dict)
    captured: int = 0
    accepted: int = 0
    arrived: int = 0
    unsafe: int = 0
    unsafe_seconds: float = 0.0
    duplicates: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    left: int = 0
    late_requests: int = 0
    resident: tuple[int, int, int] = (0, 0, 0)
    spool: tuple[int, int, int] = (0, 0, 0)

    @property
    def kept(self) -> bool:
        """Whether no promise was broken."""
        return not self.broken

    def findings(self) -> list[str]:
        """The broken promises, a sentence each."""
        return [
            f"{promise}: {', '.join(shown[:TOLD_EXAMPLES])}"
            + (f" and {more} more" if (more := len(shown) - TOLD_EXAMPLES) > 0 else "")
            for promise, shown in self.broken.items()
        ]

    def broke(self, promise: Promise, shown: Iterable[str]) -> None:
        """Tell what shows that a promise was broken, if anything does."""
        if found := list(dict.fromkeys(shown)):
            self.broken.setdefault(promise, []).extend(found)


def judge(seen: Evidence) -> Verdict:
    """Hold what was seen against what is promised."""
    verdict = Verdict(kills=len(seen.kills), left=sum(len(kill.left) for kill in seen.kills))
    captured = {row_id: each for life in seen.lives for row_id, each in life.captured.items()}
    digests = {row_id: row_digest for row_id, (row_digest, _) in captured.items()}
    accepted = {row_id for life in seen.lives for row_id in life.safe}
    accepted.update(row_id for kill in seen.kills for row_id in kill.left)
    verdict.captured, verdict.accepted = len(captured), len(accepted)
    stores = judge_arrivals(verdict, seen.arrivals, digests)
    verdict.broke(
        Promise.ARRIVES, sorted((accepted | seen.lives[-1].captured.keys()) - stores.keys())
    )
    in_spool = {item for kill in seen.kills for item in kill.left.items()}
    verdict.broke(
        Promise.SPOOLED_BYTES,
        sorted(row_id for row_id, row_digest in in_spool if digests.get(row_id) != row_digest),
    )
    verdict.broke(Promise.SPOOL_EMPTY, sorted(seen.left_at_end))
    judge_duplicates(verdict, stores, partial(_why_twice, seen.kills))
    _judge_ends(verdict, seen, stores.keys())
    _judge_settling(verdict, stores, seen)
    _judge_sizes(verdict, seen)
    if 2 * len(accepted) < len(captured):
        verdict.broke(Promise.SHOWS, [f"{len(accepted)} of {len(captured)}"])
    return verdict


def judge_arrivals(
    verdict: Verdict, arrivals: Iterable[Arrival], digests: Mapping[str, str]
) -> dict[str, list[Arrival]]:
    """Hold what arrived against what was captured.

    Args:
        verdict: Is told.
        arrivals: What the server got.
        digests: Of the rows that were captured, by id.

    Returns:
        The requests by which each row was stored, by id.
    """
    stores: defaultdict[str, list[Arrival]] = defaultdict(list)
    strangers, altered = [], []
    for arrival in arrivals:
        verdict.requests[arrival.fault] += 1
        for (row_id, row_digest), stored in zip(arrival.rows, arrival.stored, strict=True):
            if stored:
                stores[row_id].append(arrival)
            if row_id not in digests:
                strangers.append(row_id)
            elif digests[row_id] != row_digest:
                altered.append(row_id)
    verdict.arrived = len(stores)
    verdict.broke(Promise.SAME_BYTES, altered)
    verdict.broke(Promise.NO_STRANGER, strangers)
    return stores


def judge_duplicates(
    verdict: Verdict,
    stores: Mapping[str, Sequence[Arrival]],
    why: Callable[[str, Arrival, Arrival], str | None],
) -> None:
    """Ask of each row that was stored once more why.

    Args:
        verdict: Is told.
        stores: The requests by which each row was stored, by id.
        why: Says why a row was stored by two requests, or None when there is no reason.
    """
    unexplained = []
    for row_id, arrivals in stores.items():
        for earlier, later in pairwise(arrivals):
            reason = None if earlier is later else why(row_id, earlier, later)
            if reason is None:
                unexplained.append(row_id)
            else:
                verdict.duplicates[reason] += 1
    verdict.broke(Promise.ONCE, unexplained)


def _why_twice(kills: list[Kill], row_id: str, earlier: Arrival, later: Arrival) -> str | None:
    """Say why a row may arrive once more; None when there is no reason."""
    if earlier.fault not in TELLING:
        return LOST
    for kill in kills:
        if earlier.at <= kill.ended_at and kill.at <= later.at and row_id in kill.left:
            return KILLED
    return GIVEN_UP if was_given_up(earlier, later) else None


def was_given_up(earlier: Arrival, later: Arrival) -> bool:
    """Say whether the client did without the answer to a request, before another one."""
    return earlier.told_at is None or (
        earlier.unread_at is not None and earlier.unread_at <= later.at
    )


def _judge_ends(verdict: Verdict, seen: Evidence, stored: Iterable[str]) -> None:
    """What ended with a process, and what the last one counted."""
    arrived = set(stored)
    for life, kill in zip(seen.lives, seen.kills, strict=False):
        gone = [
            at
            for row_id, (_, at) in life.captured.items()
            if row_id not in arrived and row_id not in life.safe and row_id not in kill.left
        ]
        verdict.unsafe += len(gone)
        verdict.unsafe_seconds = max([verdict.unsafe_seconds, *(kill.at - at for at in gone)])
    last = seen.lives[-1]
    if last.stats is None:
        verdict.broke(Promise.ENDS, ["no counts"])
        return
    found = len(last.captured) + (len(seen.kills[-1].left) if seen.kills else 0)
    wanted = {"captured": found, "delivered": found, "rejected": 0, "dropped": {}, "pending": 0}
    counted = {name: last.stats[name] for name in wanted}
    if counted != wanted:
        verdict.broke(Promise.COUNTS, [f"{counted}, not {wanted}"])


def _judge_settling(verdict: Verdict, stores: dict[str, list[Arrival]], seen: Evidence) -> None:
    """Rows that were answered may be in a spool only if its process was killed right then."""
    late = []
    for kill in seen.kills:
        for row_id in kill.left:
            told = [
                arrival.told_at
                for arrival in stores.get(row_id, ())
                if arrival.told_at is not None
                and arrival.told_at < kill.at
                and (arrival.unread_at is None or arrival.unread_at >= kill.at)
            ]
            if not told:
                continue
            later = sum(min(told) < arrival.at < kill.at for arrival in seen.arrivals)
            verdict.late_requests = max(verdict.late_requests, later)
            if later > SETTLED_WITHIN_REQUESTS:
                late.append(row_id)
    verdict.broke(Promise.SETTLED, late)


def _judge_sizes(verdict: Verdict, seen: Evidence) -> None:
    everything = [*seen.before, *seen.storm, *seen.after]
    for name, of in (("resident", _resident), ("spool", _spool)):
        before, after = (_typical(list(map(of, part))) for part in (seen.before, seen.after))
        setattr(verdict, name, (before, max(map(of, everything), default=0), after))
    for promise, (before, _, after), more in (
        (Promise.MEMORY, verdict.resident, RESIDENT_MORE_BYTES),
        (Promise.FILES, verdict.spool, SPOOL_MORE_BYTES),
    ):
        if after > before + more:
            verdict.broke(promise, [f"{after / MIB:.1f} MiB, not {before / MIB:.1f} MiB"])


def _resident(sample: Sample) -> int:
    return sample.resident


def _spool(sample: Sample) -> int:
    return sample.spool


def _typical(values: list[int]) -> int:
    """The median of the second half: the first one is for settling down."""
    later = values[len(values) // 2 :]
    return int(median(later)) if later else 0
