"""What is remembered of spans that came lately. Pure."""

from __future__ import annotations

from arthur_relay.daemon.known_spans import KnownSpans, KnownTrace
from arthur_relay.row import Row
from tests.destinations.engine.spans import TRACE, row, row_id

TASK = "b0d9ad8e-6d2c-4a6e-9f39-7fe6bc9d6c39"


def some(*numbers: int) -> list[Row]:
    return [row(number, task=TASK) for number in numbers]


def test_the_same_bytes_are_known_and_others_are_not() -> None:
    known = KnownSpans()
    known.add(some(1, 2), ())
    other = row(2, task=TASK, name="another")
    of_other_task = row(1, task="a bot")
    new = some(3)
    assert known.without_known([*some(1, 2), other, of_other_task, *new]) == [
        other,
        of_other_task,
        *new,
    ]
    assert known.task_of(row_id(1)) == TASK
    assert known.task_of(row_id(7)) is None
    assert known.with_span_ids([f"{2:016x}", f"{7:016x}"]) == [row_id(2)]


def test_a_trace_ends_with_its_root_or_what_came_last() -> None:
    known = KnownSpans()
    one, root, last = some(1, 2, 3)
    known.add([one], ())
    assert known.trace(TRACE) == KnownTrace(TASK, one.id, has_root=False)
    known.add([root], {root})
    known.add([last], ())
    assert known.trace(TRACE) == KnownTrace(TASK, root.id, has_root=True)
    assert known.trace("7" * 32) is None


def test_what_is_remembered_is_bounded() -> None:
    known = KnownSpans(most=3)
    for number in range(1, 10):
        made = row(number, task=TASK, trace=f"{number:032x}")
        known.add([made], {made})
    assert [known.trace(f"{number:032x}") is None for number in (6, 7, 8, 9)] == [
        True,
        False,
        False,
        False,
    ]
    assert known.without_known(some(1)) != []


def test_spans_that_are_on_their_way_are_known_to_be() -> None:
    known = KnownSpans()
    with known.on_their_way(some(1, 2)) as first:
        with known.on_their_way(some(2, 3)) as second:
            pass
        with known.on_their_way(some(3)) as third:
            pass
    with known.on_their_way(some(1)) as last:
        pass
    assert [first, second, third, last] == [False, True, False, False]
