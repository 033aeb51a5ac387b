"""Faults on demand: what the sandbox does wrong, how often, and to which requests."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from arthur_relay.sandbox.ticks import Ticks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arthur_relay.sandbox.auth import Auth


class Route(StrEnum):
    """The APIs' routes, as faults and counts name them; `OTHER` are those neither of them has.

    The first are Arthur Scope's, those from `TRACES` on the Engine's.
    """

    LOGIN = "login"
    """A login, which gets a token."""
    USERS = "users"
    """Who the user is, and of which organisation."""
    MODELS = "models"
    """Models and their attributes."""
    INFERENCES = "inferences"
    """Inferences that are sent."""
    GROUND_TRUTH = "ground_truth"
    """Ground truth that is sent."""
    QUERY = "query"
    """Questions about stored inferences."""
    TRACES = "traces"
    """Spans that are sent."""
    SPANS = "spans"
    """Questions about stored spans."""
    ANNOTATIONS = "annotations"
    """Feedback that is sent."""
    TASKS = "tasks"
    """Tasks of the Engine."""
    OTHER = "other"
    """Anything else."""


_DESCRIBED: Final = (
    "store",
    "seconds",
    "status",
    "headers",
    "shift",
    "statuses",
    "every",
    "containing",
)
SENDING: Final = (Route.INFERENCES, Route.GROUND_TRUTH, Route.TRACES, Route.ANNOTATIONS)


class Kind(StrEnum):
    """What can go wrong."""

    SLOW = "slow"
    """Answers come late."""
    HANG = "hang"
    """Answers do not come before the faults are reset."""
    STATUS = "status"
    """Answers have a status, such as 503."""
    REDIRECT = "redirect"
    """Answers are redirects."""
    NOT_JSON = "not_json"
    """Answers are an HTML page."""
    CUT = "cut"
    """Connections are closed without an answer."""
    CUT_MIDBODY = "cut_midbody"
    """Connections are closed in the middle of an answer."""
    WRONG_LENGTH = "wrong_length"
    """Answers have more or fewer results than the request had rows."""
    WRONG_COUNTS = "wrong_counts"
    """Answers count wrongly."""
    FAIL_ROWS = "fail_rows"
    """Some rows of a request are refused."""


@dataclass(slots=True, kw_only=True, eq=False)
class Fault:
    """One fault that waits for its requests.

    Attributes:
        kind: What goes wrong.
        times: For how many requests still; None until `Faults.reset`.
        routes: The routes that it applies to.
        store: Whether the request is carried out before the fault hides its answer.
        seconds: The delay of a slow answer.
        status: The status of the answer, or of failing rows.
        headers: Headers of the answer.
        body: The answer's body; None writes an error.
        shift: By how much results or counts are wrong.
        statuses: By index, the rows' statuses; 2xx leaves a row alone.
        every: Fail every n-th row of a request.
        containing: Fail the rows whose id holds this text.
        released: Ticks once when a reset takes the fault away.
    """

    kind: Kind
    times: int | None
    routes: tuple[Route, ...] = SENDING
    store: bool = False
    seconds: float = 0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    shift: int = 0
    statuses: tuple[int, ...] = ()
    every: int | None = None
    containing: str | None = None
    released: Ticks = field(default_factory=Ticks)

    def describe(self) -> dict[str, Any]:
        """The fault as JSON: its kind, times and routes, and what differs from the defaults."""
        return {
            "kind": str(self.kind),
            "times": self.times,
            "routes": [str(route) for route in self.routes],
        } | {name: value for name in _DESCRIBED if (value := getattr(self, name))}

    def row_status(self, index: int, inference_id: str) -> int | None:
        """The status that a row fails with, or None when it is left alone."""
        if index < len(self.statuses):
            status = self.statuses[index]
            return None if 200 <= status < 300 else status
        nth = self.every is not None and (index + 1) % self.every == 0
        named = self.containing is not None and self.containing in inference_id
        return self.status if nth or named else None


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens to one request.

    Attributes:
        delay_seconds: How long its answer waits.
        fault: What goes wrong with it; None when nothing does.
        rows: What goes wrong with its rows.
    """

    delay_seconds: float = 0
    fault: Fault | None = None
    rows: tuple[Fault, ...] = ()


class Faults:
    """The faults that are set. Every method may be called from any thread.

    A fault affects requests that arrive after the call. Delays add up, and can be combined with any
    other fault. Faults of rows can be combined with each other. Of all others a request meets only
    one: the first that was set and still has times left. So `status(503, times=2)` followed by
    `status(429)` fails three requests.

    All methods that set a fault take `times`, the number of requests (None: until `reset`), and
    `routes` (by default those that take inferences, ground truth, spans and annotations). They
    raise `ValueError` if a value is out of its range.

    Args:
        auth: Makes all tokens invalid.
        changes: Ticks when faults are set, used up or taken away.
    """

    def __init__(self, auth: Auth, changes: Ticks) -> None:
        self._changes = changes
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._auth = auth

    @property
    def active(self) -> list[Fault]:
        """The faults that are set now, in the order they were set; may be empty."""
        with self._lock:
            return list(self._faults)

    def reset(self) -> None:
        """Remove all faults. Requests that hang are answered as if there had been none."""
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            fault.released.advance()
        self._changes.advance()

    def expire_tokens(self) -> None:
        """Make all tokens issued so far invalid, once; API keys stay valid."""
        self._auth.expire_tokens()

    def slow(
        self, seconds: float, *, times: int | None = None, routes: Iterable[str] = SENDING
    ) -> None:
        """Wait some seconds before each answer. The request is carried out after the wait."""
        if seconds < 0:
            raise ValueError(f"seconds must be 0 or more, not {seconds}")
        self._add(Fault(kind=Kind.SLOW, times=times, seconds=seconds), routes)

    def hang(
        self,
        *,
        times: int | None = None,
        store: bool = False,
        routes: Iterable[str] = SENDING,
    ) -> None:
        """Answer only after `reset`; with `store` the request is carried out at once."""
        self._add(Fault(kind=Kind.HANG, times=times, store=store), routes)

    def status(
        self,
        status: int,
        *,
        retry_after: str | float | None = None,
        times: int | None = 1,
        store: bool = False,
        routes: Iterable[str] = SENDING,
    ) -> None:
        """Answer with a status (200 to 599), and a `Retry-After` header of any text."""
        self._status(status, 200)
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._add(
            Fault(kind=Kind.STATUS, times=times, status=status, headers=headers, store=store),
            routes,
        )

    def redirect(
        self, location: str, *, times: int | None = 1, routes: Iterable[str] = SENDING
    ) -> None:
        """Answer 307 with a `Location`."""
        self._add(
            Fault(kind=Kind.REDIRECT, times=times, status=307, headers={"Location": location}),
            routes,
        )

    def not_json(
        self,
        *,
        status: int = 207,
        times: int | None = 1,
        store: bool = False,
        routes: Iterable[str] = SENDING,
    ) -> None:
        """Answer with an HTML page, as a proxy in between does."""
        self._status(status, 200)
        body = "<html><body>It works!</body></html>"
        headers = {"Content-Type": "text/html"}
        self._add(
            Fault(
                kind=Kind.NOT_JSON,
                times=times,
                status=status,
                body=body,
                headers=headers,
                store=store,
            ),
            routes,
        )

    def cut(
        self,
        *,
        times: int | None = 1,
        store: bool = False,
        routes: Iterable[str] = SENDING,
    ) -> None:
        """Close the connection without an answer; with `store` only the answer is lost."""
        self._add(Fault(kind=Kind.CUT, times=times, store=store), routes)

    def cut_midbody(self, *, times: int | None = 1, routes: Iterable[str] = SENDING) -> None:
        """Carry out the request, then close the connection after half of the answer's body."""
        self._add(Fault(kind=Kind.CUT_MIDBODY, times=times, store=True), routes)

    def wrong_length(
        self, shift: int = -1, *, times: int | None = 1, routes: Iterable[str] = SENDING
    ) -> None:
        """Carry out the request, and answer with more (or, below 0, fewer) results than rows."""
        self._add(Fault(kind=Kind.WRONG_LENGTH, times=times, store=True, shift=shift), routes)

    def wrong_counts(
        self, shift: int = 1, *, times: int | None = 1, routes: Iterable[str] = SENDING
    ) -> None:
        """Carry out the request, and answer with a success count that is off by `shift`."""
        self._add(Fault(kind=Kind.WRONG_COUNTS, times=times, store=True, shift=shift), routes)

    def fail_rows(
        self,
        statuses: Sequence[int] = (),
        *,
        every: int | None = None,
        containing: str | None = None,
        status: int = 400,
        times: int | None = None,
        routes: Iterable[str] = SENDING,
    ) -> None:
        """Refuse chosen rows, which are then not stored. The others are treated as usual.

        Args:
            statuses: By index, the rows' statuses; 2xx leaves a row alone, and so does the
                list's end.
            every: Fail every n-th row of each request, the n-th first, with `status`.
            containing: Fail with `status` the rows whose partner_inference_id contains this text;
                for spans, it is looked for in the trace's and the span's id, joined by a dash. The
                Engine has no status for a single span: it rejects the span, or answers 500 to the
                whole request if that is the status.
            status: The status for `every` and `containing`, 300 to 599.
            times: For how many requests; None means until `reset`.
            routes: The routes that it applies to.

        Raises:
            ValueError: A value is out of its range, or no row is chosen.
        """
        for each in statuses:
            self._status(each, 200)
        self._status(status, 300)
        if every is not None and every < 1:
            raise ValueError(f"every must be 1 or more, not {every}")
        if not statuses and every is None and containing is None:
            raise ValueError("choose rows with statuses, every or containing")
        fault = Fault(
            kind=Kind.FAIL_ROWS,
            times=times,
            statuses=tuple(statuses),
            every=every,
            containing=containing,
            status=status,
        )
        self._add(fault, routes)

    def set(self, kind: str, **options: Any) -> None:
        """Set a fault by its name, as `POST /sandbox/faults` does.

        Args:
            kind: A name of `Kind`, "reset" or "expire_tokens".
            **options: What the method of this name takes.

        Raises:
            ValueError: The kind is unknown, or a value is out of its range.
            TypeError: An option is unknown, missing or of the wrong type.
        """
        if kind not in {*Kind, "reset", "expire_tokens"}:
            known = ", ".join([*Kind, "reset", "expire_tokens"])
            raise ValueError(f"unknown kind of fault {kind!r}; known are {known}")
        getattr(self, kind)(**options)

    def take(self, route: Route) -> Plan:
        """What happens to a request that has just arrived; uses up the faults' times."""
        with self._lock:
            matching = [
                fault for fault in self._faults if route in fault.routes and fault.times != 0
            ]
            delays = [fault for fault in matching if fault.kind is Kind.SLOW]
            rows = [fault for fault in matching if fault.kind is Kind.FAIL_ROWS]
            others = [fault for fault in matching if fault.kind not in {Kind.SLOW, Kind.FAIL_ROWS}][
                :1
            ]
            for fault in delays + rows + others:
                if fault.times is not None:
                    fault.times -= 1
            # A hang stays listed while it hangs, so that a reset finds it.
            self._faults = [
                fault for fault in self._faults if fault.times != 0 or fault.kind is Kind.HANG
            ]
        return Plan(sum(fault.seconds for fault in delays), next(iter(others), None), tuple(rows))

    def _add(self, fault: Fault, routes: Iterable[str]) -> None:
        if fault.times is not None and fault.times < 1:
            raise ValueError(f"times must be 1 or more, or None, not {fault.times}")
        fault.routes = tuple(Route(route) for route in routes)
        with self._lock:
            self._faults.append(fault)
        self._changes.advance()

    @staticmethod
    def _status(status: int, least: int) -> None:
        if not least <= status <= 599:
            raise ValueError(f"status must be {least} to 599, not {status}")
