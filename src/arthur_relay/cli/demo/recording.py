"""What happened in a demo, and when: tokens, the outage, the relay's counts, and the verdict."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from rich.table import Table
from rich.text import Text

from arthur_relay.relay import Relay
from arthur_relay.stats import Stats
from arthur_relay.system.clocks import SYSTEM_CLOCK, Clock

SAMPLE_SECONDS: Final = 0.1
"""The time between two looks at the relay's counts."""

SLICE_SECONDS: Final = 0.25
"""The finest slice of the timeline."""


@dataclass(slots=True)
class Pace:
    """How tokens came, while Arthur was there or while it was away.

    Attributes:
        tokens: How many came.
        seconds: The time that they took, from the token before the first of them.
        longest_pause_seconds: The longest time between two of them.
    """

    tokens: int = 0
    seconds: float = 0.0
    longest_pause_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Tokens a second; 0 when there were none."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def add(self, seconds: float) -> None:
        """Count a token that came some seconds after the one before."""
        self.tokens += 1
        self.seconds += seconds
        self.longest_pause_seconds = max(self.longest_pause_seconds, seconds)


class Sample(NamedTuple):
    """The relay's counts at one moment, and whether Arthur was away then."""

    at: float
    stats: Stats
    away: bool


class Slice(NamedTuple):
    """A part of the timeline: tokens a second, the most that waited, whether Arthur was away."""

    tokens_per_second: float
    pending: int
    away: bool


class Recording:
    """Records a demo. One thread streams tokens, one takes samples, one makes the outage.

    Args:
        clock: Measures durations.

    Attributes:
        there: The tokens' pace while Arthur was there.
        away: The tokens' pace while it was not.
        samples: All samples, oldest first.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._started_at = clock.monotonic()
        self._last_token_at: float | None = None
        self._tokens: list[int] = []
        self._gone_at: float | None = None
        self._back_at: float | None = None
        self.there = Pace()
        self.away = Pace()
        self.samples: list[Sample] = []

    @property
    def is_away(self) -> bool:
        """Whether Arthur is away now."""
        return self._gone_at is not None and self._back_at is None

    @property
    def outage_seconds(self) -> float:
        """How long Arthur has been away; 0 when it never was."""
        if self._gone_at is None:
            return 0.0
        return (self._clock.monotonic() if self._back_at is None else self._back_at) - self._gone_at

    @property
    def most_pending(self) -> int:
        """The most inferences that waited at once in any sample."""
        return max((sample.stats.pending for sample in self.samples), default=0)

    def token(self) -> None:
        """Count a token, now."""
        now = self._clock.monotonic()
        if self._last_token_at is not None:
            (self.away if self.is_away else self.there).add(now - self._last_token_at)
        self._last_token_at = now
        index = self._slice_of(now)
        self._tokens.extend([0] * (index + 1 - len(self._tokens)))
        self._tokens[index] += 1

    def gone(self) -> None:
        """Note that Arthur is away from now on."""
        self._gone_at = self._clock.monotonic()

    def back(self) -> None:
        """Note that Arthur is there again."""
        self._back_at = self._clock.monotonic()

    def sample(self, stats: Stats) -> None:
        """Note the relay's counts, now."""
        self.samples.append(Sample(self._clock.monotonic(), stats, self.is_away))

    @contextlib.contextmanager
    def sampling(self, relay: Relay) -> Iterator[None]:
        """Take samples several times a second inside of the block, and once more at its end."""
        enough = threading.Event()
        thread = threading.Thread(target=self._take_samples, args=(relay, enough))
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()

    def _take_samples(self, relay: Relay, enough: threading.Event) -> None:
        over = False
        while not over:
            over = enough.wait(SAMPLE_SECONDS)
            self.sample(relay.stats())

    def recovery_seconds(self) -> float | None:
        """Return how long after the outage all that waited was settled; None if it never was.

        It is exact to the time between two samples.
        """
        if self._back_at is None:
            return None
        after = [sample for sample in self.samples if sample.at >= self._back_at]
        for at, stats, _ in after:
            if stats.captured - stats.pending >= after[0].stats.captured:
                return at - self._back_at
        return None

    def timeline(self, columns: int) -> tuple[list[Slice], float]:
        """Return the time so far in slices, no more than fit, and the seconds of each.

        They are twice as long whenever they would be too many otherwise. The unfinished one is
        left out.
        """
        done = self._slice_of(self._clock.monotonic())
        width = 1
        while done // width > columns:
            width *= 2
        pending, away = [0] * done, [False] * done
        for sample in list(self.samples):
            index = self._slice_of(sample.at)
            if index < done:
                pending[index] = max(pending[index], sample.stats.pending)
                away[index] = away[index] or sample.away
        parts = [slice(first, first + width) for first in range(0, done - width + 1, width)]
        seconds = width * SLICE_SECONDS
        tokens = self._tokens
        slices = [Slice(sum(tokens[p]) / seconds, max(pending[p]), any(away[p])) for p in parts]
        return slices, seconds

    def _slice_of(self, moment: float) -> int:
        return int((moment - self._started_at) / SLICE_SECONDS)


class Verdict(NamedTuple):
    """The last line, and whether everything is there."""

    line: str
    is_complete: bool


def judge(stats: Stats, *, answers: int, turns: int, stored: int | None) -> Verdict:
    """Return whether every run of the model was captured, delivered and stored.

    Args:
        stats: The relay's counts at the end.
        answers: How many turns were asked of the model.
        turns: How many should have been; fewer were when the model failed.
        stored: How many inferences Arthur has; None when it can't be looked at.
    """
    equation = f"captured {stats.captured} = delivered {stats.delivered}"
    there = stats.delivered if stored is None else min(stats.delivered, stored)
    if answers == stats.captured == there:
        if answers < turns:
            return Verdict(f"{equation}, but the model failed.", is_complete=False)
        return Verdict(f"{equation}: nothing is missing.", is_complete=True)
    losses = {
        "not captured": answers - stats.captured,
        "pending": stats.pending,
        "rejected": stats.rejected,
        "dropped": sum(stats.dropped.values()),
        "not stored": 0 if stored is None else max(0, stats.delivered - stored),
    }
    found = ", ".join(f"{count} {name}" for name, count in losses.items() if count)
    equation = f"asked {answers}, captured {stats.captured}, delivered {stats.delivered}"
    return Verdict(f"{equation}: {answers - there} missing ({found}).", is_complete=False)


def pace_table(recording: Recording) -> Table:
    """Return the tokens' pace with and without Arthur, beside each other."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for title in ("tokens", "tokens/s", "longest pause"):
        table.add_column(title, justify="right")
    table.add_row("Arthur there", *_cells(recording.there))
    if recording.outage_seconds:
        table.add_row("Arthur away", *_cells(recording.away), style="bold")
    return table


def _cells(pace: Pace) -> tuple[str, str, str]:
    if not pace.tokens:
        return "0", "-", "-"
    return str(pace.tokens), f"{pace.per_second:.1f}", f"{pace.longest_pause_seconds * 1000:.0f} ms"


def story(recording: Recording, stats: Stats) -> Text | None:
    """Return what the outage did, in a sentence or two; None when there was none."""
    if not recording.outage_seconds:
        return None
    waited = recording.most_pending
    waiters = f"{waited} inference{'' if waited == 1 else 's'}"
    away = f"Arthur was away for {recording.outage_seconds:.1f} s."
    lines = [f"{away} The stream did not wait; up to {waiters} did."]
    recovery = recording.recovery_seconds()
    if recovery is not None:
        # To the tenth of a second, which is how often samples are taken.
        lines.append(f"{max(recovery, 0.1):.1f} s after it was back, all that waited had arrived.")
    lines.append(f"Requests made again meanwhile: {stats.retries}.")
    return Text("\n".join(lines))
