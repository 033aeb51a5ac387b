"""Runs a soak: a server and a capturing process, faults and kills as the plan has them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.benchmarks.children import ROOT, environment
from tests.benchmarks.sink.process import ServerProcess
from tests.soak.child import LEFT_SECONDS
from tests.soak.evidence import (
    Evidence,
    Kill,
    Sample,
    read_arrivals,
    read_life,
    read_spool,
)
from tests.soak.faults import Kind
from tests.soak.inferences import number_of
from tests.soak.plan import LONG_SECONDS, Event, Plan

TICK_SECONDS: Final = 0.05
SAMPLE_SECONDS: Final = 0.25
START_SECONDS: Final = 60.0
MEET_SECONDS: Final = 30.0
"""How long a fault is prolonged, at most, until a request meets it."""

SETTINGS: Final = {
    # As short as the faults are, so that a few minutes show what would take hours.
    "BATCH_SIZE": "100",
    "FLUSH_INTERVAL_SECONDS": "0.2",
    "RETRY_INITIAL_SECONDS": "0.1",
    "RETRY_MAX_SECONDS": "1",
    "BREAKER_MAX_SECONDS": "1",
    "CONNECT": "lazy",
    "DURABILITY": "process",
}
REQUEST_TIMEOUT_SECONDS: Final = 3.0
"""In a soak of `LONG_SECONDS` and more, whose faults last longer.

A short one must not depend on how busy the machine is; what hangs is cut when the fault goes.
"""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class SoakError(Exception):
    """The soak itself could not go on; the text says why."""


@dataclass
class Soak:
    """One soak, which runs once.

    Attributes:
        directory: Where its files go; nothing else is in it.
        seconds: How long it captures.
        rate: Inferences a second.
        seed: Of all that is drawn.
        sabotage: Damage that the server does on purpose; see `Damage`.
        on_kill: Called with the spool's directory after each kill, to do damage there.
        tell: Told how far it is.
    """

    directory: Path
    seconds: float
    rate: float
    seed: int
    sabotage: tuple[str, ...] = ()
    on_kill: Callable[[Path], object] = lambda _: None
    tell: Callable[[str], object] = lambda _: None
    sabotaged: dict[str, str] = field(default_factory=dict)
    _seen: Evidence = field(default_factory=Evidence)
    _child: subprocess.Popen[bytes] | None = None
    _lives: int = 0
    _sampled_at: float = 0.0

    def run(self) -> Evidence:
        """Do it all.

        Raises:
            SoakError: A process ended that should not, or did not when it should.
        """
        plan = Plan(self.seconds, self.seed)
        arguments = str(self._path("server")), str(self.seed)
        with ServerProcess("tests.soak.server", *arguments) as server, self._children():
            if self.sabotage:
                server.ask("sabotage", self.sabotage)
            self._start(server.url, first=0)
            self._calm(plan.calm_seconds, self._seen.before)
            self._storm(plan, server)
            self._calm(plan.calm_seconds, self._seen.after)
            self._end()
            if self.sabotage:
                self.sabotaged = server.ask("sabotaged")
        self._seen.lives = [read_life(self._life_path(life)) for life in range(self._lives)]
        self._seen.arrivals = read_arrivals(self._path("server"))
        self._seen.left_at_end = read_spool(self._spool)
        return self._seen

    @property
    def _spool(self) -> Path:
        return self.directory / "spool"

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.jsonl"

    def _life_path(self, life: int) -> Path:
        return self._path(f"life-{life}")

    def _calm(self, seconds: float, samples: list[Sample]) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._tick(samples)

    def _storm(self, plan: Plan, server: ServerProcess) -> None:
        """Have faults come and go, and kill the process, until the time is over."""
        begun = time.monotonic()
        end, last_kill = begun + plan.storm_seconds, begun + plan.kills_seconds
        weather = self._weather(plan, server, end)
        kill_at = begun + plan.life_seconds()
        while next(weather, None) is not None:
            if kill_at <= time.monotonic() and kill_at <= last_kill:
                self._kill(server.url, plan.restart_seconds())
                kill_at = time.monotonic() + plan.life_seconds()
            self._tick(self._seen.storm)

    def _weather(self, plan: Plan, server: ServerProcess, end: float) -> Iterator[Kind]:
        """Yield what is in force, again and again, until the time is over and each kind was."""
        for number, events in enumerate(plan.rounds()):
            for event in events:
                if number > 0 and time.monotonic() >= end:
                    return
                yield from self._event(event, server)

    def _event(self, event: Event, server: ServerProcess) -> Iterator[Kind]:
        self.tell(f"{event.kind} for {event.seconds:.1f} s")
        server.ask("fault", event.kind)
        until = time.monotonic() + event.seconds
        while time.monotonic() < until or not self._is_met(event, server, until):
            yield event.kind
        server.ask("fault", Kind.NONE)
        until = time.monotonic() + event.pause_seconds
        while time.monotonic() < until:
            yield Kind.NONE

    @staticmethod
    def _is_met(event: Event, server: ServerProcess, until: float) -> bool:
        """Say whether a request has met a fault; a connect that is refused can't be seen."""
        seen = event.kind is Kind.REFUSING or server.ask("met")
        return bool(seen) or time.monotonic() > until + MEET_SECONDS

    def _start(self, url: str, *, first: int) -> None:
        """Start a process, and wait until it captures."""
        path = self._life_path(self._lives)
        relay = {f"ARTHUR_RELAY_{name}": value for name, value in SETTINGS.items()}
        if self.seconds >= LONG_SECONDS:
            relay["ARTHUR_RELAY_REQUEST_TIMEOUT_SECONDS"] = str(REQUEST_TIMEOUT_SECONDS)
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-m", "tests.soak.child"),
                *(str(path), str(first), str(self.rate), str(self.seed)),
            ],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            env={
                **environment(),
                "ARTHUR_ENDPOINT_URL": url,
                "ARTHUR_API_KEY": "soak",
                "ARTHUR_MODEL_ID": "soak",
                **relay,
                "ARTHUR_RELAY_SPOOL_DIR": str(self._spool),
            },
        )
        self._lives += 1
        end = time.monotonic() + START_SECONDS
        while not path.exists() or not path.stat().st_size:
            if self._child.poll() is not None or time.monotonic() > end:
                raise SoakError(f"the process did not begin to capture: {self._child.poll()}")
            time.sleep(TICK_SECONDS)

    def _kill(self, url: str, pause_seconds: float) -> None:
        """Kill the process, look at what it left, and start another."""
        child = self._running()
        at = time.monotonic()
        child.kill()
        child.wait()
        kill = Kill(at, time.monotonic(), read_spool(self._spool))
        self._close(child)
        self._seen.kills.append(kill)
        self.tell(f"killed; {len(kill.left)} rows are in its spool")
        self.on_kill(self._spool)
        time.sleep(pause_seconds)
        captured = read_life(self._life_path(self._lives - 1)).captured
        self._start(url, first=1 + max(map(number_of, captured)))

    def _end(self) -> None:
        """Have the process deliver what is left, and end."""
        child = self._running()
        assert child.stdin is not None
        child.stdin.close()
        try:
            status = child.wait(3 * LEFT_SECONDS)
        except subprocess.TimeoutExpired:
            raise SoakError("the process did not end") from None
        if status:
            raise SoakError(f"the process ended with status {status}")

    def _tick(self, samples: list[Sample]) -> None:
        child = self._running()
        now = time.monotonic()
        if now >= self._sampled_at + SAMPLE_SECONDS:
            self._sampled_at = now
            spool = bytes_in(self._spool)
            samples.append(Sample(now, self._lives - 1, resident_bytes(child.pid), spool))
        time.sleep(TICK_SECONDS)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._child is not None
        if self._child.poll() is not None:
            raise SoakError(f"the process ended by itself, with status {self._child.returncode}")
        return self._child

    @contextmanager
    def _children(self) -> Iterator[None]:
        """Leave no process behind."""
        try:
            yield
        finally:
            if self._child is not None:
                self._child.kill()
                self._child.wait()
                self._close(self._child)

    @staticmethod
    def _close(child: subprocess.Popen[bytes]) -> None:
        if child.stdin is not None:
            with suppress(OSError):
                child.stdin.close()


def resident_bytes(pid: int) -> int:
    """The memory that a process has; Linux only."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def bytes_in(directory: Path) -> int:
    """The bytes of the files in a directory, which may come and go meanwhile."""
    size = 0
    for path in directory.glob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size
