"""Spans of a task that the Engine was never asked for: safe on disk, and delivered to the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arthur_relay import Relay, RelaySettings
from arthur_relay.inference import Inference
from tests.waiting import wait_for

from .conftest import QUICK, TASK, destination

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

NAME = "my-chatbot"
SPANS = 30


def relay_to(sandbox: ArthurSandbox, spool: Path, *, task: str) -> Relay:
    settings = RelaySettings(**QUICK, spool_dir=spool)
    return Relay(destination(sandbox), model_id=task, settings=settings)


def left_by_a_first_start(sandbox: ArthurSandbox, spool: Path, *, task: str) -> None:
    """Capture while the Engine is away, until everything is where a killed process leaves it."""
    sandbox.go_away()
    relay = relay_to(sandbox, spool, task=task)
    for number in range(SPANS):
        relay.capture(Inference(input_text=f"q{number}", output_text="a"))
    wait_for(lambda: relay.stats().spooled == SPANS)
    assert relay.close(timeout=0.0).pending == SPANS
    sandbox.come_back()


@pytest.mark.parametrize("first", ["by id", "by name"])
@pytest.mark.parametrize("second", ["by id", "by name", "another task"])
def test_what_was_never_asked_for_survives_and_arrives(
    first: str, second: str, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    task_id = sandbox.add_task(NAME)
    names = {"by id": task_id, "by name": NAME, "another task": "another"}
    left_by_a_first_start(sandbox, tmp_path, task=names[first])
    with relay_to(sandbox, tmp_path, task=names[second]) as relay:
        result = relay.flush(20)
    assert (result.delivered, result.pending) == (SPANS, 0), "a flush waits for them"
    assert [span["task_id"] for span in sandbox.spans] == [task_id] * SPANS


def test_a_name_that_no_task_has_makes_one(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    left_by_a_first_start(sandbox, tmp_path, task="new")
    with relay_to(sandbox, tmp_path, task="new") as relay:
        assert relay.flush(20).delivered == SPANS
    assert len({span["task_id"] for span in sandbox.spans} - {TASK}) == 1


def test_a_name_of_several_tasks_is_a_dead_letter(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    left_by_a_first_start(sandbox, tmp_path, task=NAME)
    sandbox.add_task(NAME)
    sandbox.add_task(NAME)
    with relay_to(sandbox, tmp_path, task=TASK) as relay:
        result = relay.flush(20)
        reasons = {letter.reason for letter in relay.dead_letters()}
    assert (result.rejected, result.pending) == (SPANS, 0)
    assert reasons == {"several tasks of the name"}


def test_without_a_restart(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    """The same spans go to one task, before and after the Engine has answered."""
    task_id = sandbox.add_task(NAME)
    sandbox.go_away()
    with relay_to(sandbox, tmp_path, task=NAME) as relay:
        relay.capture(Inference(input_text="before", output_text="a"))
        wait_for(lambda: relay.stats().spooled == 1)
        sandbox.come_back()
        assert relay.flush(20).delivered == 1
        relay.capture(Inference(input_text="after", output_text="a"))
        assert relay.flush(20).delivered == 2
    assert [span["task_id"] for span in sandbox.spans] == [task_id] * 2


def test_an_id_that_no_task_has_is_a_dead_letter(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    nobodys = "00000000-1111-4222-8333-444444444444"
    left_by_a_first_start(sandbox, tmp_path, task=nobodys)
    with relay_to(sandbox, tmp_path, task=TASK) as relay:
        assert relay.flush(20).rejected == SPANS
    assert sandbox.spans == []
