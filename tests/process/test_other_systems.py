"""The in-process relay on a system without forks, `fcntl`, Unix sockets and most signals.

The core's own tests run there by `python -m tests.other_systems windows`.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import arthur_relay
from arthur_relay import exit_on_sigterm
from tests import warm
from tests.other_systems import NO_MODULES_OF_WINDOWS, ON_NO_MACOS, ON_NO_WINDOWS
from tests.process.scripts import Ended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arthur_relay.sandbox import ArthurSandbox

SOURCE = Path(arthur_relay.__file__).parent

WINDOWS = """
from tests.other_systems import play
play("windows")
import asyncio, os, sys, threading
from langchain_core.language_models.fake_chat_models import FakeListChatModel
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


def test_what_a_process_leaves_in_its_spool_is_delivered_by_the_next(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    settings = f"""
settings = RelaySettings(
    spool_dir={str(tmp_path / "spool")!r}, durability="power", flush_interval_seconds=3600
)
"""
    ended = run(
        sandbox,
        settings
        + """
import time
relay = Relay.from_env(settings=settings)
relay.capture(Inference(input_text="in", output_text="out"))
while relay.stats().spooled < 1:
    time.sleep(0.01)  # looks again; the program has a time limit
os._exit(1)  # as `TerminateProcess` does it
""",
    )
    assert (ended.status, ended.stderr) == (1, "")
    assert not sandbox.inferences
    ended = run(
        sandbox,
        settings
        + """
with Relay.from_env(settings=settings) as relay:
    relay.log_ground_truth("nobody", {"unregistered": 1})
    result = relay.flush(30)
    assert (result.delivered, result.rejected) == (1, 1), result
    assert len(relay.dead_letters()) == 1
from arthur_relay.cli import main
os.environ["ARTHUR_RELAY_SPOOL_DIR"] = str(settings.spool_dir)
sys.argv = ["arthur-relay", "spool", "list"]
main()
""",
    )
    assert ended.status == 0, ended.stderr


def test_what_the_system_lacks_is_refused_in_a_sentence(sandbox: ArthurSandbox) -> None:
    ended = run(
        sandbox,
        """
try:
    ArthurCallbackHandler.from_credentials("m", "unix:///run/relay.sock")
except ConfigurationError as error:
    assert "needs Unix sockets, which this system has not: Linux, macOS or a BSD" in str(error)
else:
    raise AssertionError
""",
    )
    assert ended.status == 0, ended.stderr


def test_ctrl_break_flushes_where_there_is_no_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    number = signal.SIGUSR2  # it stands for SIGBREAK
    monkeypatch.setattr("arthur_relay.shutdown.SIGBREAK", number)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, number)}
    try:
        assert exit_on_sigterm()
        with pytest.raises(SystemExit):
            signal.raise_signal(number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


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
    **{
        module: {*ON_NO_WINDOWS.get(module, ()), *ON_NO_MACOS.get(module, ())}
        for module in {*ON_NO_WINDOWS, *ON_NO_MACOS}
    },
    "select": {"devpoll", "epoll", "kqueue", "poll"},
    "sys": {"platform"},  # it is asked there, too
    "import": {*NO_MODULES_OF_WINDOWS, "msvcrt", "winreg", "_winapi"},
    # What asyncio has for Unix alone.
    "method": {
        "add_signal_handler",
        "create_unix_connection",
        "create_unix_server",
        "open_unix_connection",
        "remove_signal_handler",
        "start_unix_server",
    },
    "os": {*ON_NO_WINDOWS["os"], *ON_NO_MACOS["os"], "name"},
}

ALLOWED = {
    ("daemon/signals.py", "add_signal_handler"): "`check_daemon` comes first",
    ("daemon/signals.py", "remove_signal_handler"): "the same",
    ("runtime/event_loop.py", "create_unix_connection"): "overrides it; `check_unix_sockets` first",
}
ONE_MODULE = "system/operating_system.py"


@cache
def sources() -> list[tuple[str, ast.AST]]:
    """Return each node of the relay's sources that a test here looks at, with its module."""
    return [
        (path.relative_to(SOURCE).as_posix(), node)
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Attribute | ast.Call)
    ]


def named(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield what a node names, each with the module, or the kind of thing, that it is of."""
    match node:
        case ast.Import(names=names):
            yield from (("import", each.name) for each in names)
        case ast.ImportFrom(module=str(module), names=names):
            yield "import", module
            yield from ((module, each.name) for each in names)
        case ast.Attribute(value=value, attr=name):
            yield "method", name
            if isinstance(value, ast.Name):
                yield value.id, name
        case ast.Call(args=[ast.Name(id=module), ast.Constant(value=str(name)), *_]):
            yield module, name  # `getattr` or `hasattr`


def test_only_one_module_of_the_relay_asks_for_what_is_not_everywhere() -> None:
    found = {
        (where, name)
        for where, node in sources()
        for module, name in named(node)
        if name in NOT_EVERYWHERE.get(module, ())
    }
    assert {pair for pair in found if pair[0] != ONE_MODULE} == set(ALLOWED)
    assert len([pair for pair in found if pair[0] == ONE_MODULE]) > 10, "they are found"


def test_texts_are_utf_8_on_every_system() -> None:
    found = []
    for where, node in sources():
        match node:
            case ast.Call(func=ast.Attribute(attr="read_text" | "write_text"), keywords=keywords):
                pass
            case ast.Call(
                func=ast.Name(id="open") | ast.Attribute(attr="open" | "fdopen"),
                args=[*_, ast.Constant(value=str(mode))],
                keywords=keywords,
            ) if "b" not in mode:
                pass
            case _:
                continue
        if not any(each.arg == "encoding" for each in keywords):
            found.append((where, node.lineno))
    assert found == []
