"""Every peer that delivers delivers all, and each once; the others are not even connected.

A peer has a process of its own, which this module is, too: `python -m tests.benchmarks.test_peers
PEER URL` makes the calls. Peers that are not installed are skipped (see environment.py).
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.chat_model import FakeChat
from tests.benchmarks.environment import variables
from tests.benchmarks.peers import ENGINE, ENGINE_LLM, LEAST, PEERS, Peer, open_peer, versions
from tests.benchmarks.sink import Counts, Sink
from tests.elsewhere import is_installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langchain_core.runnables import RunnableConfig

ROOT = Path(__file__).parents[2]
SILENT = ("none", "pass-not-inline", "pass-inline", "pass-async")
MODULES = {
    LEAST: "httpx",
    "relay": "arthur_relay",
    ENGINE: "opentelemetry.proto",
    ENGINE_LLM: "opentelemetry.proto",
    "old-handler": "arthurai",
    "langsmith": "langsmith",
    "langfuse": "langfuse",
    "openinference": "openinference.instrumentation",  # its conventions are ours too
}
CALLS = 200


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


def call(peer: Peer) -> None:
    """Make the calls, a third of them in each form."""
    model = FakeChat(tokens=["Hel", "lo"], answer="Hello")
    config: RunnableConfig = {"callbacks": peer.callbacks}

    async def stream(number: int) -> None:
        async for _ in model.astream(f"Say hello {number}", config):
            pass

    async def stream_many(count: int) -> None:
        await asyncio.gather(*map(stream, range(count)))

    third = CALLS // 3
    for number in range(third):
        model.invoke(f"Say hello {number}", config)
        list(model.stream(f"Say hello {number}", config))
    asyncio.run(stream_many(CALLS - 2 * third))


def counts_of(name: str, sink: Sink) -> tuple[str, Counts]:
    """Make the calls in a process of its own, in an environment with traps for every peer.

    Returns:
        What it says when it has flushed, and what the sink has counted then: what an exit delivers
        is not the flush's merit.
    """
    traps = {
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_ENDPOINT": sink.url,
        "LANGSMITH_API_KEY": "another",
        "LANGFUSE_SAMPLE_RATE": "0",
        "OTEL_SDK_DISABLED": "true",
        "ARTHUR_RELAY_DISABLED": "true",
        "ARTHUR_ORGANIZATION_ID": "another",
    }
    sink.reset()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.test_peers", name, sink.url],
        cwd=ROOT,
        env={**variables({}), **traps},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said, counted = process.stdout.readline(), sink.counts()
            assert process.communicate("close", timeout=30) == ("", "")
        finally:
            process.kill()
    assert process.returncode == 0
    return said, counted


@pytest.mark.parametrize("name", MODULES)
def test_a_peer_delivers_every_call_once(name: str, sink: Sink) -> None:
    if not is_installed(MODULES[name]):
        pytest.skip(f"{MODULES[name]} is not in this environment: see environment.py")
    said, counted = counts_of(name, sink)
    assert said == f"{name} delivers: True\n"
    assert counted[:2] == (CALLS, 0)
    assert sink.counts()[:2] == (CALLS, 0)


@pytest.mark.parametrize("name", SILENT)
def test_the_others_send_nothing(name: str, sink: Sink) -> None:
    said, _ = counts_of(name, sink)
    assert said == f"{name} delivers: False\n"
    assert sink.counts() == (0, 0, 0, 0)


def test_all_peers_are_tested() -> None:
    assert {*SILENT, *MODULES} == {*PEERS, LEAST, ENGINE, ENGINE_LLM}


def test_versions_are_told() -> None:
    assert {"arthur-relay", "langchain-core", "httpx"} <= set(versions())
    assert all(versions().values())


def main(name: str, url: str) -> None:
    peer = open_peer(name, url)
    assert peer.name == name
    call(peer)
    peer.flush(30)
    print(f"{name} delivers: {peer.delivers}", flush=True)  # noqa: T201  # to the test
    sys.stdin.read()  # until the sink has been asked
    peer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
