"""The wait after repeated failures, for everything that retries."""

MOST_DOUBLINGS = 62
"""With many more, a float would overflow."""


def ceiling_seconds(failures: int, *, first_seconds: float, longest_seconds: float) -> float:
    """Return the longest wait after repeated failures, which doubles with each.

    Args:
        failures: The number of failures before this one, 0 or more.
        first_seconds: The wait after the first one.
        longest_seconds: The longest wait.
    """
    return min(longest_seconds, first_seconds * 2.0 ** min(failures, MOST_DOUBLINGS))


def upper_half(seconds: float, random: float) -> float:
    """Return a random wait in the upper half of a range, so that processes don't retry together.

    Args:
        seconds: The longest wait.
        random: A random number in 0..1.
    """
    return seconds * (0.5 + 0.5 * random)
