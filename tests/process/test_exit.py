"""Every way in which a process ends delivers what is queued, within one deadline.

Each script logs in a process of its own, to `localhost` by name, over a connection that does not
exist yet when the exit begins: from an `atexit` callback neither asyncio's thread pool nor a new
thread can be had any more.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.process.scripts import Scripts

RUNS = 20
LOG = f"""
model = chat(handler())
for _ in range({RUNS}):
    model.invoke("prompt")
"""


def arrived(sandbox: ArthurSandbox) -> int:
    return len(sandbox.inferences)


WAYS = {
    "return from main": (LOG, 0, ""),
    "sys.exit": (LOG + "sys.exit(3)", 3, ""),
    "an unhandled exception": (LOG + "raise RuntimeError('boom')", 1, "boom"),
    "sys.exit in another thread": (
        LOG + "t = threading.Thread(target=sys.exit); t.start(); t.join()",
        0,
        "",
    ),
    "a function returns to asyncio.run": (
        f"""
        async def main():
            model = chat(handler())
            for _ in range({RUNS}):
                await model.ainvoke("prompt")
        asyncio.run(main())
        """,
        0,
        "",
    ),
    "a thread that outlives main": (
        f"""
        gate = threading.Event()
        model = chat(handler())
        def work():
            gate.wait()
            for _ in range({RUNS}):
                model.invoke("prompt")
        threading.Thread(target=work).start()
        gate.set()
        """,
        0,
        "",
    ),
    "an atexit callback that logs": (
        f"""
        model = chat(handler())
        atexit.register(lambda: [model.invoke("prompt") for _ in range({RUNS})])
        """,
        0,
        "",
    ),
    "a with block": (
        f"""
        with handler() as h:
            model = chat(h)
            for _ in range({RUNS}):
                model.invoke("prompt")
        os._exit(0)  # so that only the block can have done it
        """,
        0,
        "",
    ),
    "an async with block": (
        f"""
        async def main():
            async with handler() as h:
                model = chat(h)
                for _ in range({RUNS}):
                    await model.ainvoke("prompt")
        asyncio.run(main())
        os._exit(0)
        """,
        0,
        "",
    ),
    "a serverless function that flushes": (
        f"""
        h = handler()
        def function():
            model = chat(h)
            for _ in range({RUNS}):
                model.invoke("prompt")
            return h.flush()
        result = function()
        assert result.delivered == {RUNS} and result.pending == 0 and not result.timed_out, result
        os._exit(0)
        """,
        0,
        "",
    ),
    "an async function that flushes": (
        f"""
        h = handler()
        async def function():
            model = chat(h)
            for _ in range({RUNS}):
                await model.ainvoke("prompt")
            return await h.aflush()
        result = asyncio.run(function())
        assert result.delivered == {RUNS} and result.pending == 0, result
        os._exit(0)
        """,
        0,
        "",
    ),
    "a handler that was forgotten": (
        f"""
        import gc
        for _ in range({RUNS}):
            chat(handler()).invoke("prompt")
        gc.collect()
        """,
        0,
        "",
    ),
    "an eager handler": (
        'settings = settings.model_copy(update={"connect": "eager"})' + LOG,
        0,
        "",
    ),
    "code without LangChain": (
        f"""
        relay = Relay.from_env(settings=settings)
        for number in range({RUNS}):
            relay.capture(Inference(input_text="prompt", output_text="answer"))
        """,
        0,
        "",
    ),
}


COLD = ("return from main", "an atexit callback that logs", "code without LangChain")
"""Ways that end a process which starts as a user's does: what is imported, and in which order,
decides what is called at the exit, and when."""


@pytest.mark.parametrize("way", WAYS)
def test_an_exit_delivers(way: str, scripts: Scripts, sandbox: ArthurSandbox) -> None:
    body, status, message = WAYS[way]
    ended = scripts.run(body, cold=way in COLD)
    assert ended.status == status, ended.stderr
    assert message in ended.stderr
    if not message:
        assert ended.stderr == ""
    assert arrived(sandbox) == RUNS


def test_keyboard_interrupt_delivers(scripts: Scripts, sandbox: ArthurSandbox) -> None:
    script = scripts.start(LOG + "ready_for_a_signal()")
    script.wait_until_ready()
    script.signal(signal.SIGINT)
    ended = script.end()
    assert "KeyboardInterrupt" in ended.stderr
    assert arrived(sandbox) == RUNS


@pytest.mark.parametrize("how", ["hang", "gone", "slow", "errors"])
def test_an_exit_is_bounded_whatever_arthur_does(
    how: str, scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    routes = ("login", "users", "models", "inferences")
    match how:
        case "hang":
            sandbox.faults.hang(routes=routes)
        case "gone":
            sandbox.go_away()
        case "slow":
            sandbox.faults.slow(30, routes=routes)
        case "errors":
            sandbox.faults.status(503, retry_after="3600", times=None, routes=routes)
    script = scripts.start(LOG + "ready()", shutdown_timeout_seconds=1.0)
    script.wait_until_ready()
    start = time.monotonic()
    ended = script.end()
    took = time.monotonic() - start
    sandbox.faults.reset()
    assert ended.status == 0, ended.stderr
    assert f"{RUNS} inferences were not delivered in time and are dropped" in ended.stderr
    assert took < 10.0  # the deadline is 1 s; the rest is a slow machine's, not a hang's


def test_several_relays_share_the_deadline_of_the_exit(
    scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    sandbox.faults.hang(routes=("models", "inferences", "users", "login"))
    script = scripts.start(
        """
        relays = [Relay.from_env(settings=settings) for _ in range(10)]
        for relay in relays:
            relay.capture(Inference(input_text="prompt", output_text="answer"))
        ready()
        """,
        shutdown_timeout_seconds=1.5,
    )
    script.wait_until_ready()
    start = time.monotonic()
    ended = script.end()
    took = time.monotonic() - start
    sandbox.faults.reset()
    assert ended.status == 0
    assert took < 12.0  # ten times 1.5 s, one after the other, would be more


def test_an_interrupt_during_the_exit_ends_the_wait(
    scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    sandbox.faults.hang(routes=("models", "inferences", "users", "login"))
    script = scripts.start(
        LOG
        + """
relay = model.callbacks[0].relay
def interrupt():
    while relay.health().status != "closed":
        threading.Event().wait(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
""",
        shutdown_timeout_seconds=600.0,
    )
    ended = script.end(60)
    sandbox.faults.reset()
    assert f"{RUNS} inferences were not delivered in time" in ended.stderr


def test_a_disabled_relay_needs_nothing_and_starts_nothing(scripts: Scripts) -> None:
    ended = scripts.run(
        """
        before = threading.active_count()
        for name in list(os.environ):
            if name.startswith("ARTHUR_") and name != "ARTHUR_RELAY_DISABLED":
                del os.environ[name]
        h = ArthurCallbackHandler.from_env()
        model = chat(h)
        assert model.invoke("prompt").content == "answer"
        h.relay.capture(Inference(input_text="a", output_text="b"))
        assert h.flush() == h.close() == (0, 0, {}, 0, False)
        assert h.relay.health().status == "disabled"
        assert threading.active_count() == before
        """,
        environment={"ARTHUR_RELAY_DISABLED": "true"},
    )
    assert ended.status == 0, ended.stderr
    assert ended.stderr == ""
