"""gunicorn, Celery and eventlet's server, where threads are greenlets: all is delivered."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.hosts import recipes
from tests.hosts.notes import log_in
from tests.hosts.programs import wait_until
from tests.hosts.test_gunicorn import BOUND, log_before_and_after_a_reload, port_of

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.hosts.notes import Notes
    from tests.hosts.programs import Programs

CELERY = (sys.executable, "-m", "celery", "--app=tests.hosts.tasks:application", "worker")
QUIET = ("--without-mingle", "--without-gossip", "--without-heartbeat", "--loglevel=INFO")

OF_GUNICORN = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(f"gunicorn.workers.{module}") is None,
            reason=f"this gunicorn has no {name} worker",
        ),
    )
    for name, module in (("gevent", "ggevent"), ("eventlet", "geventlet"))
]


@pytest.mark.parametrize("preloaded", [False, True])
@pytest.mark.parametrize("kind", OF_GUNICORN)
def test_gunicorns_workers_deliver_at_a_reload_and_at_a_stop(
    kind: str, preloaded: bool, programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    # Without --preload all is patched before the application is imported, with it afterwards,
    # in each worker, which uses then what it has of the master.
    words = recipes.program("gevent", *BOUND, *(["--preload"] if preloaded else []))
    assert recipes.HOSTED["wsgi:application"] in words
    replaced = {
        "--worker-class=gevent": f"--worker-class={kind}",
        recipes.HOSTED["wsgi:application"]: "tests.hosts.green:application",
    }
    program = programs.start(*(replaced.get(word, word) for word in words))
    log_before_and_after_a_reload(program, notes, sandbox)
    assert "/arthur_relay/" not in program.printed  # no traceback of ours
    notes.check(sandbox)


@pytest.mark.parametrize("kind", ["gevent", "eventlet"])
def test_celerys_pools_deliver_at_a_warm_shutdown(
    kind: str, programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    worker = programs.start(*CELERY, f"--pool={kind}", "--concurrency=4", *QUIET, HOSTED_GREEN="1")
    worker.wait_for(r"ready\.")
    sender = programs.start(sys.executable, "-m", "tests.hosts.tasks", "8")
    assert sender.end().status == 0, sender.printed
    wait_until(lambda: sum(map(len, notes.captured().values())) == 16)
    worker.signal(signal.SIGTERM)
    assert worker.end().status == 0, worker.printed
    assert "/arthur_relay/" not in worker.printed
    assert notes.captured().keys() == {str(worker.process.pid)}
    notes.check(sandbox)


EVENTLETS_SERVER = """
import eventlet
eventlet.monkey_patch()
import signal, sys
import eventlet.wsgi
from tests.hosts.green import application

listener = eventlet.listen(("127.0.0.1", 0))
print(f"Listening at: http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
eventlet.wsgi.server(listener, application)
"""


def test_eventlets_server_delivers_at_a_stop(
    programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    program = programs.start(sys.executable, "-c", EVENTLETS_SERVER)
    [pid] = log_in(port_of(program), 1)
    assert pid == program.process.pid != os.getpid()
    program.signal(signal.SIGTERM)
    assert program.end().status == 0, program.printed
    notes.check(sandbox)
