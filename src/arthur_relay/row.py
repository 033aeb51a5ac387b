"""The currency of the pipeline: a row, one inference's encoded bytes, and what became of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum

CHUNK_BYTES = 256 * 1024
"""How much of a request's body is put together at once."""

RECOVERED = -1
"""The epoch of rows that an earlier process captured: no flush of this one waits for them."""


class RowKind(StrEnum):
    """What a row tells Arthur; rows of a batch are of one kind."""

    INFERENCE = "inference"
    GROUND_TRUTH = "ground_truth"
    """What became known later of an inference that Arthur has."""


@dataclass(frozen=True, slots=True)
class RowOwner:
    """Who may send some rows.

    Attributes:
        address: Where they go, without credentials.
        organization: Arthur's id of the organisation; "" where there is none, None while it is not
            known: that of a login or a key is asked for with the first request.
        principal: A digest of who we are to Arthur, which says nothing of a credential; the same
            one has the same organisation.
        is_refused: Whether Arthur has refused that key, and never said whose it is: as far as is
            known it is nobody's, such as one that was mistyped.
    """

    address: str
    organization: str | None = None
    principal: str | None = None
    is_refused: bool = False

    def may_send(self, owner: "RowOwner") -> bool | None:
        """Say whether this one may send what belongs to another; None when it can't be said yet."""
        if self.address != owner.address:
            return False
        if self.organization is not None and owner.organization is not None:
            return self.organization == owner.organization
        if self.principal == owner.principal:
            return True
        if owner.organization is None and not owner.is_refused:
            return False  # its key may be good, and anybody's
        # Of a key that nobody knows, the rows are whose key is taken.
        return None if self.organization is None else True

    def __str__(self) -> str:
        if not self.organization:
            return self.address
        return f"{self.address}, organisation {self.organization}"


@dataclass(frozen=True, slots=True)
class History:
    """What happened to a row that is not settled yet, in this life of the process and before it.

    Attributes:
        attempts: How often it was sent.
        since: When it was first sent in vain, in seconds since 1970, or None.
        deaths: In how many lives it was being handled when the worker died.
        unknown_since: When the destination first said of this ground truth that it does not know
            the inference, in seconds since 1970, or None.
    """

    attempts: int = 0
    since: float | None = None
    deaths: int = 0
    unknown_since: float | None = None


NO_HISTORY = History()


@dataclass(slots=True, eq=False)
class Row:
    """One inference, or its ground truth, encoded once and never decoded again on its way.

    Nothing but its history changes after it is made (`frozen` would make that five times as slow);
    rows are compared by identity.

    Attributes:
        id: The `partner_inference_id`, the same on every attempt.
        model_id: The Arthur model that it belongs to.
        body: The JSON object, UTF-8.
        epoch: The flush generation it was captured in; a flush waits for its own and older ones.
        shrunk: How often its texts were cut because Arthur found the row alone too large.
        kind: What it tells.
        history: What happened to it so far; buffers that outlive the process keep it when told to.
    """

    id: str
    model_id: str
    body: bytes = field(repr=False)  # it holds texts
    epoch: int = 0
    shrunk: int = 0
    kind: RowKind = RowKind.INFERENCE
    history: History = NO_HISTORY

    @property
    def size(self) -> int:
        """Bytes that the row takes in a request, its separator included."""
        return len(self.body) + 1

    @property
    def inference(self) -> tuple[str, str]:
        """The model and the id that say which inference it is of."""
        return self.model_id, self.id


def body_bytes(rows: Iterable[Row]) -> int:
    """Return the bytes of some rows' bodies together."""
    return sum([len(row.body) for row in rows])


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one model and kind that travel in one request; never empty, in order of capture."""

    model_id: str
    rows: tuple[Row, ...]

    @property
    def kind(self) -> RowKind:
        """What its rows tell."""
        return self.rows[0].kind

    @property
    def size(self) -> int:
        """Bytes of the request's body."""
        return body_bytes(self.rows) + len(self.rows) + 1

    def body(self) -> bytes:
        """Return the request's body, a JSON array, UTF-8."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Yield the request's body in parts of about `CHUNK_BYTES`.

        Each is made when it is sent. A body in one piece would be a megabyte of fresh memory for
        each request, whose page faults cost more than all that the worker does to the rows.
        """
        parts = [b"["]
        size = 0
        for row in self.rows:
            if size:
                parts.append(b",")
            parts.append(row.body)
            size += len(row.body)
            if size >= CHUNK_BYTES:
                yield b"".join(parts)
                parts = [b","]
                size = 0
        if not size:  # the comma would come behind the last row
            parts = []
        parts.append(b"]")
        yield b"".join(parts)


class Verdict(Enum):
    """What one attempt did to one row."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    RETRY = "retry"
    NOT_YET = "not yet"
    """It is ground truth of an inference that has not arrived there; later it may have."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt did to one row, and why.

    Attributes:
        verdict: What it did.
        reason: Why, in a few words that never hold a text.
        status: The HTTP status, of the row or the request, that says so, or None.
    """

    verdict: Verdict
    reason: str = ""
    status: int | None = None


DELIVERED = Outcome(Verdict.DELIVERED)


class Failure(Enum):
    """What a whole request that failed says about the destination."""

    UNAVAILABLE = "unavailable"
    """Transport errors, time-outs, 5xx, 408: the destination is in trouble."""
    THROTTLED = "throttled"
    """429: the destination works and asks for patience."""
    TOO_LARGE = "too large"
    """413: fewer rows, or smaller ones, may pass."""
    MALFORMED = "malformed"
    """The answer does not say what became of the rows."""
    REFUSED = "refused"
    """404, 422 and other 4xx of the destination's own: sending the same again can't help."""
    UNAUTHORISED = "unauthorised"
    """It does not take who we are: no row is at fault, and it may be put right at any time."""
    FORBIDDEN = "forbidden"
    """It knows us, and we may not do this for the model, or our plan does not have it: the same."""


ABOUT_US = frozenset({401, 402, 403})
"""Statuses that are about who we are, and not about what was sent."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of one attempt to deliver one batch.

    Attributes:
        outcomes: One for each row of the batch, in the same order.
        failure: What the whole request's failure says, or None when the destination answered.
        reason: A short text for logs and health, without any row's content.
        retry_after_seconds: The least wait that the destination asked for, or None.
        is_unheard: Whether the destination may have taken rows without our having heard it.
    """

    outcomes: tuple[Outcome, ...]
    failure: Failure | None = None
    reason: str = ""
    retry_after_seconds: float | None = None
    is_unheard: bool = False
