"""Scripts whose threads are greenlets, of gevent or eventlet: the worker is a thread."""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.end_to_end.fronts import TlsFront
from tests.hosts.arrivals import arrived
from tests.process.scripts import preamble

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox
    from tests.hosts.programs import Program, Programs
    from tests.process.scripts import Ended

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()\n",
    "eventlet": "import eventlet; eventlet.monkey_patch()\n",
}
ORDERS = ("first", "after the import", "after a relay was made")

COUNTS = """
def counts(result):
    return result.delivered, result.pending, dict(result.dropped), result.timed_out

ticks = 0
waiting = []  # events of the worker's loop, each with the tick that sets it
def tick():
    global ticks
    while True:
        time.sleep(0.001)  # what other greenlets do meanwhile
        ticks += 1
        while waiting and waiting[0][0] <= ticks:
            _, loop, event = waiting.pop(0)
            loop.call_soon_threadsafe(event.set)

def capture(relay, *names):
    for name in names:
        relay.capture(Inference(input_text="p", output_text="a", inference_id=name))
"""

libraries = pytest.mark.parametrize("library", list(PATCHES))


def start(
    programs: Programs, library: str, body: str, *, order: str = "first", **settings: object
) -> Program:
    """Start a script that patches at some time."""
    before = preamble(body, settings) + COUNTS
    made = "relay = Relay.from_env(settings=settings)\n"
    patch = PATCHES[library]
    source = {
        ORDERS[0]: patch + before + made,
        ORDERS[1]: before + patch + made,
        ORDERS[2]: before + made + patch,
    }[order]
    return programs.start(sys.executable, "-W", "ignore", "-c", source + body)


def run(programs: Programs, library: str, body: str, **options: object) -> Ended:
    """Run a script to its end, which has to be a good one."""
    ended = start(programs, library, body, **options).end()  # type: ignore[arg-type] # settings
    assert ended.status == 0, ended.stdout
    assert "Exception ignored" not in ended.stdout
    return ended


@pytest.mark.parametrize("order", ORDERS)
@libraries
def test_asyncio_behaves_as_without_a_relay(
    library: str, order: str, programs: Programs, sandbox: ArthurSandbox
) -> None:
    run(
        programs,
        library,
        """
from asgiref.sync import async_to_sync

capture(relay, "i1")

def no_loop():
    try:
        return not asyncio.get_running_loop()
    except RuntimeError:
        return True

async def in_a_loop():
    await asyncio.sleep(0.01)  # so that the loop has waited for something
    second = Relay.from_env(settings=RelaySettings(batch_size=7))
    third = ArthurCallbackHandler.from_env(settings=RelaySettings(batch_size=8))
    await chat(third).ainvoke("prompt")
    capture(second, "i2")
    assert counts(await second.aflush()) == (1, 0, {}, False)
    assert counts(await third.aclose()) == (1, 0, {}, False)
    return second

def in_a_thread():
    assert no_loop()
    done.append(asyncio.run(in_a_loop()))
    assert no_loop()

done = []
assert no_loop()
greenlet = threading.Thread(target=in_a_thread)
greenlet.start()
greenlet.join()
[second] = done
assert async_to_sync(asyncio.sleep)(0.001, "slept") == "slept"
assert counts(relay.flush()) == (1, 0, {}, False)
assert async_to_sync(second.aflush)() == second.flush()
assert no_loop()
workers = {one._host.pipeline.runtime._thread.ident for one in (relay, second)}
assert len(workers) == 2
assert threading.get_ident() not in workers
""",
        order=order,
    )
    assert {"i1", "i2"} < set(arrived(sandbox))
    assert len(arrived(sandbox)) == 3
    assert sandbox.duplicates == 0


@libraries
def test_other_greenlets_go_on_while_one_waits_for_a_flush_or_a_close(
    library: str, programs: Programs, sandbox: ArthurSandbox
) -> None:
    # A destination that does not answer until so much has been done meanwhile: a wait that held
    # the thread would last for ever.
    run(
        programs,
        library,
        """
from contextlib import asynccontextmanager

threading.Thread(target=tick, daemon=True).start()
deliver = type(relay._host._destination).deliver

async def late(self, batch):
    gone_on = asyncio.Event()
    waiting.append((ticks + 20, asyncio.get_running_loop(), gone_on))
    await gone_on.wait()
    return await deliver(self, batch)

type(relay._host._destination).deliver = late
capture(relay, "i1")
assert counts(relay.flush(30)) == (1, 0, {}, False)

def streams(name):
    answer = "".join(chunk.content for chunk in model.stream("prompt"))
    assert answer == "answer"
    assert not relay.flush(30).timed_out
    streamed.append(name)

streamed = []
model = chat(ArthurCallbackHandler(relay=relay))
model.sleep = 0.002
greenlets = [threading.Thread(target=streams, args=(name,)) for name in range(5)]
for greenlet in greenlets:
    greenlet.start()
assert not relay.flush(30).timed_out
for greenlet in greenlets:
    greenlet.join()
assert len(streamed) == 5

for wanted in ("i2", "i3"):
    capture(relay, wanted)
    result = relay.flush(0)
    assert result.timed_out and result.pending, result
    assert not relay.flush(30).timed_out
capture(relay, "i4")
assert counts(relay.close(30)) == (9, 0, {}, False)
""",
    )
    assert len(arrived(sandbox)) == 9
    assert sandbox.duplicates == 0


@libraries
def test_all_is_delivered_at_the_end_of_a_script(
    library: str, programs: Programs, sandbox: ArthurSandbox
) -> None:
    run(
        programs,
        library,
        """
def capture_some(number):
    capture(relay, *(f"{number}-{i}" for i in range(50)))

greenlets = [threading.Thread(target=capture_some, args=(number,)) for number in range(4)]
for greenlet in greenlets:
    greenlet.start()
for greenlet in greenlets:
    greenlet.join()
""",
        spool_dir="spool",
    )
    assert len(arrived(sandbox)) == 200
    assert sandbox.duplicates == 0


@libraries
def test_the_worker_has_no_loop_of_the_librarys(
    library: str, programs: Programs, sandbox: ArthurSandbox
) -> None:
    # A lock, a sleep or a socket of the library's would make one in its thread, and then wait, or
    # be closed, by a loop that nobody runs.
    run(
        programs,
        library,
        """
found = []

def look():
    if "gevent" in sys.modules:
        from gevent._hub_local import get_hub_if_exists
        found.append(get_hub_if_exists() is None)
    else:
        from eventlet.hubs import _threadlocal
        found.append(not hasattr(_threadlocal, "hub"))
    found.append(len(threading._active) == active)

active = len(threading._active)
capture(relay, "i1")
assert not relay.flush().timed_out
relay._host.pipeline.runtime.call(look)
capture(relay, "i2")
assert not relay.close().timed_out
assert found == [True, True], found
""",
        spool_dir="spool",
    )
    assert arrived(sandbox) == ["i1", "i2"]


@libraries
def test_what_the_worker_logs_holds_no_greenlet_up(
    library: str, programs: Programs, sandbox: ArthurSandbox
) -> None:
    # Written by its own thread, one of these greenlets waits for logging's lock for ever.
    run(
        programs,
        library,
        """
import logging
from arthur_relay.system.worker_logs import WorkerLogger

class Slow(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
        if lines.count("worker") == 500:
            written.set()
        if len(lines) % 3 == 0:
            time.sleep(0)

def log(logger, text):
    for _ in range(500):
        logger.warning("%s", text)

async def worker_logs():
    log(WorkerLogger("arthur_relay.test"), "worker")

lines = []
written = threading.Event()
sys.setswitchinterval(1e-5)
logging.root.addHandler(Slow())
logging.root.setLevel(logging.DEBUG)
relay._host.pipeline.runtime.call(lambda: asyncio.ensure_future(worker_logs()))
greenlets = [threading.Thread(target=log, args=(logging.getLogger("app"), "app")) for _ in range(3)]
for greenlet in greenlets:
    greenlet.start()
for greenlet in greenlets:
    greenlet.join()
assert written.wait(60)
second = Relay.from_env(settings=RelaySettings(batch_size=7))
capture(relay, "i1")
assert not relay.close().timed_out and not second.close().timed_out
assert lines.count("worker") == 500 and lines.count("app") == 1500
""",
    )
    assert arrived(sandbox) == ["i1"]


@libraries
def test_a_greenlet_that_waits_for_room_lets_others_go_on(
    library: str, programs: Programs, sandbox: ArthurSandbox
) -> None:
    run(
        programs,
        library,
        """
threading.Thread(target=tick, daemon=True).start()
for burst in range(5):
    capture(relay, *(f"{burst}-{i}" for i in range(20)))
assert counts(relay.close()) == (100, 0, {}, False)
""",
        queue_size=5,
        overflow="block",
        block_timeout_seconds=30,
    )
    assert len(arrived(sandbox)) == 100


@libraries
def test_a_forked_child_delivers_its_own(
    library: str, programs: Programs, sandbox: ArthurSandbox
) -> None:
    # One greenlet waits for a flush at the fork: its copy in the child must not take its wake-up.
    run(
        programs,
        library,
        """
capture(relay, "parent")
results = []
def flush():
    results.append(relay.flush(30))
greenlet = threading.Thread(target=flush)
greenlet.start()
child = os.fork()
if not child:
    if "eventlet" in sys.modules:
        eventlet.hubs.use_hub()  # what eventlet demands of a child
    capture(relay, "child")
    assert counts(relay.close()) == (1, 0, {}, False)
    os._exit(0)
greenlet.join()
assert counts(results[0]) == (1, 0, {}, False), results
assert os.waitpid(child, 0)[1] == 0
""",
    )
    assert arrived(sandbox) == ["child", "parent"]
    assert sandbox.duplicates == 0


def test_an_application_that_waits_until_nothing_is_left_to_do_ends(
    programs: Programs, sandbox: ArthurSandbox
) -> None:
    run(
        programs,
        "gevent",
        """
import gevent

gevent.spawn(capture, relay, "i1")
gevent.wait()
assert relay.stats().captured == 1
""",
    )
    assert arrived(sandbox) == ["i1"]


@libraries
def test_sigterm_flushes_when_asked_to(
    library: str, programs: Programs, sandbox: ArthurSandbox
) -> None:
    # The handler is called within the library's own loop, where nothing may wait for it.
    import signal

    program = start(
        programs,
        library,
        """
capture(relay, "i1")
ready()
while True:
    time.sleep(0.05)  # an application that has nothing to do
""",
        flush_on_sigterm=True,
    )
    program.wait_for("ready")
    program.signal(signal.SIGTERM)
    assert program.end().status == 128 + signal.SIGTERM, program.printed
    assert arrived(sandbox) == ["i1"]


@libraries
def test_a_close_within_the_librarys_own_loop(
    library: str, programs: Programs, sandbox: ArthurSandbox
) -> None:
    run(
        programs,
        library,
        """
results = []
def close():
    results.append(relay.close(30))

capture(relay, "i1")
if "gevent" in sys.modules:
    import gevent
    gevent.get_hub().loop.run_callback(close)
else:
    import eventlet.hubs
    eventlet.hubs.get_hub().schedule_call_global(0, close)
while not results:
    time.sleep(0.001)  # looks again; the program has a time limit
assert counts(results[0]) == (1, 0, {}, False)
""",
    )
    assert arrived(sandbox) == ["i1"]


@libraries
def test_a_server_with_tls(
    library: str, programs: Programs, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with TlsFront(context, int(sandbox.url.rpartition(":")[2])) as front:
        programs.environment |= {
            "ARTHUR_ENDPOINT_URL": f"https://localhost:{front.port}",
            "SSL_CERT_FILE": str(certificate),
        }
        run(
            programs,
            library,
            "capture(relay, 'i1'); assert counts(relay.close()) == (1, 0, {}, False)",
        )
    assert arrived(sandbox) == ["i1"]
