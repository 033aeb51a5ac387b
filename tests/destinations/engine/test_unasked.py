"""With a spool, spans are safe before the Engine has ever answered, and reach the right task."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings
from arthur_relay.destinations.engine.named_tasks import MOST_TASKS, NamedTasks, with_task
from arthur_relay.destinations.engine.task import Task
from arthur_relay.inference import Inference
from tests.waiting import wait_for

from .conftest import KEY, QUICK, TASK
from .spans import row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

NAME = "my-chatbot"
NOBODYS = "00000000-1111-4222-8333-444444444444"


@pytest.fixture
def make(sandbox: ArthurSandbox, tmp_path: Path) -> Iterator[Callable[..., Relay]]:
    """Return a function that makes relays with one spool for a task; they are closed at the end."""
    made: list[Relay] = []

    def one(task: str) -> Relay:
        settings = RelaySettings(**QUICK, spool_dir=tmp_path / "spool")
        made.append(
            ArthurCallbackHandler.from_engine(
                task, base_url=sandbox.url, api_key=sandbox.api_key, settings=settings
            ).relay
        )
        return made[-1]

    yield one
    for relay in made:
        relay.close(5)


def capture(relay: Relay, task: str, count: int, prefix: str = "in") -> None:
    for number in range(count):
        relay.capture(Inference(input_text=f"{prefix} {number}", output_text="out", model_id=task))


def inputs(sandbox: ArthurSandbox) -> list[str]:
    return sorted(span["raw_data"]["attributes"]["input.value"] for span in sandbox.spans)


def tasks_of(sandbox: ArthurSandbox) -> set[str]:
    return {span["task_id"] for span in sandbox.spans}


@pytest.mark.parametrize("task", [TASK, NAME])
def test_spans_are_safe_before_the_engine_has_ever_answered(
    task: str, sandbox: ArthurSandbox, make: Callable[..., Relay]
) -> None:
    sandbox.go_away()
    relay = make(task)
    capture(relay, task, 20)
    wait_for(lambda: relay.stats().spooled == 20)
    sandbox.come_back()
    assert relay.flush(20).delivered == 20
    assert len(set(inputs(sandbox))) == 20


@pytest.mark.parametrize("later", [NAME, "its id"])
def test_what_a_killed_process_left_reaches_the_task_that_has_the_name(
    later: str, sandbox: ArthurSandbox, make: Callable[..., Relay], tmp_path: Path
) -> None:
    task_id = sandbox.add_task(NAME)
    sandbox.go_away()
    script = f"""
import os, signal, time
from arthur_relay import ArthurCallbackHandler, Inference, RelaySettings
settings = RelaySettings(spool_dir={str(tmp_path / "spool")!r})
relay = ArthurCallbackHandler.from_engine(
    {NAME!r}, base_url={sandbox.url!r}, api_key={KEY!r}, settings=settings
).relay
for number in range(30):
    text = f"old {{number}}"
    relay.capture(Inference(input_text=text, output_text="out", model_id={NAME!r}))
while relay.stats().spooled < 30:
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ARTHUR")},
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    sandbox.come_back()
    task = task_id if later == "its id" else NAME
    relay = make(task)
    capture(relay, task, 5, "new")
    relay.flush(20)
    wait_for(lambda: len(set(inputs(sandbox))) == 35)
    assert tasks_of(sandbox) == {task_id}
    assert relay.stats().rejected == 0


def test_a_name_that_no_task_has_makes_one(
    sandbox: ArthurSandbox, make: Callable[..., Relay]
) -> None:
    sandbox.go_away()
    relay = make("another one")
    capture(relay, "another one", 3)
    wait_for(lambda: relay.stats().spooled == 3)
    sandbox.come_back()
    assert relay.flush(20).delivered == 3
    (found,) = tasks_of(sandbox)
    assert found != sandbox.task_id


def test_a_name_that_two_tasks_have_rejects_what_was_made_for_it(
    sandbox: ArthurSandbox, make: Callable[..., Relay]
) -> None:
    for _ in range(2):
        sandbox.add_task(NAME)
    sandbox.go_away()
    relay = make(NAME)
    capture(relay, NAME, 3)
    wait_for(lambda: relay.stats().spooled == 3)
    sandbox.come_back()
    result = relay.flush(20)
    assert (result.delivered, result.rejected) == (0, 3)
    assert {letter.reason for letter in relay.dead_letters()} == {"several tasks of the name"}
    assert sandbox.spans == []


def test_an_id_that_no_task_has_rejects_what_was_made_for_it(
    sandbox: ArthurSandbox, make: Callable[..., Relay]
) -> None:
    sandbox.go_away()
    relay = make(NOBODYS)
    capture(relay, NOBODYS, 3)
    wait_for(lambda: relay.stats().spooled == 3)
    sandbox.come_back()
    result = relay.flush(20)
    assert (result.delivered, result.rejected) == (0, 3)


def test_spans_of_others_are_sent_as_they_came() -> None:
    known = Task(NAME, task_id=TASK)
    theirs = row(1, task=TASK).body
    assert with_task(theirs, known) == theirs
    assert with_task(b"no span at all", known) == b"no span at all"


def test_as_many_tasks_are_remembered_as_there_is_room_for() -> None:
    tasks = NamedTasks()
    for number in range(MOST_TASKS + 1):
        tasks.keep(Task(str(number), task_id=TASK))
    assert tasks.get("0") is None
    assert tasks.get("1") is not None
