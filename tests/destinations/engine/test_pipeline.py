"""The real pipeline before an Engine: poison costs only itself, and nothing is stored twice."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay.inference import CapturedRow
from arthur_relay.relay import host_of
from arthur_relay.row import History, Row

from .conftest import CANARY, TASK
from .spans import feedback, row, row_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay import Relay
    from arthur_relay.sandbox import ArthurSandbox

WRITE_KEY = "sandbox-write-key"
FULL_BATCHES: dict[str, Any] = {"flush_interval_seconds": 3600.0, "batch_size": 50}
GOOD = b'{"annotation_score": 1, "annotation_description": null}'


def submit(relay: Relay, *rows: Row) -> None:
    for each in rows:
        host_of(relay).submit(CapturedRow(each))


def stored(sandbox: ArthurSandbox) -> collections.Counter[str]:
    return collections.Counter(f"{each['trace_id']}-{each['span_id']}" for each in sandbox.spans)


def ids(*numbers: int) -> set[str]:
    return {row_id(number) for number in numbers}


POISON: dict[str, dict[str, Any]] = {
    "500": {"input__value": f"{CANARY}\0", "arthur_relay__dropped": "it is reduced already"},
    "206": {
        "metadata": '{"a/b": 1}',
        "input__value": CANARY,
        "arthur_relay__dropped": "it is reduced already",
    },
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
@pytest.mark.parametrize("bad", [{1}, {25, 26}, {50}, {3, 20, 40}])
def test_poison_among_good_rows_costs_only_itself(
    bad: set[int],
    poison: dict[str, Any],
    sandbox: ArthurSandbox,
    make_relay: Callable[..., Relay],
    caplog: pytest.LogCaptureFixture,
) -> None:
    relay = make_relay(**FULL_BATCHES)
    numbers = range(1, 51)
    submit(relay, *[row(n, task=TASK, **(poison if n in bad else {})) for n in numbers])
    result = relay.flush(30)
    assert (result.delivered, result.rejected) == (50 - len(bad), len(bad))
    assert stored(sandbox) == collections.Counter(ids(*numbers) - ids(*bad)), "none is there twice"
    letters = relay.dead_letters()
    assert {letter.inference_id for letter in letters} == ids(*bad)
    assert not any(CANARY in letter.reason for letter in letters)
    assert CANARY not in caplog.text, "the text of a 500 quotes prompts"


def test_a_lone_bad_row_ends(sandbox: ArthurSandbox, make_relay: Callable[..., Relay]) -> None:
    relay = make_relay()
    submit(relay, row(1, task=TASK, **POISON["500"]))
    assert relay.flush(30).rejected == 1
    sent = [request.body for request in sandbox.requests if request.path == "/api/v1/traces"]
    assert sent.count(b"\x0a\x00") == 2, "twice, with a good probe after each"


def test_an_outage_that_looks_like_poison_costs_nothing(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay()
    sandbox.faults.status(500, times=12)  # rows and probes alike: the database is away
    submit(relay, *[row(n, task=TASK) for n in range(1, 21)])
    result = relay.flush(30)
    assert (result.delivered, result.rejected) == (20, 0)
    assert stored(sandbox) == collections.Counter(ids(*range(1, 21)))


def test_an_engine_that_goes_away(sandbox: ArthurSandbox, make_relay: Callable[..., Relay]) -> None:
    relay = make_relay()
    sandbox.go_away()
    submit(relay, *[row(n, task=TASK) for n in range(1, 21)])
    assert relay.flush(0.3).pending == 20
    sandbox.come_back()
    assert relay.flush(30).delivered == 20
    assert stored(sandbox) == collections.Counter(ids(*range(1, 21)))


LOST: dict[str, Callable[[Any], None]] = {
    "cut": lambda faults: faults.cut(store=True),
    "cut in the body": lambda faults: faults.cut_midbody(),
    "504": lambda faults: faults.status(504, store=True),
    "a proxy's page": lambda faults: faults.not_json(store=True),
    "counts that can't be": lambda faults: faults.wrong_counts(-1),
}


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST)
def test_a_lost_answer_stores_nothing_twice(
    lose: Callable[[Any], None], sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(**FULL_BATCHES)
    lose(sandbox.faults)
    submit(relay, *[row(n, task=TASK) for n in range(1, 51)])
    assert relay.flush(30).delivered == 50
    assert stored(sandbox) == collections.Counter(ids(*range(1, 51)))


def test_a_lost_answer_and_a_question_that_fails_at_first(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(**FULL_BATCHES)
    sandbox.faults.cut(store=True)
    sandbox.faults.status(503, times=2, routes=["spans"])
    submit(relay, *[row(n, task=TASK) for n in range(1, 6)])
    assert relay.flush(30).delivered == 5
    assert stored(sandbox) == collections.Counter(ids(*range(1, 6)))


def test_a_lost_request_is_sent_again(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(**FULL_BATCHES)
    sandbox.faults.cut()
    submit(relay, *[row(n, task=TASK) for n in range(1, 6)])
    assert relay.flush(30).delivered == 5
    assert stored(sandbox) == collections.Counter(ids(*range(1, 6)))


def test_a_key_that_may_not_read_delivers_at_least_once(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(key=WRITE_KEY, **FULL_BATCHES)
    sandbox.faults.cut(store=True)
    submit(relay, *[row(n, task=TASK) for n in range(1, 6)])
    assert relay.flush(30).delivered == 5
    assert set(stored(sandbox).values()) == {2}


def test_of_what_an_earlier_process_left_only_the_rest_is_sent(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    first = make_relay(**FULL_BATCHES)
    submit(first, *[row(n, task=TASK) for n in range(1, 4)])
    assert first.flush(30).delivered == 3
    second = make_relay(**FULL_BATCHES)
    for number in range(1, 7):
        left = row(number, task=TASK)
        left.history = History(attempts=1)
        submit(second, left)
    assert second.flush(30).delivered == 6
    assert stored(sandbox) == collections.Counter(ids(*range(1, 7)))


def test_rows_that_were_never_sent_are_not_asked_about(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(**FULL_BATCHES)
    submit(relay, *[row(n, task=TASK) for n in range(1, 51)])
    assert relay.flush(30).delivered == 50
    assert [(r.method, r.path) for r in sandbox.requests] == [("POST", "/api/v1/traces")]


def test_feedback_waits_for_its_trace(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay()
    submit(relay, feedback(1, task=TASK, body=GOOD))
    assert relay.flush(0.3).pending == 1, "another process may have the trace"
    submit(relay, row(1, task=TASK))
    assert relay.flush(30).delivered == 2
    assert sandbox.traces[0]["annotations"][0]["annotation_score"] == 1


def test_feedback_is_sent_after_the_root_that_is_on_its_way(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay()
    sandbox.faults.slow(0.2, times=1)
    submit(relay, row(1, task=TASK), feedback(1, task=TASK, body=GOOD))
    assert relay.flush(30).delivered == 2
    annotations = [r for r in sandbox.requests if r.path.endswith("/annotations")]
    assert [request.status for request in annotations] == [200]


def test_a_key_that_is_refused_costs_no_row(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(key="later")
    submit(relay, *[row(n, task=TASK) for n in range(1, 6)])
    assert relay.flush(0.3).pending == 5
    sandbox.engine_keys["later"] = sandbox.engine_keys[sandbox.api_key]
    assert relay.flush(30).delivered == 5
