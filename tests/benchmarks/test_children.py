"""Measuring processes: whatever becomes of one, the run goes on, and nothing is left behind."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.benchmarks.children import Child, ChildError, Deadline, environment


@contextmanager
def child_that(directory: Path, does: str, *, seconds: float = 60.0) -> Iterator[Child]:
    """A measuring process that is a shell script, which reads the command first."""
    script = directory / "python"
    script.write_text(f"#!/bin/sh\nread line\n{does}\n")
    script.chmod(0o755)
    with Child(str(script), peer="none", url="", deadline=Deadline(seconds)) as child:
        yield child


def was_killed(child: Child) -> bool:
    """Whether it is gone, and not by itself."""
    return child._process.poll() == -signal.SIGKILL


def test_an_answer_is_what_was_answered(tmp_path: Path) -> None:
    answer = json.dumps({"value": {"seconds": 1.5}})
    with child_that(tmp_path, f"echo '{answer}'") as child:
        assert child.ask("anything", 10) == {"seconds": 1.5}


def test_one_that_hangs_is_ended_in_time_and_says_so(tmp_path: Path) -> None:
    begun = time.monotonic()
    with (
        child_that(tmp_path, "exec sleep 60") as child,
        pytest.raises(ChildError, match="did not end within 1 s"),
    ):
        child.ask("anything", 1)
    assert time.monotonic() - begun < 10
    assert was_killed(child)


def test_one_that_dies_tells_its_status(tmp_path: Path) -> None:
    with (
        child_that(tmp_path, "exit 7") as child,
        pytest.raises(ChildError, match="ended with status 7"),
    ):
        child.ask("anything", 10)


def test_one_that_is_gone_says_so_again(tmp_path: Path) -> None:
    with child_that(tmp_path, "exit 7") as child:
        for _ in range(2):
            with pytest.raises(ChildError, match="status 7"):
                child.ask("anything", 10)


def test_one_that_could_not_says_why_and_goes_on(tmp_path: Path) -> None:
    answers = [json.dumps({"error": "not installed (langfuse)"}), json.dumps({"value": {}})]
    script = f"echo '{answers[0]}'\nread line\necho '{answers[1]}'"
    with child_that(tmp_path, script) as child:
        with pytest.raises(ChildError, match="not installed"):
            child.ask("open", 10)
        assert child.ask("anything", 10) == {}


def test_nothing_is_begun_when_the_whole_runs_time_is_over(tmp_path: Path) -> None:
    with (
        child_that(tmp_path, "exec sleep 60", seconds=0) as child,
        pytest.raises(ChildError, match="the time of the whole run was over"),
    ):
        child.ask("anything", 10)
    assert was_killed(child)


def test_one_that_does_not_exit_is_ended(tmp_path: Path) -> None:
    with child_that(tmp_path, "exec sleep 60") as child:
        assert child.leave(0.5) is None
    assert was_killed(child)


def test_one_that_exits_tells_how_long_it_took(tmp_path: Path) -> None:
    with child_that(tmp_path, "exit 0") as child:
        seconds = child.leave(10)
    assert seconds is not None
    assert 0 <= seconds < 10


def test_what_sets_a_peer_or_a_proxy_up_does_not_reach_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LANGSMITH_TRACING", "ARTHUR_API_KEY", "https_proxy", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "1")
    assert (
        environment()
        .keys()
        .isdisjoint(
            {"LANGSMITH_TRACING", "ARTHUR_API_KEY", "https_proxy", "PYTHONDONTWRITEBYTECODE"}
        )
    )
