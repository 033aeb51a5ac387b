"""gunicorn: sync and uvicorn workers, with and without --preload; stops, reloads, time-outs."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx

from tests.hosts import recipes
from tests.hosts.notes import Notes, log, log_in
from tests.hosts.programs import wait_until

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.hosts.programs import Program, Programs

BOUND = ("--bind=127.0.0.1:0", "--no-control-socket")
GUNICORN = (sys.executable, "-m", "gunicorn", *BOUND)
LISTENS = r"Listening at: http://127.0.0.1:(\d+)"


def port_of(program: Program) -> str:
    return program.wait_for(LISTENS)[1]


def log_before_and_after_a_reload(
    program: Program, notes: Notes, sandbox: ArthurSandbox
) -> set[int]:
    """Have two workers log, again after a reload, and end all; returns the workers' pids."""
    port = port_of(program)
    first = log_in(port, 2)
    assert sandbox.inferences == []  # nothing leaves but by an exit's flush
    program.signal(signal.SIGHUP)
    notes.wait_for(*first)
    second = log_in(port, 2)
    assert not first & second
    program.signal(signal.SIGTERM)
    assert program.end().status == 0, program.printed
    return {*first, *second}


def test_preloaded_workers_send_their_own_at_a_reload_and_at_a_stop(
    programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    # The relay is made in the master, which logs too: three inferences wait there when it forks.
    program = programs.start(
        *recipes.program("gunicorn", *BOUND),
        HOSTED_LOGS_AT_IMPORT="3",
    )
    pids = log_before_and_after_a_reload(program, notes, sandbox) | {program.process.pid}
    assert notes.reports().keys() == {str(pid) for pid in pids}
    assert notes.reports()[str(program.process.pid)]["delivered"] == 3
    notes.check(sandbox)


def test_a_worker_that_is_recycled_times_out_or_is_killed(
    programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    program = programs.start(
        *GUNICORN,
        "--workers=1",
        "--max-requests=2",
        "--timeout=2",
        "tests.hosts.wsgi:application",
        ARTHUR_RELAY_SPOOL_DIR=str(notes.directory / "spool"),
    )
    port = port_of(program)
    # Recycled after two requests: it exits as usual.
    [recycled] = {log(port), log(port)}
    notes.wait_for(recycled)
    assert notes.reports()[str(recycled)]["delivered"] == 2
    # A request that never ends: SIGABRT, which gunicorn makes an exit of, and a second later
    # SIGKILL. The flush has that second.
    with suppress(httpx.HTTPError):  # whatever a client sees of it
        log(port, "/hang")
    wait_until(lambda: len(notes.reports()) == 2)
    [aborted] = notes.captured().keys() - {str(recycled)}
    assert notes.reports()[aborted]["delivered"] == 1
    # SIGKILL, of the time-out or for want of memory: what the spool has, the next one delivers.
    killed = log(port, "/safe")
    os.kill(killed, signal.SIGKILL)
    successor = log(port)
    assert successor not in {recycled, killed}
    program.signal(signal.SIGTERM)
    assert program.end().status == 0, program.printed
    assert notes.reports()[str(successor)]["delivered"] == 2
    assert str(killed) not in notes.reports()
    notes.check(sandbox, killed=[killed])


def test_uvicorn_workers_flush_by_their_lifespan(
    programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    program = programs.start(
        *recipes.program("gunicorn with uvicorn", *BOUND),
        HOSTED_LOGS_AT_IMPORT="3",
    )
    workers = log_in(port_of(program), 2)
    program.signal(signal.SIGTERM)
    assert program.end().status == 0, program.printed
    assert notes.captured().keys() == {str(pid) for pid in {*workers, program.process.pid}}
    notes.check(sandbox)
