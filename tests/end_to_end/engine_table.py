"""The table of faults of Arthur Engine; see `test_engine_faults.py`."""

from __future__ import annotations

import gzip

from arthur_relay.sandbox.engine import Role
from tests.end_to_end.engine_fault import (
    EngineFault,
    breaks,
    is_lost,
    key_is_deleted,
    lost_and_questions_fail,
    no_entry,
    passes_after,
    refused,
    role_changes_to,
    stays,
    task_is_deleted,
    traces,
    unseen,
    with_key_that_may_only_write,
)
from tests.end_to_end.fault import (
    arthur,
    away_for,
    certificate,
    in_two_minutes,
    nothing,
    unknown_for,
)
from tests.end_to_end.fronts import (
    Break,
    bomb,
    drip,
    encoded,
    half_close,
    hang_in_mid_body,
    long_answer,
    reset,
    truncate,
)
from tests.end_to_end.stage import IMPATIENT, PATIENT, Stage

ENGINE_TABLE: dict[str, dict[str, EngineFault]] = {
    "Slow and hanging": {
        "nothing goes wrong": EngineFault(nothing, attempts=1),
        "slow": EngineFault(arthur("slow", 0.2), attempts=1),
        "hangs before the answer, once": passes_after(
            1, arthur("hang", times=1), questions=1, settings=IMPATIENT
        ),
        "stores, and hangs before the answer": is_lost(
            arthur("hang", times=1, store=True), settings=IMPATIENT
        ),
        "stores, and hangs in mid-body": breaks(Break(hang_in_mid_body), settings=IMPATIENT),
        "hangs": stays(
            traces("hang"),
            "no answer within 2.5 s",
            asks_again=True,
            attempts=2,
            settings=IMPATIENT,
        ),
        "stores, and hangs, each time": is_lost(traces("hang", store=True), settings=IMPATIENT),
    },
    "Connections": {
        "closed before the answer": passes_after(2, arthur("cut", times=2), questions=2),
        "closed before the answer, and stored": is_lost(arthur("cut", times=1, store=True)),
        "closed in mid-body, and stored": is_lost(arthur("cut_midbody", times=1)),
        "reset before the request arrives": breaks(Break(reset, passes=False)),
        "reset before the answer, and stored": breaks(Break(reset)),
        "half-closed before the answer": breaks(Break(half_close, passes=False)),
        "closed while idle": EngineFault(
            lambda place: place.wire.cut_idle(), attempts=1, sets=Stage.lay_wire
        ),
        "refused": unseen(
            lambda place: place.sandbox.go_away(), "the connection was refused", asks=True
        ),
        "refused for minutes": EngineFault(
            away_for(16),
            attempts=17,
            requests=1,
            questions=1,
            minutes=2.0,
            lines=1,
            settings=PATIENT,
        ),
        "a name that can't be found, then can": EngineFault(
            nothing, attempts=3, requests=1, sets=unknown_for(2), asks=False
        ),
        "a name that can't be found": unseen(
            nothing, "name resolution", sets=unknown_for(1_000_000)
        ),
        "a certificate that nobody knows": unseen(
            nothing, "certificate is not trusted", sets=certificate("127.0.0.1", trusted=False)
        ),
        "a certificate of another name": unseen(
            nothing, "certificate is not trusted", sets=certificate("arthur.test", trusted=True)
        ),
    },
    "Answers that are lost": {
        "the question which spans are there fails twice": is_lost(
            lost_and_questions_fail, attempts=4, questions=3
        ),
        "the key may not read": passes_after(
            1,
            arthur("cut", times=1, store=True),
            questions=1,
            doubled=3,
            sets=with_key_that_may_only_write,
        ),
    },
    "Statuses": {
        **{
            str(status): passes_after(2, arthur("status", status, times=2))
            for status in (408, 425, 429)
        },
        **{
            str(status): passes_after(2, arthur("status", status, times=2), questions=2)
            for status in (502, 503, 504)
        },
        "500, while the database is away": passes_after(2, arthur("status", 500, times=4)),
        "500, while the Engine is well: 3 → 1 + 2": EngineFault(
            arthur("status", 500, times=1), attempts=3
        ),
        "500 for one span: 3 → 1 + 2, and once more, reduced": EngineFault(
            arthur("fail_rows", containing="-a1a1", status=500),
            attempts=4,
            delivered=2,
            rejected={"http 500 for what was sent, while the Engine is well": 1},
            in_any_order=True,
            lines=1,
        ),
        "500, for the task is no more": EngineFault(
            task_is_deleted,
            attempts=1,
            delivered=0,
            rejected={"the Engine has no such task": 3},
            lines=1,
        ),
        "a storm of 503": EngineFault(
            arthur("status", 503, times=20), attempts=21, questions=20, lines=1
        ),
        "503, and stored": is_lost(arthur("status", 503, store=True)),
        "503 and no end": stays(traces("status", 503, times=None), "Arthur answered 503"),
        "a redirect, which is not followed": passes_after(
            2, arthur("redirect", "http://127.0.0.1:9/elsewhere", times=2)
        ),
        "400: each once more, reduced": refused(
            "http 400", arthur("status", 400, times=None), attempts=8
        ),
        "409": refused("http 409", arthur("status", 409, times=None)),
        "422 without counts: each once more, reduced": refused(
            "http 422", arthur("status", 422, times=None), attempts=8
        ),
        "402": no_entry(arthur("status", 402, times=None), "(402)"),
        "404": passes_after(2, arthur("status", 404, times=2)),
        "404 and no end": stays(
            traces("status", 404, times=None), "is ARTHUR_BASE_URL the address of an Arthur Engine"
        ),
        **{
            f"{status} of what is before the Engine": passes_after(
                2, arthur("not_json", status=status, times=2)
            )
            for status in (400, 403, 404, 422)
        },
        "500 of what is before the Engine": passes_after(
            2, arthur("not_json", status=500, times=2), questions=2
        ),
        "413 once: 3 → 1 + 2": EngineFault(arthur("status", 413, times=1), attempts=3),
        "413 for each: 3 → 1 + 2 → 1 + 1 + 1": refused(
            "http 413", arthur("status", 413, times=None)
        ),
    },
    "`Retry-After`": {
        "429 with 120 seconds": passes_after(
            1, arthur("status", 429, retry_after=120), minutes=2.0, settings=PATIENT
        ),
        "503 with a date, in two minutes": passes_after(
            1, in_two_minutes, questions=1, minutes=1.9, settings=PATIENT
        ),
    },
    "Answers": {
        "206: one span is at fault, and sent once more, reduced": EngineFault(
            arthur("fail_rows", containing="b2b2"),
            attempts=2,
            delivered=2,
            rejected={"the Engine rejected the span for its content": 1},
            questions=1,
            lines=1,
        ),
        "206: one span is at fault, and takes the reduced form": EngineFault(
            arthur("fail_rows", containing="b2b2", times=1), attempts=2, questions=1
        ),
        "206, and the key may not read": EngineFault(
            arthur("fail_rows", containing="b2b2"),
            attempts=1,
            delivered=0,
            rejected={
                "the Engine rejected 1 of 3 spans for their content, and the key may not read"
                " which": 3
            },
            unheard=2,
            questions=1,
            lines=1,
            sets=with_key_that_may_only_write,
        ),
        "422: each span is at fault, and sent once more, reduced": EngineFault(
            arthur("fail_rows", every=1),
            attempts=2,
            delivered=0,
            rejected={"the Engine rejected the span for its content": 3},
            lines=1,
        ),
        "200 with counts that can't be": is_lost(arthur("wrong_counts", -1)),
        "truncated JSON": breaks(Break(truncate)),
        "gzip that is none": breaks(Break(encoded("gzip", bytes))),
        "gzip that is whole, though it was not asked for": EngineFault(
            lambda place: place.wire.breaks.append(Break(encoded("gzip", gzip.compress))),
            attempts=1,
            sets=Stage.lay_wire,
        ),
        "a bomb of gzip": breaks(Break(encoded("gzip", bomb))),
        "an answer of 64 MiB": breaks(Break(long_answer)),
        "an answer that drips": breaks(Break(drip), settings=IMPATIENT),
        "a page of what is before the Engine": passes_after(
            2, arthur("not_json", status=200, times=2), questions=2
        ),
        "a page of what is before the Engine, and no end": stays(
            traces("not_json", status=200, times=None), "Arthur answered 200 with text/html"
        ),
        "a success without a body": passes_after(2, arthur("status", 204, times=2), questions=2),
    },
    "Keys": {
        "401 once: 3 → 1 + 2": EngineFault(arthur("status", 401), attempts=3, lines=1),
        "401 and no end": no_entry(key_is_deleted, "Arthur Engine refused access (401)"),
        "the key may no longer write": no_entry(
            role_changes_to(Role.ORG_AUDITOR), "Arthur Engine refused access (403)"
        ),
        "401 of what is before the Engine": passes_after(
            2, arthur("not_json", status=401, times=2)
        ),
    },
}
"""By the title of a section and what goes wrong."""
