"""Batches in flight: their rows, and what happened to them so far."""

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

import anyio

from arthur_relay.delivery.bisect import Bisection
from arthur_relay.delivery.possibly_delivered import PossiblyDelivered
from arthur_relay.row import NO_HISTORY, History, Outcome, Row, RowKind, Verdict


class Lane(Enum):
    """Which deliveries a delivery has to share the request slots with."""

    ORDINARY = "ordinary"
    ISOLATED = "isolated"
    """Its rows failed while others passed. Few such deliveries may send at once, so that the others
    keep their slots."""
    PROBE = "probe"
    """As `ISOLATED`; it shows whether a model that failed passes again."""


Evidence = tuple[str, str, int]
"""Which rows failed: the model and id of the first one, and the number of rows."""


@dataclass(slots=True, eq=False)
class DeliveryState:
    """What is known of a batch in flight, without its rows. Belongs to the worker's loop.

    Flow control decides by it when the batch may be sent.

    Attributes:
        model_id: The model of its rows.
        first: The model and the id of its first row.
        row_count: How many of its rows are not settled.
        lane: Which deliveries it shares the request slots with.
        seen: How many requests had been answered before its first attempt, or -1 before that.
        attempts: How often it was sent, in this form.
        failures: How many of those attempts failed because of Arthur, or of the rows.
        status: The HTTP status of the last failure, or None.
        not_before: Until when the destination asked to wait, on the loop's clock.
        leave_at: From when on it may be sent although Arthur seems to be down, or None.
        is_unproven: Whether its model was not known to be healthy when it was sent.
        is_hanging: Whether it has been unanswered for so long that it holds no slot.
        hurry: Set to end its back-off.
    """

    model_id: str
    first: tuple[str, str]
    row_count: int
    lane: Lane = Lane.ORDINARY
    seen: int = -1
    attempts: int = 0
    failures: int = 0
    status: int | None = None
    not_before: float = 0.0
    leave_at: float | None = None
    is_unproven: bool = False
    is_hanging: bool = False
    hurry: anyio.Event = field(default_factory=anyio.Event)

    @property
    def is_fresh(self) -> bool:
        """Whether it has not failed so far."""
        return self.lane is Lane.ORDINARY and self.failures == 0

    @property
    def is_bad_row(self) -> bool:
        """Whether it is one row that failed: rows that did not are sent first."""
        return self.lane is Lane.ISOLATED and self.failures > 0 and self.row_count == 1

    @property
    def evidence(self) -> Evidence:
        """Which rows fail when it does: the same rows failing again say nothing of others."""
        return (*self.first, self.row_count)


class Delivery:
    """A batch in flight. Belongs to the worker's loop.

    Args:
        rows: One or more rows of one model and kind.
        lane: Which deliveries it shares the request slots with.
        bisection: The search for bad rows that these rows are part of, or None.
        possibly_delivered: The rows that Arthur may have although no answer said so.
        seen: See `DeliveryState`.

    Attributes:
        state: What flow control knows of it.
        malformed: How often the answer could not be understood.
        reason: Why the last attempt failed, or "".
        code: The same in a few words, by which rejected rows are counted, or "".
        refusal: Why the whole batch was refused, in a sentence, or "".
        originals: The rows that rows in a reduced form stand for; parts share it.
    """

    __slots__ = (
        "__weakref__",
        "_rows",
        "bisection",
        "code",
        "malformed",
        "originals",
        "possibly_delivered",
        "reason",
        "refusal",
        "state",
    )

    def __init__(
        self,
        rows: tuple[Row, ...],
        lane: Lane = Lane.ORDINARY,
        *,
        bisection: Bisection | None = None,
        possibly_delivered: PossiblyDelivered | None = None,
        seen: int = -1,
    ) -> None:
        first = rows[0]
        self._rows = rows
        self.state = DeliveryState(first.model_id, first.inference, len(rows), lane, seen)
        self.bisection = bisection
        self.possibly_delivered = possibly_delivered or PossiblyDelivered()
        self.malformed = 0
        self.reason = ""
        self.code = ""
        self.refusal = ""
        self.originals: dict[Row, Row] = {}

    @property
    def model_id(self) -> str:
        """The model of its rows."""
        return self.state.model_id

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows that are not settled."""
        return self._rows

    @rows.setter
    def rows(self, rows: tuple[Row, ...]) -> None:
        self._rows = rows
        self.state.row_count = len(rows)
        if rows:
            self.state.first = rows[0].inference

    def forget_rows(self) -> None:
        """Forget its rows at its end.

        A policy of tenacity and its arguments refer to each other, so that a delivery stays until
        Python's collector finds them; its rows may be the only large thing that was sent.
        """
        self.rows, self.possibly_delivered, self.bisection = (), PossiblyDelivered(), None
        self.originals = {}

    def part(self, rows: tuple[Row, ...]) -> "Delivery":
        """Return a delivery of some of its rows, in the isolated lane."""
        part = Delivery(
            rows,
            Lane.ISOLATED,
            bisection=self.bisection,
            possibly_delivered=self.possibly_delivered,
            seen=self.state.seen,
        )
        part.originals = self.originals
        return part


@dataclass(slots=True, eq=False)
class InFlight:
    """The deliveries that were started and have not ended. Loop's thread only.

    Attributes:
        ordinary: How many of them are in the ordinary lane, without those that hang.
        backing_off: How many of those back off.
        backing_off_alone: How many of those are single rows.
        unproven: How many of those are of models that are not known to be healthy.
    """

    ordinary: int = 0
    backing_off: int = 0
    backing_off_alone: int = 0
    unproven: int = 0
    _deliveries: dict[DeliveryState, None] = field(default_factory=dict)
    _isolated_rows: dict[DeliveryState, int] = field(default_factory=dict)
    _parts: Counter[str] = field(default_factory=Counter)
    _alone: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self._deliveries)

    def __contains__(self, delivery: object) -> bool:
        """Return whether a delivery was started and has not ended."""
        return delivery in self._deliveries

    def clear(self) -> None:
        """Forget all: their tasks are gone."""
        for each in (self._deliveries, self._isolated_rows, self._parts, self._alone):
            each.clear()
        self.ordinary = self.backing_off = self.backing_off_alone = self.unproven = 0

    def begin(self, delivery: DeliveryState) -> None:
        """Add a delivery that is started."""
        self._deliveries[delivery] = None
        self._count(delivery, 1)

    def end(self, delivery: DeliveryState) -> None:
        """Remove a delivery: its rows are settled, released or in other deliveries."""
        if delivery in self._deliveries:
            del self._deliveries[delivery]
            self._count(delivery, -1)

    def isolate(self, delivery: DeliveryState) -> None:
        """Take a delivery out of the ordinary lane."""
        if delivery.lane is Lane.ORDINARY:
            self._count(delivery, -1)
            delivery.lane = Lane.ISOLATED
            self._count(delivery, 1)

    def set_hanging(self, delivery: DeliveryState, *, hangs: bool) -> None:
        """Record whether a delivery hangs, and so holds no slot."""
        self._count(delivery, -1)
        delivery.is_hanging = hangs
        self._count(delivery, 1)

    def _count(self, delivery: DeliveryState, one: int) -> None:
        if one > 0 and delivery.lane is Lane.ISOLATED:
            self._isolated_rows[delivery] = delivery.row_count
            self._of(delivery)[delivery.model_id] += delivery.row_count
        elif delivery in self._isolated_rows:
            counter = self._of(delivery)
            counter[delivery.model_id] -= self._isolated_rows.pop(delivery)
            if counter[delivery.model_id] <= 0:
                del counter[delivery.model_id]
        if delivery.lane is Lane.ORDINARY and not delivery.is_hanging:
            self.ordinary += one
            self.unproven += one * delivery.is_unproven

    def _of(self, delivery: DeliveryState) -> Counter[str]:
        return self._alone if self._isolated_rows[delivery] == 1 else self._parts

    def has_fresh(self, but: Container[DeliveryState] = ()) -> bool:
        """Return whether any delivery has not failed so far, leaving out those in `but`."""
        return any(each.is_fresh and each not in but for each in self._deliveries)

    def isolated(self) -> tuple[Counter[str], Counter[str]]:
        """Return how many rows of which model are isolated: in parts of batches, and alone."""
        return self._parts, self._alone

    def models(self) -> set[str]:
        """Return the models of all deliveries."""
        return {delivery.model_id for delivery in self._deliveries}

    def probed(self, but: Container[DeliveryState] = ()) -> set[str]:
        """Return the models that are being probed, leaving out the deliveries in `but`."""
        return {
            each.model_id
            for each in self._deliveries
            if each.lane is Lane.PROBE and each not in but
        }

    def hurry(self, model_id: str | None = None) -> None:
        """End the back-off of all deliveries, or of those of a model."""
        for delivery in self._deliveries:
            if model_id in (None, delivery.model_id):
                delivery.hurry.set()


@dataclass(slots=True)
class Sorted:
    """The rows of a batch by what an attempt did to them, each kind in the batch's order."""

    delivered: list[Row] = field(default_factory=list)
    again: list[Row] = field(default_factory=list)
    not_yet: list[tuple[Row, Outcome]] = field(default_factory=list)
    rejected: list[tuple[Row, Outcome]] = field(default_factory=list)
    status: int | None = None
    """The status of the last row that is to be sent again."""


def sort_rows(rows: Iterable[Row], outcomes: Iterable[Outcome]) -> Sorted:
    """Sort the rows of a batch by their outcomes.

    Raises:
        ValueError: There is not one outcome for each row.
    """
    found = Sorted()
    for row, outcome in zip(rows, outcomes, strict=True):
        match outcome.verdict:
            case Verdict.DELIVERED:
                found.delivered.append(row)
            case Verdict.RETRY:
                found.again.append(row)
                found.status = outcome.status
            case Verdict.NOT_YET:
                found.not_yet.append((row, outcome))
            case _:
                found.rejected.append((row, outcome))
    return found


def fitting_parts(rows: Iterable[Row], batch_size: int, batch_bytes: int) -> list[list[Row]]:
    """Divide rows into batches; the more often rows were sent in vain, the smaller their batches.

    A batch with one bad row fails as a whole, and may have been released before that row was found.
    The number of attempts is all that a later lease, or another process, knows of it. Attempts of
    ground truth whose inference had not arrived do not count.
    """
    parts: list[list[Row]] = []
    open_parts: dict[tuple[str, RowKind, int], list[Row]] = {}
    sizes: dict[tuple[str, RowKind, int], int] = {}
    for row in rows:
        attempts = 0 if row.history.unknown_since is not None else row.history.attempts
        most = max(1, batch_size >> min(attempts, 30))
        key = row.model_id, row.kind, most
        part = open_parts.get(key)
        if part is None or len(part) >= most or sizes[key] + row.size > batch_bytes:
            part = open_parts[key] = []
            sizes[key] = 0
            parts.append(part)
        part.append(row)
        sizes[key] += row.size
    return parts


def note_attempt(rows: Iterable[Row], now: float) -> None:
    """Record in the rows' histories that they were sent in vain.

    Args:
        rows: The rows.
        now: Seconds since 1970.
    """
    known: dict[History, History] = {}  # those of a batch are nearly always the same
    for row in rows:
        before = row.history
        after = known.get(before)
        if after is None:
            since = now if before.since is None else before.since
            after = known[before] = replace(before, attempts=before.attempts + 1, since=since)
        row.history = after


def note_unknown(row: Row, now: float) -> None:
    """Record that ground truth was sent before its inference had arrived.

    Args:
        row: The row.
        now: Seconds since 1970.
    """
    past = row.history
    since = now if past.unknown_since is None else past.unknown_since
    row.history = replace(past, attempts=past.attempts + 1, unknown_since=since)


def note_excuse(rows: Iterable[Row]) -> None:
    """Record that neither Arthur nor the rows are why they wait: that time does not count."""
    for row in rows:
        if row.history.since is not None:
            row.history = replace(row.history, since=None)


def note_death(rows: Iterable[Row]) -> None:
    """Record that the worker died while it handled rows."""
    for row in rows:
        row.history = replace(row.history, deaths=row.history.deaths + 1)


def note_survival(rows: Iterable[Row]) -> None:
    """Undo `note_death`."""
    for row in rows:
        deaths = max(0, row.history.deaths - 1)
        row.history = replace(row.history, deaths=deaths) if deaths else _alive(row.history)


def _alive(history: History) -> History:
    alive = replace(history, deaths=0)
    return NO_HISTORY if alive == NO_HISTORY else alive
