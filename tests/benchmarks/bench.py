"""What a measuring process has at hand: its peer, a loop that stays, its clocks and its memory."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from tests.benchmarks.peers import Peer

FLUSH_LIMIT_SECONDS = 60.0
MIB = 1024 * 1024

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class Clocks(NamedTuple):
    """The three clocks at a moment, in seconds."""

    thread: float
    process: float
    wall: float

    @classmethod
    def now(cls) -> Clocks:
        """Read them."""
        return cls(time.thread_time(), time.process_time(), time.perf_counter())


class Bench:
    """One peer in one process.

    Args:
        name: The peer.
        url: Where the sink is.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self._peer: Peer | None = None
        self._runner: asyncio.Runner | None = None

    @property
    def peer(self) -> Peer:
        """The peer, which must be open."""
        assert self._peer is not None, "open it first"
        return self._peer

    @property
    def config(self) -> RunnableConfig:
        """What a call gets so that the peer sees it."""
        return {"callbacks": self.peer.callbacks}

    def open(self, settings: Mapping[str, Any] | None = None) -> None:
        """Open the peer.

        Raises:
            ImportError: It is not installed.
        """
        from tests.benchmarks.peers import open_peer  # the peers are heavy, and not always needed

        self._peer = open_peer(self.name, self.url, settings=settings)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop that all repetitions share, as a server's do."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(main)

    def flush(self, limit_seconds: float = FLUSH_LIMIT_SECONDS) -> float:
        """Have the peer deliver what it holds; returns the seconds that it took."""
        begun = time.perf_counter()
        self.peer.flush(limit_seconds)
        return time.perf_counter() - begun


def settle() -> None:
    """Begin every repetition alike: without the garbage of the one before, and on the same core.

    A core that something else of the machine is busy on, or beside, may be a quarter slower. The
    kernel likes to leave a process where it was, so one peer's repetitions would all bear that. It
    may move on at once: only the start is the same.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    gc.collect()
    os.sched_setaffinity(0, cores)


def resident_mib() -> float:
    """The memory that this process has now."""
    return _status_mib("VmRSS")


def peak_mib() -> float:
    """The most memory that this process has had since `forget_peak`."""
    return _status_mib("VmHWM")


def forget_peak() -> None:
    """Begin the peak anew at what is resident now, where the kernel lets us."""
    with suppress(OSError):
        _CLEAR_REFS.write_text("5")


def _status_mib(name: str) -> float:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024 / MIB
    raise OSError(f"the kernel does not tell {name}: this runs on Linux only")


def leave_at_once() -> None:
    """End without what peers do at an exit, which may hang."""
    os._exit(0)
