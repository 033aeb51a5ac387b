"""The in-process relay on a system without forks, `fcntl`, Unix sockets and most signals."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import arthur_relay
from tests import warm
from tests.process.scripts import Ended

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox

SOURCE = Path(arthur_relay.__file__).parent

WINDOWS = """
import sys
import asyncio, multiprocessing, platform, socket, subprocess, signal, sqlite3, ssl, threading, os
# The libraries are another matter: what they are on Windows they decide when they are imported.
import anyio, anyio._backends._asyncio, httpx, httpcore, orjson, pydantic_settings, tenacity
import langchain_core.callbacks, langchain_core.outputs
from langchain_core.language_models.fake_chat_models import FakeListChatModel
import dotenv, msgspec, prometheus_client, rich.console, rich.live, starlette, typer, uvicorn
httpx.AsyncClient()

KEPT = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}
for name in dir(signal):
    if name.startswith("SIG") and name not in KEPT:
        delattr(signal, name)
for name in ("alarm", "getitimer", "pause", "pthread_kill", "pthread_sigmask", "setitimer",
             "siginterrupt", "sigpending", "sigtimedwait", "sigwait", "sigwaitinfo"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("fork", "forkpty", "register_at_fork", "fchmod", "fchown", "chown", "lchown",
             "getuid", "geteuid", "getgid", "getegid", "getgroups", "getpgid", "getpgrp", "getsid",
             "killpg",
             "setsid", "setuid", "setgid", "nice", "mkfifo", "mknod", "uname", "getloadavg",
             "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "O_DSYNC",
             "fdatasync", "pread", "pwrite", "posix_fallocate", "posix_fadvise", "sched_yield",
             "sendfile", "statvfs", "fstatvfs", "sysconf", "wait", "wait3",
             "wait4", "waitid", "fchdir", "sync", "pipe2", "eventfd", "memfd_create", "openpty"):
    if hasattr(os, name):
        delattr(os, name)
def socketpair():  # as Windows does it
    with socket.create_server(("127.0.0.1", 0)) as listener:
        writer = socket.create_connection(listener.getsockname())
        return listener.accept()[0], writer
socket.socketpair = socketpair
for name in ("AF_UNIX", "SO_PEERCRED", "SO_REUSEPORT", "MSG_DONTWAIT",
             "SOCK_CLOEXEC", "SOCK_NONBLOCK", "send_fds", "recv_fds"):
    if hasattr(socket, name):
        delattr(socket, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"):
    sys.modules[name] = None
import mmap
for name in ("MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_SHARED", "PROT_READ", "PROT_WRITE"):
    delattr(mmap, name)
sys.platform = "win32"

import arthur_relay
from arthur_relay import (
    ArthurCallbackHandler, ConfigurationError, Inference, Relay, RelaySettings, SpoolError,
    exit_on_sigterm,
)
"""


def run(sandbox: ArthurSandbox, body: str) -> Ended:
    process = warm.python(
        WINDOWS + body,
        environment={
            **{k: v for k, v in os.environ.items() if not k.startswith(("ARTHUR", "COVERAGE"))},
            **sandbox.environment(),
            "ARTHUR_ENDPOINT_URL": sandbox.url.replace("127.0.0.1", "localhost"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        with_langchain=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    return Ended(process.returncode, stdout, stderr)


def test_a_handler_delivers_at_a_flush_and_at_the_exit(sandbox: ArthurSandbox) -> None:
    ended = run(
        sandbox,
        """
handler = ArthurCallbackHandler.from_env(settings=RelaySettings(flush_interval_seconds=3600))
model = FakeListChatModel(responses=["answer"], callbacks=[handler])
model.invoke("one")
assert handler.flush(30).delivered == 1
assert handler.relay.health().status == "ok"
async def ask():
    await model.ainvoke("two")
    assert (await handler.aflush(30)).delivered == 2
asyncio.run(ask())
list(model.stream("three"))
assert exit_on_sigterm()
""",
    )
    assert (ended.status, ended.stderr) == (0, "")
    assert len(sandbox.inferences) == 3


def test_closing_and_coming_back_from_idleness(sandbox: ArthurSandbox) -> None:
    ended = run(
        sandbox,
        """
import time, arthur_relay.worker.relay_host
arthur_relay.worker.relay_host.IDLE_SECONDS = 0.01
with Relay.from_env(settings=RelaySettings(flush_interval_seconds=0.01)) as relay:
    for number in (1, 2):
        relay.capture(Inference(input_text="in", output_text="out"))
        assert relay.flush(30).delivered == number
        while not relay._host.is_at_rest:
            time.sleep(0.01)  # looks again; the program has a time limit
assert relay.close().delivered == 2
""",
    )
    assert (ended.status, ended.stderr) == (0, "")
    assert len(sandbox.inferences) == 2


def test_an_outage_longer_than_the_memory_is_compressed(sandbox: ArthurSandbox) -> None:
    ended = run(
        sandbox,
        """
os.environ["ARTHUR_ENDPOINT_URL"] = "http://127.0.0.1:9"
settings = RelaySettings(queue_bytes=4 << 20, connect="lazy", shutdown_timeout_seconds=0.1)
import time
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.testing import LLM_ATTRIBUTES
with Relay.from_env(settings=settings) as relay:
    relay._host.register(ModelSchema("m", LLM_ATTRIBUTES))
    for number in range(1200):  # of 3 KB, and rows may take 2.5 MB
        relay.capture(Inference(input_text="in " * 1000, output_text="out", model_id="m"))
        while number % 50 == 0 and len(relay._host.pipeline.queue):
            time.sleep(0.01)  # looks again, likewise
    stats = relay.stats()
    assert stats.pending == 1200, stats
    assert stats.dropped == {}, stats
""",
    )
    assert ended.status == 0, ended.stderr


def test_what_the_system_lacks_is_refused_in_a_sentence(sandbox: ArthurSandbox) -> None:
    ended = run(
        sandbox,
        """
import tempfile
directory = tempfile.mkdtemp()
before = threading.active_count()
for overflow in ("drop_oldest", "spill"):
    try:
        Relay.from_env(settings=RelaySettings(spool_dir=directory, overflow=overflow))
    except SpoolError as error:
        assert "spool_dir" in str(error) and "Linux, macOS or a BSD" in str(error), error
        assert "memory" in str(error)
    else:
        raise AssertionError
assert os.listdir(directory) == []
try:
    ArthurCallbackHandler.from_credentials("m", "unix:///run/relay.sock")
except ConfigurationError as error:
    assert "Unix sockets" in str(error), error
else:
    raise AssertionError
os.rmdir(directory)
""",
    )
    assert ended.status == 0, ended.stderr


def test_dead_letters_in_a_file_are_kept_as_they_are(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    ended = run(
        sandbox,
        f"""
settings = RelaySettings(dead_letter_file={str(tmp_path / "letters.jsonl")!r})
with Relay.from_env(settings=settings) as relay:
    relay.log_ground_truth("nobody", {{"unregistered": 1}})
    relay.capture(Inference(input_text="in", output_text="out", model_id="unknown"))
    assert relay.flush(30).rejected == 2
    assert len(relay.dead_letters()) == 2
""",
    )
    assert ended.status == 0, ended.stderr
    assert len((tmp_path / "letters.jsonl").read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["check"], 0, "Ready"),
        (["--help"], 0, "sandbox"),
        (["serve"], 2, "The daemon needs Linux, macOS or a BSD"),
        (["check", "--daemon"], 2, "The daemon needs Linux, macOS or a BSD"),
        (["healthcheck"], 1, "this system has no Unix sockets"),
        (["top", "--once"], 1, "this system has no Unix sockets"),
        (["dead-letters", "list"], None, ""),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_the_commands(
    arguments: list[str], status: int | None, text: str, sandbox: ArthurSandbox
) -> None:
    ended = run(
        sandbox,
        f"""
from arthur_relay.cli import main
sys.argv = ["arthur-relay", *{arguments!r}]
main()
""",
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    if status is not None:
        assert ended.status == status, ended.stdout + ended.stderr
    assert text in " ".join((ended.stdout + ended.stderr).split())


NOT_EVERYWHERE = {
    "os": {"fork", "register_at_fork", "O_CLOEXEC", "getuid", "geteuid", "fchmod", "killpg"},
    "signal": {"SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM", "pthread_sigmask", "setitimer"},
    "socket": {"AF_UNIX", "SO_PEERCRED"},
    "mmap": {"MAP_PRIVATE", "MAP_ANONYMOUS"},
}
MODULES = {"fcntl", "grp", "pwd", "resource", "termios", "tty"}


def test_only_one_module_of_the_relay_asks_for_what_is_not_everywhere() -> None:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        where = path.relative_to(SOURCE).as_posix()
        if where == "system/operating_system.py" or where.startswith("daemon/"):  # that is refused
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    found += [(where, n.name) for n in names if n.name in MODULES]
                case ast.ImportFrom(module=str(module)) if module in MODULES:
                    found.append((where, module))
                case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                    if attribute in NOT_EVERYWHERE.get(name, ()):
                        found.append((where, f"{name}.{attribute}"))
    assert [pair for pair in found if pair != ("cli/daemon_client.py", "socket.AF_UNIX")] == []
