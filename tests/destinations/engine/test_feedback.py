"""The last word of a user wins, whatever is sent again, and in whatever order."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import orjson
import pytest

from arthur_relay.destinations.engine.feedback import (
    MOST_TRACES,
    NewestFeedback,
    feedback_body,
    read_feedback,
)
from arthur_relay.row import DELIVERED, Row, Verdict
from tests.waiting import wait_for

from .conftest import TASK, destination
from .spans import TRACE, batch, feedback, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay import Relay
    from arthur_relay.sandbox import ArthurSandbox


def given(score: int, known_at: float) -> Row:
    values = {"annotation_score": score, "annotation_description": f"said at {known_at}"}
    return feedback(1, task=TASK, body=feedback_body(values, known_at))


def delivered(sandbox: ArthurSandbox, *batches: tuple[Row, ...]) -> list[Any]:
    """The outcomes of batches, one after the other, once the Engine has their trace."""

    async def deliver() -> list[Any]:
        async with destination(sandbox) as engine:
            await engine.deliver(batch(row(1, task=TASK)))
            return [(await engine.deliver(batch(*rows))).outcomes for rows in batches]

    return anyio.run(deliver)


def requests_of(sandbox: ArthurSandbox) -> list[Any]:
    return [r for r in sandbox.requests if r.path.endswith("/annotations")]


@pytest.mark.parametrize("together", [True, False])
def test_an_older_one_that_comes_later_replaces_nothing(
    together: bool, sandbox: ArthurSandbox
) -> None:
    newer, older = given(0, 2.0), given(1, 1.0)
    batches = [(newer, older)] if together else [(newer,), (older,)]
    outcomes = [each for found in delivered(sandbox, *batches) for each in found]
    assert outcomes == [DELIVERED, DELIVERED]
    assert len(requests_of(sandbox)) == 1
    (told,) = sandbox.traces[0]["annotations"]
    assert (told["annotation_score"], told["annotation_description"]) == (0, "said at 2.0")


def test_of_one_moment_the_later_one_wins(sandbox: ArthurSandbox) -> None:
    delivered(sandbox, (given(1, 1.0),), (given(0, 1.0),))
    assert sandbox.traces[0]["annotations"][0]["annotation_score"] == 0


def test_one_that_failed_settles_nothing(sandbox: ArthurSandbox) -> None:
    async def deliver() -> Any:
        async with destination(sandbox) as engine:
            newer = (await engine.deliver(batch(given(0, 2.0)))).outcomes
            await engine.deliver(batch(row(1, task=TASK)))
            older = (await engine.deliver(batch(given(1, 1.0)))).outcomes
            again = (await engine.deliver(batch(given(0, 2.0)))).outcomes
            return newer, older, again

    newer, older, again = anyio.run(deliver)
    assert newer[0].verdict is Verdict.NOT_YET
    assert older == again == (DELIVERED,)
    assert sandbox.traces[0]["annotations"][0]["annotation_score"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_in_any_order_of_batches(seed: int, sandbox: ArthurSandbox) -> None:
    rows = [given(number % 2, float(number)) for number in range(8)]
    random.Random(seed).shuffle(rows)
    delivered(sandbox, *[(each,) for each in rows])
    assert sandbox.traces[0]["annotations"][0]["annotation_description"] == "said at 7.0"


def test_the_time_is_not_sent(sandbox: ArthurSandbox) -> None:
    delivered(sandbox, (given(1, 1.0),))
    (request,) = requests_of(sandbox)
    assert orjson.loads(request.body) == {
        "annotation_score": 1,
        "annotation_description": "said at 1.0",
    }


@pytest.mark.parametrize("body", [b"[]", b"no JSON", b'{"annotation_score": 1}', b"\xff", b"1"])
def test_a_body_without_a_time_is_sent_as_it_is(body: bytes) -> None:
    assert read_feedback(body) == (body, None)


@pytest.mark.parametrize("time", [b'"now"', b"null", b"true", b"[]"])
def test_a_time_that_is_none_is_not_sent(time: bytes) -> None:
    assert read_feedback(b'{"known_at": %s}' % time) == (b"{}", None)


def test_what_is_remembered_is_bounded() -> None:
    words = NewestFeedback()
    for number in range(MOST_TRACES + 1):
        words.sent(str(number), 2.0)
    assert not words.is_outdated("0", 1.0)
    assert words.is_outdated("1", 1.0)
    assert not words.is_outdated("1", None)


def test_a_handlers_feedback_says_when_it_was_given(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    """The first one fails, and nearly always waits for longer than the second one needs."""
    relay = make_relay(retry_initial_seconds=5.0, retry_max_seconds=5.0)
    run_id = UUID(TRACE)
    anyio.run(_store, sandbox)
    sandbox.faults.status(503, times=1, routes=["annotations"])
    relay.log_feedback(run_id, True, "at first", model_id=TASK)
    wait_for(lambda: any(each.path.endswith("/annotations") for each in sandbox.requests))
    relay.log_feedback(run_id, False, "at last", model_id=TASK)
    assert relay.flush(30).delivered == 2
    assert sandbox.traces[0]["annotations"][0]["annotation_description"] == "at last"


async def _store(sandbox: ArthurSandbox) -> None:
    async with destination(sandbox) as engine:
        await engine.deliver(batch(row(1, task=TASK)))
