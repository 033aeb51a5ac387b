"""The table of faults: what each makes the relay do, with a real server over real sockets.

Three inferences are captured and travel in one request, while something goes wrong. Each fault is
played twice: with all the time it takes, and with the end of the process in the middle of it.
`TABLE` says what happens then; it is the specification. `faults.md` is the same to read, and is
made by `python -m tests.end_to_end.test_faults > tests/end_to_end/faults.md`.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from tests.end_to_end.engine_table import ENGINE_TABLE
from tests.end_to_end.fault import (
    Fault,
    answers,
    arthur,
    away_for,
    breaks,
    certificate,
    expired_and_busy,
    forbidden,
    in_between_at_login,
    in_two_minutes,
    logins_answer,
    no_entry,
    nothing,
    pages_at_login_and_model,
    passes_after,
    refused,
    stays,
    tokens_expire_before,
    unknown_and_in_between,
    unknown_for,
    unseen,
    wrong_length_and_a_failed_row,
)
from tests.end_to_end.fault_page import page
from tests.end_to_end.fronts import (
    Break,
    bomb,
    drip,
    encoded,
    half_close,
    hang_in_mid_body,
    in_charset,
    long_answer,
    reset,
    truncate,
)
from tests.end_to_end.stage import (
    IMPATIENT,
    LONG_SECONDS,
    PATIENT,
    SPEED,
    Stage,
    stage,
)

PAGE = Path(__file__).with_name("faults.md")

TABLE: dict[str, dict[str, Fault]] = {
    "Slow and hanging": {
        "nothing goes wrong": Fault(nothing, attempts=1),
        "slow": Fault(arthur("slow", 0.2), attempts=1),
        "slower than a request may take, once": passes_after(
            1, arthur("slow", 60.0, times=1), settings=IMPATIENT
        ),
        "hangs before the answer, once": passes_after(
            1, arthur("hang", times=1), settings=IMPATIENT
        ),
        "stores, and hangs before the answer": passes_after(
            1, arthur("hang", times=1, store=True), doubled=3, settings=IMPATIENT
        ),
        "stores, and hangs in mid-body": breaks(
            Break(hang_in_mid_body), doubled=3, settings=IMPATIENT
        ),
        "hangs": stays(arthur("hang"), "no answer within 2.5 s", attempts=2, settings=IMPATIENT),
        "stores, and hangs, each time": stays(
            arthur("hang", store=True),
            "no answer within 2.5 s",
            attempts=2,
            unheard=3,
            settings=IMPATIENT,
        ),
    },
    "Connections": {
        "closed before the answer": passes_after(2, arthur("cut", times=2)),
        "closed before the answer, and stored": passes_after(
            1, arthur("cut", times=1, store=True), doubled=3
        ),
        "closed in mid-body, and stored": passes_after(
            1, arthur("cut_midbody", times=1), doubled=3
        ),
        "reset before the request arrives": breaks(Break(reset, passes=False), requests=1),
        "reset before the answer, and stored": breaks(Break(reset), doubled=3),
        "half-closed before the answer": breaks(Break(half_close, passes=False), requests=1),
        "closed while idle": Fault(
            lambda place: place.wire.cut_idle(), attempts=1, sets=Stage.lay_wire
        ),
        "refused": unseen(
            lambda place: place.sandbox.go_away(), "the connection was refused", logins=1, asks=True
        ),
        "refused for minutes": Fault(
            away_for(16), attempts=17, requests=1, minutes=2.0, lines=1, settings=PATIENT
        ),
        "a name that can't be found, then can": Fault(
            nothing, attempts=3, requests=1, sets=unknown_for(2), asks=False
        ),
        "a name that can't be found": unseen(
            nothing, "name resolution", sets=unknown_for(1_000_000)
        ),
        "a certificate that nobody knows": unseen(
            nothing, "certificate is not trusted", sets=certificate("127.0.0.1", trusted=False)
        ),
        "a certificate of another name": unseen(
            nothing, "certificate is not trusted", sets=certificate("arthur.example", trusted=True)
        ),
    },
    "Statuses": {
        **{
            str(status): passes_after(2, arthur("status", status, times=2))
            for status in (408, 425, 429, 500, 502, 503, 504)
        },
        "a storm of 503": passes_after(20, arthur("status", 503, times=20), lines=1),
        "503, and stored": passes_after(1, arthur("status", 503, store=True), doubled=3),
        "503 and no end": stays(arthur("status", 503, times=None), "Arthur answered 503"),
        "a redirect, which is not followed": passes_after(
            2, arthur("redirect", "http://127.0.0.1:9/", times=2)
        ),
        **{str(status): refused(status) for status in (400, 409, 422)},
        **{str(status): forbidden(status) for status in (402, 403)},
        "404 for a model that Arthur has": passes_after(2, arthur("status", 404, times=2)),
        "404 for a model that Arthur has, and no end": stays(
            arthur("status", 404, times=None), "Arthur answered 404 for rows of a model"
        ),
        "404, and Arthur has no such model": Fault(
            arthur("status", 404, times=None, routes=("inferences", "models")),
            attempts=1,
            delivered=0,
            rejected={"http 404": 3},
            lines=1,
        ),
        **{
            f"{status} of what is before Arthur": passes_after(
                2, arthur("not_json", status=status, times=2)
            )
            for status in (400, 402, 403, 404, 409, 422)
        },
        "404 of what is before Arthur, and no end": stays(
            arthur("not_json", status=404, times=None),
            "answered 404, and not in Arthur's words",
        ),
        "a question for the model, that what is before Arthur answers": passes_after(
            1, unknown_and_in_between
        ),
        "413 once: 3 → 1 + 2": Fault(arthur("status", 413, times=1), attempts=3),
        "413 for each: 3 → 1 + 2 → 1 + 1 + 1": Fault(
            arthur("status", 413, times=None),
            attempts=5,
            delivered=0,
            rejected={"http 413": 3},
            lines=1,
        ),
    },
    "`Retry-After`": {
        "429 with 120 seconds": passes_after(
            1, arthur("status", 429, retry_after=120), minutes=2.0, settings=PATIENT
        ),
        "503 with a date, in two minutes": passes_after(
            1, in_two_minutes, minutes=1.9, settings=PATIENT
        ),
        "503 with a date of the past": passes_after(
            1, arthur("status", 503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT")
        ),
        "429 with nonsense": passes_after(1, arthur("status", 429, retry_after="soon")),
        "429 with 10³⁰ seconds: 300 are obeyed": passes_after(
            1, arthur("status", 429, retry_after="1" + 30 * "0"), minutes=5.0, settings=PATIENT
        ),
    },
    "Answers": {
        "207, and one row is at fault": Fault(
            arthur("fail_rows", containing="b", status=400),
            attempts=1,
            delivered=2,
            rejected={"row 400": 1},
            lines=1,
        ),
        "207, and two rows could not be stored": passes_after(
            1, arthur("fail_rows", [500, 200, 429], times=1)
        ),
        "207 of the wrong length, and the counts say that all is stored": Fault(
            arthur("wrong_length", -1), attempts=1
        ),
        "207 of the wrong length, and the counts do not": passes_after(
            1, wrong_length_and_a_failed_row, doubled=2
        ),
        "207 with counts that disagree": Fault(arthur("wrong_counts", 1), attempts=1),
        "truncated JSON": breaks(Break(truncate), doubled=3),
        "gzip that is none": answers(Break(encoded("gzip", bytes))),
        "gzip that is cut": answers(Break(encoded("gzip", lambda body: gzip.compress(body)[:-9]))),
        "deflate that is none": answers(Break(encoded("deflate", bytes))),
        "brotli, which was not asked for": answers(Break(encoded("br", bytes))),
        "zstd, which was not asked for": answers(Break(encoded("zstd", bytes))),
        "gzip that is whole, though it was not asked for": Fault(
            lambda place: place.wire.breaks.append(Break(encoded("gzip", gzip.compress))),
            attempts=1,
            sets=Stage.lay_wire,
        ),
        "a charset that nobody knows": Fault(
            lambda place: place.wire.breaks.append(Break(in_charset("utf-99"))),
            attempts=1,
            sets=Stage.lay_wire,
        ),
        "a bomb of gzip": answers(Break(encoded("gzip", bomb))),
        "an answer of 64 MiB": answers(Break(long_answer)),
        "an answer that drips": breaks(Break(drip), doubled=3, settings=IMPATIENT),
        "not JSON": passes_after(2, arthur("not_json", times=2)),
        "not JSON, and no end": Fault(
            arthur("not_json", times=None),
            attempts=10,
            delivered=0,
            rejected={"malformed answer": 3},
            lines=1,
        ),
        "a page of what is before Arthur": passes_after(4, arthur("not_json", status=200, times=4)),
        "a page of what is before Arthur, and no end": stays(
            arthur("not_json", status=200, times=None), "Arthur answered 200 with text/html"
        ),
        "a success without a body": passes_after(4, arthur("status", 204, times=4)),
        "the model and a login, that a page answers": passes_after(
            2, pages_at_login_and_model, logins=3
        ),
    },
    "Tokens and logins": {
        "401 once": Fault(arthur("status", 401), attempts=1, requests=2, logins=2),
        "401 and no end": no_entry(
            arthur("status", 401, times=None), "Arthur refused access (401)"
        ),
        "401 of what is before Arthur": passes_after(
            1, arthur("not_json", status=401, times=2), requests=3, logins=2
        ),
        "the token has expired": Fault(arthur("expire_tokens"), attempts=1, requests=2, logins=2),
        "the token expires in mid-batch, of rows that go one by one": Fault(
            tokens_expire_before(2),
            attempts=3,
            requests=4,
            logins=2,
            settings={"batch_size": 1, "max_in_flight": 1},
        ),
        "the login is refused": no_entry(logins_answer(401), "refused the login"),
        "the login answers 404": no_entry(logins_answer(404), "Arthur answered 404 (/login at"),
        "the login is answered by what is before Arthur": no_entry(
            in_between_at_login, "and not in Arthur's words", requests=None
        ),
        "the login answers 503 twice, for want of a token": passes_after(
            2, expired_and_busy, requests=2, logins=4
        ),
        "who we are is answered with 410": no_entry(
            arthur("status", 410, times=None, routes=("users",)),
            "Arthur answered 410 (/users/me at",
            requests=0,
            logins=1,
            logs_in_again=False,
            asks=False,
        ),
    },
}

FAULTS = {name: fault for faults in TABLE.values() for name, fault in faults.items()}

every_fault = pytest.mark.parametrize("name", FAULTS)

pytestmark = [
    # httpcore leaves the socket of a handshake that is cancelled; the fixture has it collected.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("left_sockets_are_collected"),
]


@every_fault
def test_with_all_the_time_it_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = FAULTS[name]
    with stage(monkeypatch, speed=SPEED if fault.minutes else 1.0) as place:
        fault.play(place, shutdown_timeout_seconds=0.0 if fault.says else LONG_SECONDS)
        relay = place.relay
        if fault.says:
            place.wait_for(lambda: relay.flush(0.05).timed_out and place.is_failing(fault.attempts))
            health = relay.health()
            assert health.status == "failing"
            assert fault.says in health.detail
            assert relay.stats().pending == 3
            assert (place.requests > 0) is (fault.requests is None)
        else:
            assert not relay.flush(LONG_SECONDS).timed_out
            assert len(place.watched.times) == relay.stats().requests == fault.attempts
            assert place.requests == (fault.attempts if fault.requests is None else fault.requests)
            assert place.watched.times[-1] - place.watched.times[0] >= 60 * fault.minutes
            assert relay.health().status == ("degraded" if fault.rejected else "ok")
        if fault.logs_in_again:
            assert place.logins >= fault.logins
        else:
            assert place.logins == fault.logins
        place.check(unheard=fault.unheard)
        result = relay.close()
        lost = {"shutdown": 3} if fault.says else {}
        assert (result.delivered, result.dropped) == (fault.delivered, lost)
        assert place.letters == relay.stats().rejected_reasons == fault.rejected
        if not fault.unheard:  # else each attempt doubles them
            assert place.sandbox.duplicates == fault.doubled
        assert len(place.told.lines) == fault.lines, place.told.lines
        place.check(unheard=fault.unheard)


@every_fault
def test_with_an_exit_in_the_middle(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with stage(monkeypatch) as place:
        FAULTS[name].play_with_an_exit(place)


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(TABLE, ENGINE_TABLE), "make it anew; see above"


if __name__ == "__main__":
    sys.stdout.write(page(TABLE, ENGINE_TABLE))
