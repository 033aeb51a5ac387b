"""A circuit breaker with holds: decides when requests may be sent. Pure: time is an argument."""

from enum import Enum

from arthur_relay.system.back_off import ceiling_seconds, upper_half
from arthur_relay.system.randomness import Randomness


class BreakerState(Enum):
    """Whether requests pass."""

    CLOSED = "closed"
    """Requests pass."""
    OPEN = "open"
    """No request passes until the next probe is due."""
    PROBING = "probing"
    """A probe is in flight."""


class Breaker:
    """Opens after failures in a row, lets single probes pass, and closes when one succeeds.

    The wait between probes doubles from `first_wait_seconds` to `max_wait_seconds`, with full
    jitter on its upper half so that many processes do not probe together. A hold, for which the
    destination itself asks with `Retry-After`, stops all requests, probes as well.

    Args:
        failures: Failures in a row that open it, 1 or more.
        first_wait_seconds: The wait before the first probe.
        max_wait_seconds: The longest wait between probes.
        random: The randomness of jitter.

    Attributes:
        state: Whether requests pass.
        failures_in_a_row: Failures since the last success.
        opened: How often it opened.
    """

    def __init__(
        self,
        *,
        failures: int,
        first_wait_seconds: float,
        max_wait_seconds: float,
        random: Randomness,
    ) -> None:
        self._threshold = failures
        self._first_wait = first_wait_seconds
        self._max_wait = max_wait_seconds
        self._random = random
        self.state = BreakerState.CLOSED
        self.failures_in_a_row = 0
        self.opened = 0
        self._openings = 0
        self._probe_at = 0.0
        self._held_until = 0.0

    def fresh(self) -> "Breaker":
        """Return a new, closed breaker with the same limits."""
        return Breaker(
            failures=self._threshold,
            first_wait_seconds=self._first_wait,
            max_wait_seconds=self._max_wait,
            random=self._random,
        )

    def admit(self, now: float) -> float:
        """Ask whether one request may be made.

        Returns:
            0 when the request may be made now; an open breaker counts it as its probe. Else
            the seconds after which asking again makes sense; `inf` while a probe is in flight.
        """
        wait = self.wait(now)
        if wait <= 0 and self.state is BreakerState.OPEN:
            self.state = BreakerState.PROBING
        return wait

    def wait(self, now: float) -> float:
        """Return the same as `admit`, and change nothing."""
        if now < self._held_until:
            return self.held(now)
        match self.state:
            case BreakerState.CLOSED:
                return 0.0
            case BreakerState.PROBING:
                return float("inf")
            case BreakerState.OPEN:
                return max(0.0, self._probe_at - now)

    def succeeded(self) -> bool:
        """Record that the destination answered. Returns True when that closed the breaker."""
        self.failures_in_a_row = 0
        was_open = self.state is not BreakerState.CLOSED
        self.state = BreakerState.CLOSED
        self._openings = 0
        return was_open

    def failed(self, now: float, *, at_once: bool = False) -> bool:
        """Record that the destination is in trouble. Returns True when that opened the breaker.

        Args:
            now: The time.
            at_once: Whether one failure is enough to open it.
        """
        self.failures_in_a_row += 1
        is_enough = at_once or self.failures_in_a_row >= self._threshold
        if self.state is BreakerState.CLOSED and not is_enough:
            return False
        opened = self.state is BreakerState.CLOSED
        self.opened += opened
        self._open(now)
        return opened

    def overdue(self, now: float) -> None:
        """Record that a probe has no answer for long: the next one need not wait for it."""
        if self.state is BreakerState.PROBING:
            self._open(now)

    def _open(self, now: float) -> None:
        if self.state is not BreakerState.OPEN:
            longest = ceiling_seconds(
                self._openings, first_seconds=self._first_wait, longest_seconds=self._max_wait
            )
            self._probe_at = now + upper_half(longest, self._random.random())
            self._openings += 1
        self.state = BreakerState.OPEN

    def abandoned(self, now: float) -> None:
        """Record that an admitted request was cancelled before there was an answer."""
        if self.state is BreakerState.PROBING:
            self.state = BreakerState.OPEN
            self._probe_at = now

    def held(self, now: float) -> float:
        """Return for how many more seconds the destination asked for no requests."""
        return max(0.0, self._held_until - now)

    def hold(self, until: float) -> None:
        """Let nothing pass before `until`, as the destination asked."""
        self._held_until = max(self._held_until, until)

    def probe_now(self, now: float) -> None:
        """Make the next probe due at once; a hold stays."""
        if self.state is BreakerState.OPEN:
            self._probe_at = min(self._probe_at, now)
