"""uWSGI 2.0.31: it forks behind Python's back, unless told not to; not every end runs exit hooks.

What is said of it here was read in its source, and seen in stack dumps.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.hosts import recipes
from tests.hosts.notes import Notes, log, log_in
from tests.hosts.programs import wait_until

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.hosts.programs import Program, Programs

# Built with the Python that runs the tests.
UWSGI = os.environ.get("TESTS_UWSGI") or shutil.which("uwsgi", path=Path(sys.executable).parent)

pytestmark = pytest.mark.skipif(
    UWSGI is None and "TESTS_NEED_UWSGI" not in os.environ,
    reason="needs uwsgi in this environment (pip install uwsgi, which takes a C compiler)",
)

BOUND = r"bound to TCP address 127.0.0.1:(\d+)"
RESPAWNED = r"Respawned uWSGI worker \d+ \(new pid: (\d+)\)"


def start(programs: Programs, options: dict[str, str | None], **environment: str) -> Program:
    """Start uWSGI with the page's options, but for these.

    SIGTERM lets requests end there. With --die-on-term it is `kill_them_all`, which does not: that
    sends the workers SIGINT, of which see the second test.
    """
    assert UWSGI is not None
    return programs.start(
        UWSGI,
        *recipes.uwsgi({"home": sys.prefix, **options}),
        # uWSGI's master runs no exit hooks at all: what it logs has to leave while it lives.
        ARTHUR_RELAY_FLUSH_INTERVAL_SECONDS="0.2",
        **environment,
    )


LAZY: dict[str, str | None] = {"lazy-apps": "true", "py-call-uwsgi-fork-hooks": None}


# With neither, uWSGI lets go of the interpreter's lock before it forks and takes it in the worker,
# both in `uwsgi_python_master_fixup`. When a thread of the master has it at the fork, no one is
# there to give it back, and the worker waits before any Python runs. `py-call-osafterfork` does not
# help: what makes the lock anew is called later, in `uwsgi_python_post_fork`. The fork hooks take
# it before the fork, in `uwsgi_python_pre_uwsgi_fork`. With `lazy-apps` the master loads no
# application, so it has no thread of one. test_forks.py has a fork that goes round the hooks.
@pytest.mark.parametrize("is_lazy", [False, True])
def test_workers_send_their_own(
    is_lazy: bool, programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    program = start(
        programs,
        LAZY if is_lazy else {},
        HOSTED_LOGS_AT_IMPORT="0" if is_lazy else "3",
    )
    port = program.wait_for(BOUND)[1]
    masters = set() if is_lazy else {program.process.pid}
    wait_until(lambda: len(sandbox.inferences) == 3 * len(masters))
    workers = log_in(port, 2)
    ended = workers.pop()
    # Not SIGTERM: the worker may be in its request yet when the client has the answer.
    os.kill(ended, signal.SIGHUP)
    notes.wait_for(ended)
    # By the master's loop, so that SIGTERM has been hooked.
    workers.add(int(program.wait_for(RESPAWNED)[1]))
    assert log_in(port, 2) == workers
    program.signal(signal.SIGTERM)
    program.end()
    assert notes.captured().keys() == {str(pid) for pid in workers | masters | {ended}}
    notes.check(sandbox, silent=masters)


def test_a_worker_that_is_ended_in_a_request_runs_no_exit_hooks(
    programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    # `uwsgi_python_atexit` leaves at once when `uwsgi_worker_is_busy`, which a worker is until it
    # has written its log line (`uwsgi_close_request`), some time after the client has the answer.
    # SIGHUP (`gracefully_kill`) lets the request end first; SIGTERM and SIGINT (`end_me`) do not.
    program = start(programs, {"processes": "1", **LAZY})
    port = program.wait_for(BOUND)[1]
    with ThreadPoolExecutor(1) as threads:

        def hang() -> None:
            with suppress(httpx.HTTPError):  # its worker ends
                log(port, "/hang")

        hanging = threads.submit(hang)
        wait_until(lambda: len(sandbox.inferences) == 1)
        [ended] = notes.captured()
        os.kill(int(ended), signal.SIGTERM)
        hanging.result()
    successor = int(program.wait_for(RESPAWNED)[1])
    assert log(port) == successor
    program.signal(signal.SIGTERM)
    program.end()
    assert notes.reports().keys() == {str(successor)}
    notes.check(sandbox, silent={ended})
