"""One row of the table of faults: what goes wrong, and what then happens."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import trustme

from tests.end_to_end.fronts import Break, TlsFront
from tests.end_to_end.stage import LONG_SECONDS, MARGIN_SECONDS, SHORT_SECONDS, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and what then happens to the three inferences.

    Attributes:
        does: Makes it go wrong, once the relay is there.
        attempts: The relay's attempts to send them; so many at least when the fault stays.
        requests: Requests with inferences that Arthur saw; None: as many as attempts.
        delivered: Inferences that were delivered.
        rejected: Reasons of those that were rejected.
        doubled: Inferences that Arthur was given again, all times counted: an answer was lost.
        unheard: Inferences that Arthur has, and the relay does not know it.
        logins: Logins in all; so many at least when each attempt needs one.
        logs_in_again: Whether it does.
        minutes: Passed at least between the first attempt and the last, on the relay's clock.
        lines: Lines that it brings into the log, at WARNING.
        says: What `health()` says of a fault that does not pass; else "".
        settings: Settings that it needs.
        sets: Sets up what is between the relay and Arthur, before the relay is there.
        asks: Whether Arthur can be asked for the model before it goes wrong.
    """

    does: Callable[[Stage], object]
    attempts: int
    requests: int | None = None
    delivered: int = 3
    rejected: Mapping[str, int] = field(default_factory=dict)
    doubled: int = 0
    unheard: int = 0
    logins: int = 1
    logs_in_again: bool = False
    minutes: float = 0.0
    lines: int = 0
    says: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    sets: Callable[[Stage], object] = lambda _stage: None
    asks: bool = True

    def play(self, place: Stage, **settings: Any) -> None:
        """Have the stage's captures made while it goes wrong."""
        self.sets(place)
        place.make_relay(**self.settings, **settings)
        place.connect(asks=self.asks)
        self.does(place)
        place.capture()

    def play_with_an_exit(self, place: Stage) -> None:
        """Play it with an exit in the middle, and assert what came of that."""
        deadline = SHORT_SECONDS if self.outlasts_an_exit else LONG_SECONDS
        self.play(place, shutdown_timeout_seconds=deadline)
        began = time.monotonic()
        result = place.relay.close()
        assert time.monotonic() - began < deadline + MARGIN_SECONDS
        assert result.timed_out is self.outlasts_an_exit
        if self.outlasts_an_exit:
            assert (result.delivered, result.rejected) == (0, 0)
            assert result.dropped == {"shutdown": 3}
        else:
            assert (result.delivered, result.dropped) == (self.delivered, {})
            assert place.relay.stats().rejected_reasons == self.rejected
            assert place.sandbox.duplicates == self.doubled
        place.check(unheard=self.unheard)

    @property
    def outlasts_an_exit(self) -> bool:
        """Whether a process that ends before it has passed does so at its deadline."""
        return bool(self.says or self.minutes)


# --- What goes wrong -----------------------------------------------------------------------------


def nothing(_stage: Stage) -> None:
    """Nothing goes wrong, or it does already."""


def arthur(kind: str, *arguments: Any, **options: Any) -> Callable[[Stage], None]:
    """A fault of the sandbox."""
    return lambda place: getattr(place.faults, kind)(*arguments, **options)


def in_two_minutes(place: Stage) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
    place.faults.status(503, retry_after=moment)


def wrong_length_and_a_failed_row(place: Stage) -> None:
    place.faults.wrong_length(-1, times=1)
    place.faults.fail_rows(containing="c", status=500, times=1)


def logins_answer(status: int) -> Callable[[Stage], None]:
    """The token has expired, and no other one is to be had."""

    def expire(place: Stage) -> None:
        place.faults.expire_tokens()
        place.faults.status(status, times=None, routes=("login",))

    return expire


def unknown_and_in_between(place: Stage) -> None:
    """Arthur says 404 once, and its ingress answers the question for the model."""
    place.faults.status(404)
    place.faults.not_json(status=404, routes=("models",))


def pages_at_login_and_model(place: Stage) -> None:
    """A page answers the login, then Arthur the rows with 404, and a page the model's question."""
    place.faults.expire_tokens()
    place.faults.status(404)
    for route in ("login", "models"):
        place.faults.not_json(status=200, routes=(route,))


def in_between_at_login(place: Stage) -> None:
    place.faults.expire_tokens()
    place.faults.not_json(status=403, times=None, routes=("login",))


def expired_and_busy(place: Stage) -> None:
    place.faults.expire_tokens()
    place.faults.status(503, times=2, routes=("login",))


def tokens_expire_before(attempt: int) -> Callable[[Stage], None]:
    return lambda place: place.watched.before.update({attempt: place.faults.expire_tokens})


def away_for(attempts: int) -> Callable[[Stage], None]:
    """Arthur listens again when so many attempts have been refused."""

    def go_away(place: Stage) -> None:
        place.sandbox.go_away()
        place.watched.before[attempts + 1] = place.sandbox.come_back

    return go_away


def unknown_for(attempts: int) -> Callable[[Stage], None]:
    """Arthur's name can be found again when it could not so many times."""

    def set_up(place: Stage) -> None:
        place.host = "arthur.test"
        place.unknown_names = attempts

    return set_up


def certificate(name: str, *, trusted: bool) -> Callable[[Stage], None]:
    """Arthur is behind TLS, with a certificate of that name."""

    def set_up(place: Stage) -> None:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        if trusted:
            path = place.exits.enter_context(authority.cert_pem.tempfile())
            place.environment.setenv("SSL_CERT_FILE", path)
        place.port = place.exits.enter_context(TlsFront(context, place.port)).port
        place.scheme = "https"

    return set_up


# --- Kinds of rows --------------------------------------------------------------------------------


def passes_after(times: int, does: Callable[[Stage], object], **more: Any) -> Fault:
    """A fault that as many attempts meet."""
    return Fault(does, attempts=times + 1, **more)


def refused(status: int) -> Fault:
    """A status that can't be helped by trying again.

    Where it may be for what is in a row, the three are halved until each was sent alone.
    """
    return Fault(
        arthur("status", status, times=None),
        attempts=5,
        delivered=0,
        rejected={f"http {status}": 3},
        lines=1,
    )


def stays(
    does: Callable[[Stage], object], says: str, *, requests: int | None = None, **more: Any
) -> Fault:
    """A fault that does not pass: a line says so when the breaker opens, another what is lost."""
    more = {"attempts": 6, "lines": 2, **more}
    return Fault(does, requests=requests, delivered=0, says=says, **more)


def forbidden(status: int) -> Fault:
    """Arthur knows us, and does not let us write to the model: its rows wait until it does."""
    return stays(arthur("status", status, times=None), f"({status})", attempts=3)


def no_entry(does: Callable[[Stage], object], says: str, **more: Any) -> Fault:
    """Arthur does not let us in, and goes on so: each attempt asks for another token."""
    return stays(does, says, **{"attempts": 3, "logins": 2, "logs_in_again": True, **more})


def unseen(does: Callable[[Stage], object], says: str, **more: Any) -> Fault:
    """One of those, of which Arthur sees nothing."""
    return stays(does, says, **{"requests": 0, "logins": 0, "asks": False, **more})


def answers(does: Break) -> Fault:
    """An answer that is not understood, once, by what it is wrapped in."""
    return breaks(does, doubled=3)


def breaks(does: Break, **more: Any) -> Fault:
    """A fault of what lies between the relay and Arthur, once."""
    return Fault(
        lambda place: place.wire.breaks.append(does), attempts=2, sets=Stage.lay_wire, **more
    )
