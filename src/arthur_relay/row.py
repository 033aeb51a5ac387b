"""A row: one inference's encoded bytes, which the pipeline delivers; and the outcomes of that."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum

CHUNK_BYTES = 256 * 1024
"""The size of the chunks in which a request's body is built and sent."""

RECOVERED = -1
"""The epoch of rows that an earlier process captured: older than all of this process's."""


class RowKind(StrEnum):
    """The kinds of rows; all rows of a batch are of one kind."""

    INFERENCE = "inference"
    """An inference, or a span."""
    GROUND_TRUTH = "ground_truth"
    """Ground truth of an inference that Arthur has already, or feedback."""


@dataclass(frozen=True, slots=True)
class RowOwner:
    """The account that rows belong to.

    Attributes:
        address: The destination's address, without credentials.
        organization: Arthur's id of the organisation; "" if there is none, None while it is not
            known: the first request asks for that of a login or a key.
        principal: A digest of the key or login, from which neither can be found; equal digests
            have the same organisation.
        is_refused: Whether Arthur has refused the key without ever saying whose it is: it may be
            mistyped, and nobody's.
    """

    address: str
    organization: str | None = None
    principal: str | None = None
    is_refused: bool = False

    def may_send(self, owner: "RowOwner") -> bool | None:
        """Return whether this account may send another's rows; None while that is not known."""
        if self.address != owner.address:
            return False
        if self.organization is not None and owner.organization is not None:
            return self.organization == owner.organization
        if self.principal == owner.principal:
            return True
        if owner.organization is None and not owner.is_refused:
            return False  # the key may be valid, and anybody's
        # The rows of a refused key belong to whoever has a key that Arthur accepts.
        return None if self.organization is None else True

    def __str__(self) -> str:
        if not self.organization:
            return self.address
        return f"{self.address}, organisation {self.organization}"


@dataclass(frozen=True, slots=True)
class History:
    """The history of a row that is not settled yet, in this process and in earlier ones.

    Attributes:
        attempts: How often it was sent.
        since: When it was first sent without success, in seconds since 1970, or None.
        deaths: How often the worker died while it handled the row.
        unknown_since: For ground truth: when the destination first answered that it does not know
            the inference, in seconds since 1970, or None.
        is_repeated: Whether another process may have sent it.
    """

    attempts: int = 0
    since: float | None = None
    deaths: int = 0
    unknown_since: float | None = None
    is_repeated: bool = False


NO_HISTORY = History()


@dataclass(slots=True, eq=False)  # not frozen, because that makes construction five times as slow
class Row:
    """One inference, or its ground truth, encoded once and never decoded again.

    Only its history changes after it is made. Rows are compared by identity.

    Attributes:
        id: The `partner_inference_id`, the same on every attempt.
        model_id: The Arthur model that it belongs to.
        body: The JSON object, UTF-8.
        epoch: The flush generation of its capture; a flush waits for its own and older ones.
        shrunk: How often its texts were cut because Arthur rejected the single row as too large.
        kind: Whether it is an inference or ground truth.
        history: Its history so far; a buffer that outlives the process can keep it.
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
        """The bytes that the row takes in a request, including its separator."""
        return len(self.body) + 1

    @property
    def inference(self) -> tuple[str, str]:
        """The model and the id of the inference that it belongs to."""
        return self.model_id, self.id


def body_bytes(rows: Iterable[Row]) -> int:
    """Return the total bytes of the rows' bodies."""
    return sum([len(row.body) for row in rows])


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one model and kind for one request; never empty, in order of capture.

    Attributes:
        model_id: The model's id.
        rows: The rows.
    """

    model_id: str
    rows: tuple[Row, ...]

    @property
    def kind(self) -> RowKind:
        """The kind of its rows."""
        return self.rows[0].kind

    @property
    def size(self) -> int:
        """Bytes of the request's body."""
        return body_bytes(self.rows) + len(self.rows) + 1

    def body(self) -> bytes:
        """Return the request's body, a JSON array, UTF-8."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Yield the request's body in parts of about 256 KiB.

        Each part is built when it is sent. A body in one piece would need a megabyte of fresh
        memory for each request, whose page faults cost more than all other work on the rows.
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
        if not size:  # there is no comma after the last row
            parts = []
        parts.append(b"]")
        yield b"".join(parts)


class Verdict(Enum):
    """The result of one attempt for one row."""

    DELIVERED = "delivered"
    """The destination has it."""
    REJECTED = "rejected"
    """The destination refused it for good."""
    RETRY = "retry"
    """A later attempt may succeed."""
    NOT_YET = "not yet"
    """It is ground truth of an inference that has not arrived yet; a later attempt may succeed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one attempt for one row, with its reason.

    Attributes:
        verdict: The result.
        reason: The reason, in a few words that never quote a text of the row.
        status: The HTTP status of the row or the request, or None.
        said: What Arthur said of it, or "" where that may quote a text of the row.
    """

    verdict: Verdict
    reason: str = ""
    status: int | None = None
    said: str = ""


DELIVERED = Outcome(Verdict.DELIVERED)


class Failure(Enum):
    """The kinds of failure of a whole request."""

    UNAVAILABLE = "unavailable"
    """Transport errors, time-outs, 5xx, 408: the destination is in trouble."""
    THROTTLED = "throttled"
    """429: the destination works and asks to wait."""
    TOO_LARGE = "too large"
    """413: fewer rows, or smaller ones, may pass."""
    MALFORMED = "malformed"
    """The answer does not say what became of the rows."""
    REFUSED = "refused"
    """404, 422 and other 4xx of the destination's own: sending the same again can't help."""
    UNAUTHORISED = "unauthorised"
    """It rejects our credentials. No row is at fault, and somebody may correct it at any time."""
    FORBIDDEN = "forbidden"
    """It accepts our credentials, but these or our plan lack a permission. No row is at fault."""


ABOUT_US = frozenset({401, 402, 403})
"""Statuses that concern our credentials, not the rows."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of one attempt to deliver one batch.

    Attributes:
        outcomes: One for each row of the batch, in the same order.
        failure: How the whole request failed, or None when the destination answered.
        reason: A short text for logs and health, without content of any row.
        retry_after_seconds: The least wait that the destination asked for, or None.
        may_have_arrived: Whether the destination may have taken rows although no answer arrived.
    """

    outcomes: tuple[Outcome, ...]
    failure: Failure | None = None
    reason: str = ""
    retry_after_seconds: float | None = None
    may_have_arrived: bool = False
