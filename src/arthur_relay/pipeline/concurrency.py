"""Decides how many requests may be on their way at once; pure, durations are given."""

from dataclasses import dataclass

BACK_OFF = 0.5
"""What is left of the limit when a request fails: as TCP does (RFC 5681)."""

EASE = 0.8
"""What is left of it when answers only become slow: gentler, as nothing was lost yet."""

SLOW_FACTOR = 1.5
"""Answers are slow when they take this many times as long as they took in good times."""

SMOOTHING = 0.3
"""Weight of the newest answer in the mean; the next three to four hold most of it."""

DRIFT = 0.005
"""How fast good times follow a change that stays: hundreds of answers."""

FLOOR_SECONDS = 0.05
"""Answers faster than this are never slow: what varies there is the machine, not Arthur."""


@dataclass(slots=True)
class _Times:
    """How long answers take: the latest, and in good times."""

    recent_seconds: float
    good_seconds: float

    def became_slow(self, seconds: float) -> bool:
        """Take in one more answer. Returns whether answers are slow now."""
        self.recent_seconds += SMOOTHING * (seconds - self.recent_seconds)
        # Good times are the shortest seen, and follow slowly what has become longer for good.
        self.good_seconds += DRIFT * (self.recent_seconds - self.good_seconds)
        self.good_seconds = min(self.good_seconds, self.recent_seconds)
        return self.recent_seconds > max(FLOOR_SECONDS, SLOW_FACTOR * self.good_seconds)


class ConcurrencyLimit:
    """Adapts to what the destination can take: additive increase, multiplicative decrease.

    Each full round of good answers allows one request more; a failure halves the limit, answers
    that have become slow take a fifth of it, and either at most once for the requests that were
    on their way together (Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for
    Congestion Avoidance", 1989). It begins at the maximum, because a relay that has just started
    usually has an Arthur that works.

    Args:
        maximum: Requests at once that are never exceeded, 1 or more.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._limit = float(maximum)
        self._round = 0
        self._times: dict[int, _Times] = {}

    @property
    def requests(self) -> int:
        """Requests that may be on their way at once, 1 to `maximum`."""
        return int(self._limit)

    def begin(self) -> int:
        """Return the round that a request belongs to which sets off now."""
        return self._round

    def succeeded(self, began_in: int, *, seconds: float, size: int) -> None:
        """Record that the destination did its work.

        Args:
            began_in: What `begin` returned for the request.
            seconds: How long it took.
            size: Bytes that were sent; only requests of about the same size are compared.
        """
        times = self._times.setdefault(size.bit_length(), _Times(seconds, seconds))
        if times.became_slow(seconds):
            self._cut(began_in, EASE)
        else:
            self._limit = min(self._maximum, self._limit + 1.0 / self._limit)

    def failed(self, began_in: int) -> None:
        """Record that the destination was overloaded, in trouble, or not there."""
        self._cut(began_in, BACK_OFF)

    def _cut(self, began_in: int, factor: float) -> None:
        if began_in < self._round:
            return  # it set off before the last cut and says nothing of the limit since
        self._round += 1
        self._limit = max(1.0, self._limit * factor)
