"""Forks at the worst of times: whatever the parent's threads hold, the child sends its own.

Each script forks twice while its hold lasts: by `os.fork`, and by libc's `fork`, which runs none of
`os.register_at_fork`'s hooks, nor do uWSGI's forks by default. The children log, flush, and exit as
any process does.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING
from uuid import UUID

from tests.hosts.arrivals import arrived, check_arrivals
from tests.hosts.programs import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox
    from tests.hosts.programs import Programs

FORKS = """
import ctypes, faulthandler, traceback

sys.stdout.reconfigure(line_buffering=True)

def fail(*error):
    traceback.print_exception(*error)
    sys.stderr.flush()
    os._exit(1)  # what is held would keep this process from ending
sys.excepthook = fail

def raw_fork():
    # The GIL stays with this thread, unlike with CDLL: the child could not run any Python else.
    return ctypes.PyDLL(None).fork()

def capture(name):
    model = os.environ["ARTHUR_MODEL_ID"]
    relay.capture(Inference(input_text=name, output_text="a", inference_id=name, model_id=model))

def check(result, **expected):
    found = {name: getattr(result, name) for name in expected}
    assert found == expected, result
    assert result.dropped == {} and result.rejected == 0, result

def child_of(fork, work):
    child = fork()
    if child:
        return child
    faulthandler.register(signal.SIGALRM, chain=True)  # says where it hangs
    signal.alarm(20)
    try:
        work()
    except Exception:
        fail(*sys.exc_info())
    signal.alarm(20)  # for the exit
    sys.exit(0)

def wait_for(child):
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status

# What is held, is held in this process only, until `let_go`.
me = os.getpid()
held, let_go = [], threading.Event()

def hold(name):
    if os.getpid() == me and not let_go.is_set():
        held.append(name)
        assert let_go.wait(60)

def wait_until_held(*names):
    deadline = time.monotonic() + 30
    while not set(names) <= set(held):
        assert time.monotonic() < deadline, held
        threading.Event().wait(0.005)

def in_thread(function, *arguments):
    threading.Thread(target=function, args=arguments, daemon=True).start()

def fork_both_ways():
    def work(name):
        capture(name)
        check(relay.flush(30), delivered=1, pending=0, timed_out=False)
        assert relay.stats().captured == 1
        more()
    for name, fork in (("os.fork", os.fork), ("libc", raw_fork)):
        if name in forks:
            wait_for(child_of(fork, lambda: work(name)))

forks, more = ("os.fork", "libc"), lambda: None
"""

END = """
fork_both_ways()
assert not let_go.is_set()
let_go.set()
check(relay.flush(30), delivered=1, pending=0, timed_out=False)
"""


def check(programs: Programs, sandbox: ArthurSandbox, body: str, **settings: object) -> None:
    ended = programs.run(FORKS + body + END, **settings)
    assert ended.status == 0, ended.stderr
    names = ["parent", "os.fork", "libc"]
    check_arrivals(sandbox, {name: [name] for name in names})


def test_while_the_worker_encodes_and_threads_hold_every_lock(
    programs: Programs, sandbox: ArthurSandbox
) -> None:
    check(
        programs,
        sandbox,
        """
from concurrent.futures import Future
from importlib.abc import Loader, MetaPathFinder
from importlib.util import spec_from_loader
from arthur_relay.runtime.process_registry import registry

def scrub(text):
    hold("redactor")
    return text

settings = RelaySettings(flush_interval_seconds=3600, redact=scrub)
handler = ArthurCallbackHandler.from_env(settings=settings)
relay = handler.relay

in_thread(registry().shared, "slow", lambda: hold("registry"))

def hold_lock(name, lock):
    with lock:
        hold(name)
in_thread(hold_lock, "relay", relay._host._lock.mine())
# An answer that is not there yet: a handler may be made while another one waits for it.
unanswered = relay._host.models._answers[handler.model_id] = Future()
in_thread(hold_lock, "answer", unanswered._condition)

class Slow(Loader, MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        return spec_from_loader(name, self) if name == "slow_module" else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        hold("import")
sys.meta_path.insert(0, Slow())
in_thread(__import__, "slow_module")

capture("parent")
in_thread(relay.flush)
wait_until_held("redactor", "registry", "relay", "answer", "import")

def more():
    # A handler for each request, as in the parent.
    assert ArthurCallbackHandler.from_env(settings=settings).relay is relay
""",
    )


def test_while_a_log_line_is_written(programs: Programs, sandbox: ArthurSandbox) -> None:
    # Only `os.fork`: a raw fork leaves the locks of `logging` as they are, for everybody.
    sandbox.faults.status(503, times=1, routes=("models",))
    ended = programs.run(
        FORKS
        + """
import logging

class Slow(logging.Handler):
    def emit(self, record):
        hold("log")

logging.getLogger("arthur_relay").addHandler(Slow())
relay = Relay.from_env(settings=settings)
capture("parent")
in_thread(relay.flush)
wait_until_held("log")
forks = ("os.fork",)

def more():
    logging.getLogger("arthur_relay").warning("a line of the child's")
"""
        + END
    )
    assert ended.status == 0, ended.stderr
    check_arrivals(sandbox, {"parent": ["parent"], "os.fork": ["os.fork"]})


def test_while_a_request_is_on_its_way_and_the_side_threads_are_busy(
    programs: Programs, sandbox: ArthurSandbox
) -> None:
    check(
        programs,
        sandbox,
        """
import socket
from arthur_relay.runtime.event_loop import RelayEventLoop

def offload(function):
    runtime = relay._host.pipeline.runtime
    return asyncio.run_coroutine_threadsafe(runtime.offload(function), runtime._loop)

def look_up(*arguments):
    hold("resolver")
    return socket.getaddrinfo(*arguments)

RelayEventLoop.__init__.__defaults__ = (look_up,)
relay = Relay.from_env(settings=settings)
offload(lambda: hold("compressor"))
capture("parent")
in_thread(relay.flush)
wait_until_held("compressor", "resolver")

def more():
    offload(lambda: None).result(30)
""",
    )


def test_while_the_parent_waits_for_an_answer(programs: Programs, sandbox: ArthurSandbox) -> None:
    sandbox.faults.hang(times=1, routes=("inferences",))
    script = programs.script(
        FORKS
        + """
relay = Relay.from_env(settings=settings)
go = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: go.set())
capture("parent")
in_thread(relay.flush)
while not go.wait(0.05):
    pass
fork_both_ways()
assert relay.stats().delivered == 0
ready()
check(relay.flush(30), delivered=1, pending=0, timed_out=False)
"""
    )
    wait_until(lambda: any(request.method == "POST" for request in sandbox.requests))
    script.signal(signal.SIGUSR1)
    script.wait_for("ready")
    sandbox.faults.reset()
    ended = script.end()
    assert ended.status == 0, ended.stderr
    names = ["parent", "os.fork", "libc"]
    check_arrivals(sandbox, {name: [name] for name in names})


def test_while_the_spool_is_in_mid_transaction(
    programs: Programs, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    check(
        programs,
        sandbox,
        """
relay = Relay.from_env(settings=settings)
capture("parent")
file = relay._host.pipeline.worker.buffer.intake._segments[0].file
file._connection.set_trace_callback(lambda sql: hold("spool") if sql == "COMMIT" else None)
in_thread(relay.flush)
wait_until_held("spool")

def more():
    assert relay._host.pipeline.worker.buffer.intake._segments[0].file.path != file.path
""",
        spool_dir=str(spool),
    )
    # Each has ended well, so nothing is left but what is known of the model.
    assert sorted(path.name for path in spool.glob("*.spool-wal")) == []


def test_children_of_a_parent_whose_spool_is_busy(
    programs: Programs, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    # SQLite has locks of its own, for all of a process; a child that has inherited one as held
    # hangs when it opens its spool. They are held for microseconds, so it takes some forks to see:
    # without the gate of `arthur_relay.system.fork_safety`, one in fifteen.
    ended = programs.run(
        FORKS
        + """
from arthur_relay.testing import MemoryDestination

settings = settings.model_copy(update={"flush_interval_seconds": 0.001})
relay = Relay(MemoryDestination(), settings=settings, model_id=os.environ["ARTHUR_MODEL_ID"])
stop = threading.Event()

def feed():
    while not stop.wait(0.001):
        for _ in range(50):
            relay.capture(Inference(input_text="x" * 2000, output_text="y" * 2000))
feeder = threading.Thread(target=feed)
feeder.start()

def work():
    capture("child")
    assert relay.flush(20).delivered == 1
    os._exit(0)

for _ in range(40):
    wait_for(child_of(os.fork, work))
stop.set()
feeder.join()
result = relay.close(30)
settled = result.delivered + sum(result.dropped.values())
assert (settled, result.pending) == (relay.stats().captured, 0), result
""",
        spool_dir=str(tmp_path / "spool"),
    )
    assert ended.status == 0, ended.stderr
    assert arrived(sandbox) == []


def test_open_runs_belong_to_the_process_that_began_them(
    programs: Programs, sandbox: ArthurSandbox
) -> None:
    ended = programs.run(
        FORKS
        + """
from uuid import UUID
from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult, Generation, LLMResult

handler = ArthurCallbackHandler.from_env(settings=settings)
relay = handler.relay

def begin(number):
    handler.on_chat_model_start({}, [[HumanMessage("prompt")]], run_id=UUID(int=number))

def end(number):
    handler.on_llm_end(LLMResult(generations=[[Generation(text="a")]]), run_id=UUID(int=number))

begin(1)
begin(2)

def idle():
    pass  # its exit must not give up what the parent has open

def work(number):
    begin(number + 1)
    begin(number + 2)
    end(1)  # someone else's
    end(number + 1)
    assert relay.stats().unmatched_events == 1
    assert relay.stats().open_runs == 1
    # The other one is given up by the exit.

def abandon(number):
    begin(number + 1)  # the only thing that is ever done with the relay here

for fork, number in ((os.fork, 10), (raw_fork, 20)):
    wait_for(child_of(fork, idle))
    wait_for(child_of(fork, lambda: work(number)))
    wait_for(child_of(fork, lambda: abandon(number + 5)))
assert relay.stats().open_runs == 2
end(1)
"""
    )
    assert ended.status == 0, ended.stderr
    numbers = [[1, 2], [11, 12], [16], [21, 22], [26]]
    check_arrivals(
        sandbox,
        {str(ids[0]): [str(UUID(int=number)) for number in ids] for ids in numbers},
    )
    outcomes = {row["partner_inference_id"][-2:]: row for row in sandbox.inferences}
    assert len(outcomes) == 8


def test_children_of_children_give_ids_of_their_own(
    programs: Programs, sandbox: ArthurSandbox
) -> None:
    ended = programs.run(
        FORKS
        + """
relay = Relay.from_env(settings=settings)

def log():
    for _ in range(3):
        relay.capture(Inference(input_text="prompt", output_text="answer"))

def grandchild():
    log()

def child(fork):
    # Nothing is logged before it forks: the relay has no thread here yet.
    grandchildren = [child_of(fork, grandchild) for _ in range(2)]
    log()
    for each in grandchildren:
        wait_for(each)

log()
for fork in (os.fork, raw_fork):
    wait_for(child_of(fork, lambda: child(fork)))
"""
    )
    assert ended.status == 0, ended.stderr
    assert sandbox.duplicates == 0
    assert len(arrived(sandbox)) == 3 * (1 + 3 + 3)


def test_the_worker_imports_nothing_once_the_relay_is_made(
    programs: Programs, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    # A child that is forked while another thread imports inherits the lock of that module.
    sandbox.faults.fail_rows(containing="bad", status=400, routes=("inferences",))
    for route in ("models", "inferences"):
        sandbox.faults.status(503, times=1, retry_after="0", routes=(route,))
    ended = programs.run(
        """
del os.environ["ARTHUR_API_KEY"]  # so that it logs in
relay = Relay.from_env(settings=settings)
before = set(sys.modules)
for name in ("good", "bad"):
    relay.capture(Inference(input_text="a@b.example", output_text="a", inference_id=name))
relay.log_ground_truth("good", {"thumbs_up": True})
result = relay.flush(30)
assert (result.delivered, result.rejected) == (2, 1), result
assert relay.stats().retries > 0
if os.fork() == 0:
    relay.capture(Inference(input_text="a@b.example", output_text="a", inference_id="child"))
    assert relay.flush(30).delivered == 1
    print(sorted(set(sys.modules) - before))
    sys.stdout.flush()
    os._exit(0)
os.wait()
relay.close()
print(sorted(set(sys.modules) - before))
""",
        spool_dir=str(tmp_path / "spool"),
        redact="all",
    )
    assert ended.status == 0, ended.stderr
    assert [line for line in ended.stdout.splitlines() if line[0] == "["] == ["[]", "[]"]
    assert arrived(sandbox) == ["child", "good"]
