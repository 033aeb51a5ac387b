"""Decides how many requests may be sent at once. Pure: durations are arguments."""

from dataclasses import dataclass, field
from math import exp, inf, log, sqrt

BACK_OFF = 0.5
"""The factor of the limit when a request fails, as in TCP (RFC 5681)."""

EASE = 0.8
"""The factor when answers only become slow: gentler, as nothing was lost yet."""

PROBE = 0.25
"""How fast the limit grows near the value at which a request last failed; elsewhere it is 1.

A destination of constant capacity refuses a request each time that the limit exceeds it. As in
CUBIC (RFC 9438), the limit stays longer just below that value, and grows as usual beyond it.
"""

SLOW_FACTOR = 1.5
"""Answers are slow when they take this many times as long as usual in good times."""

NOISE_FACTOR = 4.0
"""And when the difference is this many standard deviations of the mean, as answers vary."""

SMOOTHING = 0.3
"""The largest weight of the newest answer in the mean; less where a round has more answers."""

DEVIATION_SMOOTHING = 0.02
"""Weight of the newest answer in the mean deviation; fifty of them show how much answers vary."""

BETTER_NOISE_FACTOR = 2.0
"""Times are better than the good ones when they differ by so many standard deviations of the mean.

Were the shortest mean ever seen taken for good times, those would be a matter of luck.
"""

BETTER = 0.1
"""How fast good times follow better ones."""

DRIFT = 0.0005
"""How fast they follow slower ones: over thousands of answers, as our load may be the cause."""

LONE_DRIFT = 0.1
"""The same while there is one request at a time: then our load is not the cause."""

FLOOR_SECONDS = 0.05
"""Answers faster than this are never slow: their times vary with the machine, not Arthur."""

_LEAST_SECONDS = 1e-6
_DEVIATIONS = 1.25
"""A standard deviation in mean deviations, as in TCP's timer (Jacobson, 1988)."""


@dataclass(slots=True)
class _Times:
    """How long answers take: lately, in good times, and how much that varies; logarithms.

    In logarithms twice as long and half as long are as far away: few answers that take very long,
    which any service has, are not the mean.
    """

    recent: float
    good: float = field(init=False)
    deviation: float = 0.0

    def __post_init__(self) -> None:
        self.good = self.recent

    def became_slow(self, answer: float, *, limit: int) -> bool:
        """Take in one more answer, in a round of `limit`. Returns whether answers are slow now."""
        weight = min(SMOOTHING, 2.0 / (limit + 1))
        self.deviation += DEVIATION_SMOOTHING * (abs(answer - self.recent) - self.deviation)
        self.recent += weight * (answer - self.recent)
        # The deviation of an exponential mean of independent answers.
        noise = _DEVIATIONS * self.deviation * sqrt(weight / (2.0 - weight))
        slower = self.recent - self.good
        if slower < -BETTER_NOISE_FACTOR * noise:
            self.good += BETTER * slower
        else:
            self.good += (LONE_DRIFT if limit == 1 else DRIFT) * slower
        is_slow = slower > max(log(SLOW_FACTOR), NOISE_FACTOR * noise)
        return is_slow and exp(self.recent) > FLOOR_SECONDS


class ConcurrencyLimit:
    """Adapts to what the destination can take: additive increase, multiplicative decrease.

    Each full round of good answers allows one request more, and four rounds where that was too much
    the last time; a failure halves the limit, a round of answers that have become slow takes a
    fifth of it, and either at most once for the requests that were in flight together (Chiu and
    Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance", 1989). It
    begins at the maximum, because a relay that has just started usually has an Arthur that works.

    Args:
        maximum: Requests at once that are never exceeded, 1 or more.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._limit = float(maximum)
        self._too_much = inf
        self._round = 0
        self._answers = 0  # of this round
        self._times: dict[int, _Times] = {}

    @property
    def requests(self) -> int:
        """Requests that may be in flight at once, 1 to `maximum`."""
        return int(self._limit)

    def begin(self) -> int:
        """Return the round of a request that is sent now."""
        return self._round

    def succeeded(self, began_in: int, *, seconds: float, size: int) -> None:
        """Record that the destination did its work.

        Args:
            began_in: What `begin` returned for the request.
            seconds: How long it took.
            size: Bytes that were sent; only requests of about the same size are compared.
        """
        answer = log(max(seconds, _LEAST_SECONDS))
        times = self._times.setdefault(size.bit_length(), _Times(answer))
        self._answers += began_in >= self._round
        if times.became_slow(answer, limit=self.requests):
            # The mean has to be that of answers since the last cut, or one cause would cut twice.
            if self._answers >= self.requests:
                self._cut(began_in, EASE)
        else:
            is_near = self._too_much - 1.0 <= self._limit < self._too_much
            more = PROBE if is_near else 1.0
            self._limit = min(self._maximum, self._limit + more / self._limit)

    def failed(self, began_in: int) -> None:
        """Record that the destination was overloaded, failed, or could not be reached."""
        if began_in >= self._round:
            self._too_much = self.requests
        self._cut(began_in, BACK_OFF)

    def _cut(self, began_in: int, factor: float) -> None:
        if began_in < self._round:
            return  # it was sent before the last cut, and says nothing about the new limit
        self._round += 1
        self._answers = 0
        self._limit = max(1.0, self._limit * factor)
