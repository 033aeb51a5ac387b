"""What a soak of a fleet has seen, as data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from tests.soak.evidence import Arrival, Life


class Disturbance(StrEnum):
    """What is done to a fleet."""

    GATEWAY_KILLED = "a gateway is killed"
    WORKER_KILLED = "a worker is killed"
    WORKER_HANGS = "a worker hangs"
    LEADER_KILLED = "the broker's leader is killed"
    NODES_KILLED = "all nodes of the broker are killed"
    ARTHUR_AWAY = "Arthur is away"
    ARTHUR_SLOW = "Arthur is slow"
    ARTHUR_MIXED = "Arthur fails in many ways"


class Disturbed(NamedTuple):
    """A disturbance, from its beginning to when all worked again."""

    kind: Disturbance
    at: float
    ended_at: float


class MemberCounts(NamedTuple):
    """What a gateway or a worker counted when it was last looked at.

    Attributes:
        role: Which of the two.
        end: How it ended; "runs" when it has not.
        counts: See `read_counts`.
    """

    role: str
    end: str
    counts: Counter[str]


@dataclass
class FleetEvidence:
    """All of it.

    Attributes:
        clients: What each client sent, and what of it was acknowledged.
        arrivals: What Arthur got, in its order.
        letters: The ids of the dead letters in the broker.
        left: The ids of the rows that the broker had in the end.
        disturbances: What was done, in its order.
        rejects_every: Arthur rejected the rows with a number that this divides.
        lasts_seconds: For how long after a disturbance the broker may hand out packets again.
        calm_rows: How many rows were sent before that.
        calm: What the fleet had counted when these were settled.
        members: What each process counted when it was last looked at.
    """

    clients: list[Life] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    disturbances: list[Disturbed] = field(default_factory=list)
    rejects_every: int = 1
    lasts_seconds: float = 0.0
    calm_rows: int = 0
    calm: list[MemberCounts] = field(default_factory=list)
    members: list[MemberCounts] = field(default_factory=list)
