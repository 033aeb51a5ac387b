"""Celery's prefork pool: children that are forked early, recycled, and end by `os._exit`."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from tests.hosts.notes import Notes
from tests.hosts.programs import wait_until

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.hosts.programs import Programs

CELERY = (sys.executable, "-m", "celery", "--app=tests.hosts.tasks:application")
WORKER = ("worker", "--pool=prefork", "--concurrency=2", "--without-mingle", "--without-gossip")


def test_children_flush_when_they_are_recycled_and_at_a_warm_shutdown(
    programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    # The tasks' module makes the relay in the parent, where three inferences wait at the fork.
    worker = programs.start(
        *CELERY,
        *WORKER,
        "--without-heartbeat",
        "--loglevel=DEBUG",
        "--max-tasks-per-child=3",
        HOSTED_LOGS_AT_IMPORT="3",
    )
    worker.wait_for(r"ready\.")
    sender = programs.start(sys.executable, "-m", "tests.hosts.tasks", "8")
    assert sender.end().status == 0, sender.printed
    wait_until(lambda: sum(map(len, notes.captured().values())) == 8 + 3)
    wait_until(lambda: len(notes.reports()) >= 1)  # one has had its three tasks
    worker.signal(signal.SIGTERM)
    assert worker.end().status == 0, worker.printed
    reports = notes.reports()
    assert reports[str(worker.process.pid)]["delivered"] == 3
    assert max(len(ids) for ids in notes.captured().values()) == 3
    notes.check(sandbox)
