"""When a failed delivery is tried again: tenacity policies over the relay's own clock.

tenacity measures elapsed time with the real clock; the stop policy here takes the worker's, so
that the tests' virtual clock holds for it. The predicate is an allow-list: anything else that an
attempt may raise, cancellation above all, passes through untouched.
"""

from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_result
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from arthur_relay.system.back_off import ceiling_seconds
from arthur_relay.system.randomness import Randomness

URGENT_SECONDS = 0.25
"""The longest wait between attempts while a deadline runs: an outage may end before it does."""


class FullJitter(wait_base):
    """Waits between 0 and an exponentially growing ceiling, each wait equally likely.

    After M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015:
    `random(0, min(cap, base * 2 ** attempt))`.

    Args:
        initial_seconds: The ceiling of the first wait.
        max_seconds: The highest ceiling.
        random: The randomness of jitter.
        attempts_before: Earlier attempts that count as well.
    """

    def __init__(
        self,
        *,
        initial_seconds: float,
        max_seconds: float,
        random: Randomness,
        attempts_before: int = 0,
    ) -> None:
        self._before = attempts_before
        self._initial = initial_seconds
        self._max = max_seconds
        self._random = random

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the wait before the next attempt, in seconds."""
        return self._random.random() * ceiling_seconds(
            self._before + retry_state.attempt_number - 1,
            first_seconds=self._initial,
            longest_seconds=self._max,
        )


class StopAfterElapsed(stop_base):
    """Stops when the next attempt would begin later than the deadline.

    Args:
        deadline: On the clock's scale.
        clock: Returns the time.
    """

    def __init__(self, *, deadline: float, clock: Callable[[], float]) -> None:
        self._deadline = deadline
        self._clock = clock

    def __call__(self, retry_state: RetryCallState) -> bool:
        """Return whether to give up."""
        return self._clock() + retry_state.upcoming_sleep >= self._deadline


def retrying(
    *,
    wait: FullJitter,
    stop: StopAfterElapsed,
    sleep: Callable[[float], Awaitable[None]],
) -> AsyncRetrying:
    """Return a policy that repeats an attempt for as long as its result is True.

    The last result is returned when it gives up: True, there is something left to retry.
    """
    return AsyncRetrying(
        retry=retry_if_result(lambda more: more is True),
        wait=wait,
        stop=stop,
        sleep=sleep,
        retry_error_callback=_last_result,
    )


def _last_result(_retry_state: RetryCallState) -> bool:
    return True
