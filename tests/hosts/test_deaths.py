"""A worker thread that is killed comes back, is counted, and loses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.hosts.arrivals import arrived

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.hosts.programs import Programs

KILLS = """
import ctypes

relay = Relay.from_env(settings=settings)
worker = relay._host.pipeline.runtime._thread
side = relay._host.pipeline.runtime._resolver._thread
captured = 0

def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, relay.stats()
        threading.Event().wait(0.002)

def kill(thread, error):
    thread_id = ctypes.c_ulong(thread.ident)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(thread_id, ctypes.py_object(error)) == 1

def capture(count):
    global captured
    for number in range(captured, captured + count):
        relay.capture(Inference(input_text="p", output_text="a", inference_id=f"i{number}"))
    captured += count

def check():
    result = relay.flush(30)
    assert (result.delivered, result.pending, dict(result.dropped)) == (captured, 0, {}), result
    assert not result.timed_out
    assert relay.stats().captured == captured
    assert worker.is_alive() and side.is_alive()
"""


@pytest.mark.parametrize("spool", [False, True])
def test_a_worker_at_rest_comes_back_from_whatever_it_is_killed_by(
    spool: bool, programs: Programs, sandbox: ArthurSandbox
) -> None:
    # The exception is raised when the thread runs next, so it is woken.
    ended = programs.run(
        KILLS
        + """
deaths = 0
for error in (RuntimeError, MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit):
    capture(5)
    check()
    kill(side, error)
    relay._host.pipeline.runtime._resolver._wake_ups.put(None)
    kill(worker, error)
    relay._host.pipeline.runtime.wake()
    deaths += 1
    wait_until(lambda: relay.stats().worker_restarts == deaths)
    capture(5)
    check()
assert relay.stats().worker_restarts == deaths
result = relay.close()
assert (result.delivered, result.pending) == (captured, 0), result
""",
        **({"spool_dir": "spool"} if spool else {}),
    )
    assert ended.status == 0, ended.stdout
    assert arrived(sandbox) == sorted(f"i{number}" for number in range(50))
    assert ended.stdout.count("the worker died and is started again") == 5


def test_a_function_of_the_applications_that_exits_costs_no_one_the_worker(
    programs: Programs, sandbox: ArthurSandbox
) -> None:
    ended = programs.run(
        """
def scrub(text):
    if "exit" in text:
        sys.exit("a bug of the application's")
    return text

settings = settings.model_copy(update={"redact": (scrub,)})
relay = Relay.from_env(settings=settings)
for text in ("before", "exit", "after"):
    relay.capture(Inference(input_text=text, output_text="answer", inference_id=text))
result = relay.flush(30)
assert result.pending == 0 and not result.timed_out, (result, relay.stats())
print(result.delivered, dict(result.dropped), relay.stats().worker_restarts)
"""
    )
    assert ended.status == 0, ended.stdout
    assert arrived(sandbox) == ["after", "before", "exit"]
