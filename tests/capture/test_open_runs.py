"""Open runs: bounded, each one run, and safe in any thread."""

from __future__ import annotations

from uuid import UUID

from arthur_relay.capture.open_runs import OpenRuns
from arthur_relay.inference import Run, RunOutcome
from tests.threads import THREADS, in_threads


def _run(key: int, size: int = 10, started_at: float = 0.0) -> Run:
    return Run(
        key=key,
        run_id=UUID(int=key),
        model_id="m",
        prompt="p",
        size=size,
        started_at=started_at,
    )


def test_open_runs_are_bounded_by_count_bytes_and_age() -> None:
    given_up: list[Run] = []
    runs = OpenRuns(max_runs=3, max_bytes=100, give_up=given_up.append)
    for key in range(5):
        runs.begin(_run(key))
    assert [run.key for run in given_up] == [0, 1]
    assert len(runs) == 3
    runs.begin(_run(9, size=500))  # one may go beyond, and the next makes room
    runs.begin(_run(10))
    assert runs.size <= 100
    assert {run.outcome for run in given_up} == {RunOutcome.ABANDONED}
    runs.begin(_run(11, started_at=100.0))
    runs.sweep(started_before=50.0)
    assert [runs.end(key) is not None for key in (10, 11, 11)] == [False, True, False]
    assert runs.size == 0
    runs.begin(_run(12))
    runs.abandon_all()
    assert len(runs) == 0
    runs.begin(_run(13))
    runs.clear()
    assert (len(runs), runs.size) == (0, 0)


def test_a_run_that_begins_twice_is_one_run() -> None:
    runs = OpenRuns(max_runs=10, max_bytes=1000, give_up=lambda _run: None)
    first, second = _run(1, size=30), _run(1, size=50)
    runs.begin(first)
    runs.begin(second)
    assert (len(runs), runs.size) == (1, 50)
    assert runs.find(1) is runs.end(1) is second


def test_open_runs_survive_threads() -> None:
    given_up: list[Run] = []
    runs = OpenRuns(max_runs=50, max_bytes=10**9, give_up=given_up.append)
    ended: list[Run] = []

    def work(thread: int) -> None:
        for number in range(500):
            key = thread * 1_000 + number
            runs.begin(_run(key))
            if number % 2 and (run := runs.end(key)) is not None:
                ended.append(run)

    in_threads(work)
    runs.abandon_all()
    keys = [run.key for run in given_up + ended]
    assert len(keys) == len(set(keys)) == THREADS * 500
    assert len(runs) == 0
