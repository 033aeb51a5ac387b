"""uWSGI: it forks behind Python's back, unless told not to."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.hosts.notes import Notes, log_in
from tests.hosts.programs import wait_until

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.hosts.programs import Programs

# Built with the Python that runs the tests.
UWSGI = os.environ.get("TESTS_UWSGI") or shutil.which("uwsgi", path=Path(sys.executable).parent)

pytestmark = pytest.mark.skipif(
    UWSGI is None and "TESTS_NEED_UWSGI" not in os.environ,
    reason="needs uwsgi in this environment (pip install uwsgi, which takes a C compiler)",
)

OPTIONS = ("--http-socket=127.0.0.1:0", "--master", "--need-app", "--die-on-term")
HOME = f"--home={sys.prefix}"
BOUND = r"bound to TCP address 127.0.0.1:(\d+)"


# With neither, uWSGI forks without the interpreter's lock: when a thread of the master has it just
# then, the worker waits for it for ever, before any Python runs. test_forks.py has a fork that goes
# round the hooks.
@pytest.mark.parametrize("option", ["--py-call-uwsgi-fork-hooks", "--lazy-apps"])
def test_workers_send_their_own(
    option: str, programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    assert UWSGI is not None
    is_lazy = option == "--lazy-apps"
    program = programs.start(
        UWSGI,
        *(*OPTIONS, HOME, "--enable-threads", "--processes=2", option),
        "--module=tests.hosts.wsgi:application",
        HOSTED_LOGS_AT_IMPORT="0" if is_lazy else "3",
        # uWSGI's master runs no exit hooks at all: what it logs has to leave while it lives.
        ARTHUR_RELAY_FLUSH_INTERVAL_SECONDS="0.2",
    )
    port = program.wait_for(BOUND)[1]
    masters = set() if is_lazy else {program.process.pid}
    wait_until(lambda: len(sandbox.inferences) == 3 * len(masters))
    workers = log_in(port, 2)
    killed = workers.pop()
    os.kill(killed, signal.SIGTERM)  # a worker that ends is forked anew
    notes.wait_for(killed)
    workers |= log_in(port, 2)
    program.signal(signal.SIGTERM)
    program.end()
    assert notes.captured().keys() == {str(pid) for pid in workers | masters | {killed}}
    notes.check(sandbox, silent=masters)
