"""Celery's prefork pool: children that are forked early, recycled, and end by `os._exit`.

The broker here is of files, for which Celery recycles children in a side thread (billiard's
`Supervisor`). The kernel kills what that thread has forked when the thread ends (Celery has set
`PR_SET_PDEATHSIG`), which is at the beginning of a warm shutdown. With Redis or RabbitMQ the main
thread forks, and a warm shutdown waits for all children.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from tests.hosts import recipes
from tests.hosts.notes import Notes
from tests.hosts.programs import wait_until

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.hosts.programs import Program, Programs

QUIET = ("--without-mingle", "--without-gossip", "--without-heartbeat")


def start(programs: Programs, *options: str) -> Program:
    """Start Celery. Its parent makes the relay, where three inferences wait at the forks."""
    worker = programs.start(*recipes.program("celery", *QUIET, *options), HOSTED_LOGS_AT_IMPORT="3")
    worker.wait_for(r"ready\.")
    return worker


def send(programs: Programs, notes: Notes, tasks: int) -> None:
    """Have tasks done."""
    sender = programs.start(sys.executable, "-m", "tests.hosts.tasks", str(tasks))
    assert sender.end().status == 0, sender.printed
    wait_until(lambda: sum(map(len, notes.captured().values())) == tasks + 3)


def shut_down(worker: Program, notes: Notes) -> None:
    """End Celery as its users do."""
    worker.signal(signal.SIGTERM)
    assert worker.end().status == 0, worker.printed
    assert notes.reports()[str(worker.process.pid)]["delivered"] == 3


def test_children_flush_when_they_are_recycled(
    programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    worker = start(programs, "--loglevel=INFO", "--concurrency=1", "--max-tasks-per-child=3")
    send(programs, notes, 6)
    wait_until(lambda: len(notes.reports()) == 2)  # by now a third one has come, without a task
    shut_down(worker, notes)
    assert [len(ids) for ids in notes.captured().values()] == [3, 3, 3]
    notes.check(sandbox)


def test_children_flush_at_a_warm_shutdown(
    programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    worker = start(programs, "--loglevel=INFO", "--concurrency=2")
    send(programs, notes, 8)
    shut_down(worker, notes)
    notes.check(sandbox)
