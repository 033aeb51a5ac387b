"""The peers of a workload in a row: each takes its turn, round after round, A, B, C, A, B, C."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.benchmarks.children import Child, ChildError, Deadline, tell
from tests.benchmarks.peers import BY_DAEMON, ENGINE, ENGINE_LLM
from tests.benchmarks.results import Cells, Sample

if TYPE_CHECKING:
    from tests.benchmarks.sink import Sink

OPEN_LIMIT_SECONDS = 60.0
FLUSH_LIMIT_SECONDS = 40.0
ROOM: Mapping[str, Any] = {"queue_size": 1_000_000, "queue_bytes": 4 << 30}
"""The relay's settings where its speed is measured, and not what happens at its bounds."""

_RELAYS = ("relay", BY_DAEMON, ENGINE, ENGINE_LLM)


class Repetitions(NamedTuple):
    """How often a case is measured; one more goes before and does not count."""

    core: int
    """Those whose figures are judged."""
    others: int
    """All other peers."""


@dataclass(frozen=True)
class Stage:
    """What a workload is run with; ends the measuring processes that are left.

    Attributes:
        python: The interpreter of the measuring processes.
        peers: Who is measured, in the order of the rounds.
        core: Those among them that are measured the full number of times; the others' ratios need
            no such precision, and some take their time.
        quick: Whether this is the quick form.
        sink: The server that all of them send to.
        deadline: Of the whole run.
        addresses: Of what else than the sink a peer sends to, by peer.
        idle: Measuring processes that may be used again, by peer and settings.
    """

    python: str
    peers: tuple[str, ...]
    core: frozenset[str]
    quick: bool
    sink: Sink
    deadline: Deadline
    addresses: dict[str, str] = field(default_factory=dict)
    idle: dict[tuple[str, str], Child] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for child in self.idle.values():
            child.kill()

    def lineup(
        self,
        cells: Cells,
        *,
        peers: Iterable[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        unspoilt: bool = True,
    ) -> Lineup:
        """Measuring processes for the peers, or for some of them.

        Args:
            cells: Where samples go.
            peers: Who takes part; all when None.
            settings: For the relay.
            unspoilt: Whether the processes can be used for something else after it.
        """
        chosen = tuple(self.peers if peers is None else peers)
        return Lineup(self, cells, chosen, dict(settings or {}), unspoilt=unspoilt)

    def hire(self, peer: str, settings: Mapping[str, Any]) -> Child:
        """A measuring process, in which the peer may be open already."""
        child = self.idle.pop(_key(peer, settings), None)
        if child is None:
            url = self.addresses.get(peer, self.sink.url)
            child = Child(self.python, peer=peer, url=url, deadline=self.deadline)
        return child

    def wait_for_arrivals(self, records: int, *, limit_seconds: float, look_seconds: float) -> int:
        """Wait until so many have arrived at the sink, or the time is up; returns how many have."""
        until = time.monotonic() + self.deadline.within(limit_seconds)
        while (arrived := self.sink.counts().records) < records and time.monotonic() < until:
            time.sleep(look_seconds)
        return arrived

    def dismiss(self, child: Child, settings: Mapping[str, Any], *, unspoilt: bool) -> None:
        """End a measuring process, or keep it: starts take most of the quick form's time."""
        if self.quick and unspoilt:
            self.idle[_key(child.peer, settings)] = child
        else:
            child.kill()


def _key(peer: str, settings: Mapping[str, Any]) -> tuple[str, str]:
    return peer, json.dumps(settings, sort_keys=True)


class Lineup:
    """Measuring processes, one a peer, each kept from the first round to the last.

    Args:
        stage: What the workload is run with.
        cells: Where samples go.
        peers: Who takes part.
        settings: For the relay; the other peers have none.
        unspoilt: See `Stage.lineup`.
    """

    def __init__(
        self,
        stage: Stage,
        cells: Cells,
        peers: tuple[str, ...],
        settings: dict[str, Any],
        *,
        unspoilt: bool,
    ) -> None:
        self._stage = stage
        self._cells = cells
        self._settings = {peer: settings if peer in _RELAYS else {} for peer in peers}
        self._unspoilt = unspoilt
        self._children: dict[str, Child] = {}
        self._out: dict[str, str] = {}

    def __enter__(self) -> Self:
        # All start before the first one is waited for.
        for peer, settings in self._settings.items():
            self._children[peer] = self._stage.hire(peer, settings)
        for peer, settings in self._settings.items():
            child = self._children[peer]
            if child.delivers is None:
                opened = self._attempt(peer, "open", OPEN_LIMIT_SECONDS, {"settings": settings})
                child.delivers = opened is not None and bool(opened["delivers"])
        return self

    def __exit__(self, *_error: object) -> None:
        for peer, child in self._children.items():
            unspoilt = peer not in self._out and (self._unspoilt or not child.delivers)
            self._stage.dismiss(child, self._settings[peer], unspoilt=unspoilt)

    def child(self, peer: str) -> Child:
        """A peer's process."""
        return self._children[peer]

    def delivers(self, peer: str) -> bool:
        """Whether a peer's records arrive at the sink."""
        return bool(self._children[peer].delivers)

    def ask(
        self, peer: str, case: str, command: str, *, limit_seconds: float, **arguments: object
    ) -> Sample | None:
        """Have a peer do something for a case; a failure goes into the case's cell.

        A peer that failed before is not asked again: what it would say is not comparable.

        Returns:
            What it answered, or None.
        """
        if peer not in self._out:
            answer = self._attempt(peer, command, limit_seconds, arguments)
            if answer is not None:
                return answer
        self._cells.cell(case, peer).failure = self._out[peer]
        return None

    def measure(
        self, peer: str, case: str, command: str, *, limit_seconds: float, **arguments: object
    ) -> Sample | None:
        """Do what `ask` does, and keep the answer as a sample of the case."""
        answer = self.ask(peer, case, command, limit_seconds=limit_seconds, **arguments)
        if answer is not None:
            self._cells.cell(case, peer).samples.append(answer)
        return answer

    def rounds(
        self,
        case: str,
        command: str,
        counts: Repetitions,
        *,
        limit_seconds: float,
        flush: bool = False,
        after: Callable[[str], object] = lambda _peer: None,
        **arguments: object,
    ) -> None:
        """Measure a case with all peers, round by round, after one that does not count.

        Args:
            case: Where the samples go.
            command: What the measuring processes do.
            counts: How often.
            limit_seconds: For one repetition.
            flush: Whether a peer delivers, unmeasured, before the next one has its turn.
            after: Called with each peer that has had its turn, and has delivered.
            **arguments: Of the command.
        """
        for repetition in range(-1, counts.core):
            for peer in self._children:
                if repetition >= counts.others and peer not in self._stage.core:
                    continue
                act = self.ask if repetition < 0 else self.measure
                act(peer, case, command, limit_seconds=limit_seconds, **arguments)
                if flush:
                    seconds = FLUSH_LIMIT_SECONDS
                    self.ask(peer, case, "flush", limit_seconds=seconds, flush_seconds=seconds / 2)
                after(peer)

    def _attempt(
        self, peer: str, command: str, limit_seconds: float, arguments: dict[str, object]
    ) -> Sample | None:
        try:
            return self._children[peer].ask(command, limit_seconds, **arguments)
        except ChildError as failure:
            tell(f"    {peer}: {failure}")
            self._out[peer] = str(failure)
            return None
