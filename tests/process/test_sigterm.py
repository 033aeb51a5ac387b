"""SIGTERM delivers what is queued: under a server by the lifespan, in a bare script when asked."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.process.test_exit import LOG, RUNS, arrived
from tests.waiting import wait_for

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.process.scripts import Script, Scripts

ASKED = {
    "in the main thread": LOG + "ready_for_a_signal()",
    "inside asyncio.run": f"""
        async def main():
            model = chat(handler())
            try:
                for _ in range({RUNS} - 1):
                    await model.ainvoke("prompt")
                ready()
                while True:
                    await asyncio.sleep(0.05)
            finally:
                await model.ainvoke("prompt")  # cleaning up may log as well
        asyncio.run(main())
        """,
    "with an eager handler": 'settings = settings.model_copy(update={"connect": "eager"})\n'
    + LOG
    + "ready_for_a_signal()",
}


@pytest.mark.parametrize("where", ASKED)
def test_sigterm_delivers_when_asked_to(
    where: str, scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    script = scripts.start(ASKED[where], cold=where == "in the main thread", flush_on_sigterm=True)
    script.wait_until_ready()
    script.signal(signal.SIGTERM)
    ended = script.end()
    assert ended.status == 143, ended.stderr
    assert ended.stderr == ""
    assert arrived(sandbox) == RUNS


STUCK = (
    LOG
    + """
threading.Thread(target=lambda: [threading.Event().wait(0.05) for _ in iter(int, 1)]).start()
ready_for_a_signal()
"""
)


def signal_until_it_ends(script: Script) -> None:
    while script.process.poll() is None:
        script.signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            script.process.wait(0.1)


def test_a_thread_that_never_ends_keeps_nothing_from_arriving_at_sigterm(
    scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    # CPython waits for such a thread, for ever, before it runs any `atexit` callback.
    script = scripts.start(STUCK, flush_on_sigterm=True)
    script.wait_until_ready()
    script.signal(signal.SIGTERM)
    wait_for(lambda: arrived(sandbox) == RUNS)
    signal_until_it_ends(script)
    assert script.end().status == -signal.SIGTERM
    assert arrived(sandbox) == RUNS


def test_another_sigterm_waits_for_the_flush_and_no_longer_than_its_deadline(
    scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    sandbox.faults.hang(routes=("inferences",))
    script = scripts.start(STUCK, flush_on_sigterm=True, shutdown_timeout_seconds=2.0)
    script.wait_until_ready()
    start = time.monotonic()
    script.signal(signal.SIGTERM)
    wait_for(lambda: any(r.path.endswith("/inferences") for r in sandbox.requests))
    signal_until_it_ends(script)
    took = time.monotonic() - start
    sandbox.faults.reset()
    assert script.end().status == -signal.SIGTERM
    assert took >= 2.0


def test_a_forked_child_is_told_to_end_by_its_own_sigterm(
    scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    ended = scripts.run(
        """
        h = handler()
        model = chat(h)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(30)
        except SystemExit:
            pid = os.fork()
        if pid == 0:
            model.invoke("prompt")
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(30)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 143
        """,
        flush_on_sigterm=True,
    )
    assert ended.status == 0, ended.stderr
    assert arrived(sandbox) == 1


def test_an_eager_handler_made_while_arthur_was_away_delivers_at_the_exit(
    scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    sandbox.go_away()
    script = scripts.start(
        'settings = settings.model_copy(update={"connect": "eager"})'
        + LOG
        + "ready_for_a_signal()",
        flush_on_sigterm=True,
        connect_timeout_seconds=0.05,
        shutdown_timeout_seconds=60.0,
    )
    script.wait_until_ready()
    sandbox.come_back()
    script.signal(signal.SIGTERM)
    ended = script.end()
    assert ended.status == 143, ended.stderr
    assert arrived(sandbox) == RUNS


def test_sigterm_kills_a_bare_script_by_default(scripts: Scripts, sandbox: ArthurSandbox) -> None:
    # The library changes no signal handler that it was not asked to change.
    script = scripts.start(LOG + "ready_for_a_signal()")
    script.wait_until_ready()
    script.signal(signal.SIGTERM)
    assert script.end().status == -signal.SIGTERM
    assert arrived(sandbox) == 0


def test_a_signal_handler_of_the_application_is_left_alone(scripts: Scripts) -> None:
    ended = scripts.run(
        """
        from arthur_relay import exit_on_sigterm
        mine = lambda *_: None
        signal.signal(signal.SIGTERM, mine)
        assert not exit_on_sigterm()
        Relay.from_env(settings=settings.model_copy(update={"flush_on_sigterm": True}))
        assert signal.getsignal(signal.SIGTERM) is mine
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert exit_on_sigterm() and exit_on_sigterm()
        results = []
        thread = threading.Thread(target=lambda: results.append(exit_on_sigterm()))
        thread.start()
        thread.join()
        assert results == [True], "it is in place"
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        thread = threading.Thread(target=lambda: results.append(exit_on_sigterm()))
        thread.start()
        thread.join()
        assert results == [True, False]
        """
    )
    assert ended.status == 0, ended.stderr
    told = [line for line in ended.stderr.splitlines() if "SIGTERM" in line]
    assert [line.rpartition(": ")[2].split(",")[0] for line in told] == [
        "something else handles SIGTERM",
        "something else handles SIGTERM",
        "only the main thread can do that",
    ]


FASTAPI = """
from fastapi import FastAPI

async def endpoint():
    return {"answer": (await model.ainvoke("prompt")).content}

app = FastAPI(lifespan=lifespan(h))
app.get("/chat")(endpoint)
"""

STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def endpoint(request):
    return JSONResponse({"answer": (await model.ainvoke("prompt")).content})

app = Starlette(routes=[Route("/chat", endpoint)], lifespan=lifespan(h))
"""

UVICORN = """
import uvicorn
from arthur_relay import lifespan

h = handler()
model = chat(h)
{app}

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        import httpx
        port = self.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient() as client:
            for _ in range({runs}):
                task = asyncio.create_task(client.get(f"http://127.0.0.1:{{port}}/chat"))
                (await task).raise_for_status()
        ready()

Server(uvicorn.Config(app, port=0, log_level="warning")).run()
"""


@pytest.mark.parametrize(
    ("app", "target", "number"),
    [
        (FASTAPI, "h", signal.SIGTERM),
        (FASTAPI, "h.relay", signal.SIGTERM),
        (FASTAPI, "h", signal.SIGINT),
        (STARLETTE, "h", signal.SIGTERM),
        (STARLETTE, "h.relay", signal.SIGINT),
    ],
    ids=["fastapi-handler", "fastapi-relay", "fastapi-int", "starlette", "starlette-relay-int"],
)
def test_sigterm_under_uvicorn_delivers_by_the_lifespan(
    app: str, target: str, number: signal.Signals, scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    source = app.replace("lifespan(h)", f"lifespan({target})")
    script = scripts.start(UVICORN.format(app=source, runs=RUNS))
    script.wait_until_ready()
    script.signal(number)
    ended = script.end()
    assert arrived(sandbox) == RUNS, ended.stderr
