"""What happened in the demo, and when: tokens, outages, and the relay's counts over time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay.stats import Stats

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
        clock: Returns seconds, monotonically.

    Attributes:
        there: The tokens' pace while Arthur was there.
        away: The tokens' pace while it was not.
        samples: All samples, oldest first.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started_at = clock()
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
        return (self._clock() if self._back_at is None else self._back_at) - self._gone_at

    @property
    def most_pending(self) -> int:
        """The most inferences that waited at once, as far as samples tell."""
        return max((sample.stats.pending for sample in self.samples), default=0)

    def token(self) -> None:
        """Count a token, now."""
        now = self._clock()
        if self._last_token_at is not None:
            (self.away if self.is_away else self.there).add(now - self._last_token_at)
        self._last_token_at = now
        index = int((now - self._started_at) / SLICE_SECONDS)
        self._tokens.extend([0] * (index + 1 - len(self._tokens)))
        self._tokens[index] += 1

    def gone(self) -> None:
        """Note that Arthur is away from now on."""
        self._gone_at = self._clock()

    def back(self) -> None:
        """Note that Arthur is there again."""
        self._back_at = self._clock()

    def sample(self, stats: Stats) -> None:
        """Note the relay's counts, now."""
        self.samples.append(Sample(self._clock(), stats, self.is_away))

    def recovery_seconds(self) -> float | None:
        """Return how long after the outage all that had waited was settled; None if it never was.

        Exact to the time between two samples.
        """
        if self._back_at is None:
            return None
        after = [sample for sample in self.samples if sample.at >= self._back_at]
        if not after:
            return None
        captured = after[0].stats.captured
        for sample in after:
            if sample.stats.captured - sample.stats.pending >= captured:
                return sample.at - self._back_at
        return None

    def timeline(self, columns: int) -> tuple[list[Slice], float]:
        """Return the time so far in slices, no more than fit, and the seconds that each one has.

        They are twice as long whenever they would be too many otherwise. The unfinished one is
        left out.
        """
        done = int((self._clock() - self._started_at) / SLICE_SECONDS)
        width = 1
        while done // width > columns:
            width *= 2
        tokens = self._tokens[:done]
        pending, away = [0] * done, [False] * done
        for sample in list(self.samples):
            index = int((sample.at - self._started_at) / SLICE_SECONDS)
            if index < done:
                pending[index] = max(pending[index], sample.stats.pending)
                away[index] = away[index] or sample.away
        slices = [
            Slice(
                sum(tokens[first : first + width]) / (width * SLICE_SECONDS),
                max(pending[first : first + width]),
                any(away[first : first + width]),
            )
            for first in range(0, done - width + 1, width)
        ]
        return slices, width * SLICE_SECONDS
