"""A process whose relay has been idle ends as any other does, and delivers what came last."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.process.scripts import Scripts

IDLE = """
import arthur_relay.worker.relay_host
arthur_relay.worker.relay_host.IDLE_SECONDS = 0.01
relay = Relay.from_env(settings=settings)

def log(name):
    relay.capture(Inference(input_text=name, output_text="answer", inference_id=name))

def wait_until_idle():
    while not relay._host.is_at_rest or threading.active_count() > 1:
        time.sleep(0.01)  # looks again; the program has a time limit

log("first")
relay.flush(30)
wait_until_idle()
"""


def delivered(sandbox: ArthurSandbox) -> list[str]:
    assert sandbox.duplicates == 0
    return sorted(row["partner_inference_id"] for row in sandbox.inferences)


def test_an_exit_while_it_is_idle(scripts: Scripts, sandbox: ArthurSandbox) -> None:
    ended = scripts.run(IDLE)
    assert (ended.status, ended.stderr) == (0, "")
    assert delivered(sandbox) == ["first"]


def test_an_exit_with_the_capture_that_woke_it(scripts: Scripts, sandbox: ArthurSandbox) -> None:
    ended = scripts.run(IDLE + "log('last')")
    assert (ended.status, ended.stderr) == (0, "")
    assert delivered(sandbox) == ["first", "last"]


def test_an_exit_after_all_have_forgotten_it(scripts: Scripts, sandbox: ArthurSandbox) -> None:
    ended = scripts.run(
        IDLE
        + """
import gc, weakref
log("second")
relay.flush(30)
wait_until_idle()
known = weakref.ref(relay)
del relay
gc.collect()
assert known() is None
again = Relay.from_env(settings=settings)
again.capture(Inference(input_text="x", output_text="answer", inference_id="third"))
del again  # the registry has it until this is delivered
gc.collect()
"""
    )
    assert (ended.status, ended.stderr) == (0, "")
    assert delivered(sandbox) == ["first", "second", "third"]


def test_sigterm_while_it_is_idle_and_with_the_capture_that_woke_it(
    scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    for last in ("", "log('last')"):
        script = scripts.start(f"{IDLE}\n{last}\nready_for_a_signal()", flush_on_sigterm=True)
        script.wait_until_ready()
        script.signal(signal.SIGTERM)
        ended = script.end()
        assert (ended.status, ended.stderr) == (128 + signal.SIGTERM, "")
    assert sorted({*delivered_more_than_once(sandbox)}) == ["first", "last"]


def delivered_more_than_once(sandbox: ArthurSandbox) -> list[str]:
    """Return the ids; two processes have each sent one that is called the same."""
    return [row["partner_inference_id"] for row in sandbox.inferences]


def test_children_of_a_process_whose_relay_is_idle(
    scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    ended = scripts.run(
        IDLE
        + """
import ctypes
for name, fork in (("hooks", os.fork), ("no hooks", ctypes.CDLL(None).fork)):
    pid = fork()
    if pid == 0:
        log(name)
        result = relay.flush(30)
        os._exit((result.delivered, result.pending) != (1, 0))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
log("parent")
"""
    )
    assert (ended.status, ended.stderr) == (0, "")
    assert delivered(sandbox) == ["first", "hooks", "no hooks", "parent"]


def test_an_exit_with_a_run_that_began_while_it_was_idle(
    scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    ended = scripts.run(
        IDLE
        + """
from uuid import uuid4
handler = ArthurCallbackHandler(relay=relay)
wait_until_idle()
handler.on_llm_start({}, ["never answered"], run_id=uuid4())
"""
    )
    assert (ended.status, ended.stderr) == (0, "")
    outcomes = [row["inference_data"].get("outcome") for row in sandbox.inferences]
    assert len(outcomes) == 2
    assert "abandoned" in outcomes
