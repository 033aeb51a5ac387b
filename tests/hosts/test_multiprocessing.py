"""multiprocessing: single processes are in tests/process/test_exit.py; here are its pools.

A pool's processes flush when they end by themselves. `Pool.terminate`, which leaving `with Pool()`
calls, and `os._exit` end a process without any exit hook: what it had in memory is lost unless it
called `flush()`; what it had in a spool is delivered by whoever is left.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.hosts.notes import Notes

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox
    from tests.hosts.programs import Programs

POOLS = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.util import Finalize
from tests.hosts import hosted  # under fork, the children have the parent's handler

def work(_number):
    if multiprocessing.parent_process() is not None:  # no `atexit` callbacks run here
        Finalize(None, hosted.report, exitpriority=50)
    hosted.log()
    return os.getpid()

def safe(_number):
    pid = work(0)
    while (stats := hosted.handler.relay.stats()).spooled < stats.pending:
        pass
    return pid

def leave(_number):
    safe(0)
    os._exit(0)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    hosted.log()
    {body}
"""

ENDS_BY_ITSELF = """
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        pids = set(executor.map(work, range(3)))
    pool = context.Pool(1, maxtasksperchild=2)  # two processes, one after the other
    pids |= set(pool.map(work, range(3), chunksize=1))
    pool.close()
    pool.join()
    assert len(pids) == 3
"""

IS_ENDED = """
    with context.Pool(1) as pool:
        print("killed", pool.apply(safe, (0,)))
    process = context.Process(target=leave, args=(0,))
    process.start()
    process.join()
    print("killed", process.pid)
    # The next one to start finds what they have left.
    process = context.Process(target=work, args=(0,))
    process.start()
    process.join()
"""


def run(programs: Programs, notes: Notes, body: str, method: str, **environment: str) -> list[str]:
    script = notes.directory / "script.py"
    script.write_text(POOLS.replace("    {body}\n", body), encoding="utf-8")
    program = programs.start(sys.executable, str(script), method, **environment)
    assert program.end().status == 0, program.printed
    lines = program.printed.splitlines()
    return [line.split()[1] for line in lines if line.startswith("killed")]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_that_end_by_themselves_flush(
    method: str, programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    run(programs, notes, ENDS_BY_ITSELF, method)
    notes.check(sandbox)


def test_what_a_terminated_process_left_in_the_spool_is_delivered(
    programs: Programs, notes: Notes, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    spool = str(tmp_path / "spool")
    killed = run(programs, notes, IS_ENDED, "fork", ARTHUR_RELAY_SPOOL_DIR=spool)
    assert len(killed) == 2
    notes.check(sandbox, killed=killed)
