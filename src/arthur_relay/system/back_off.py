"""How long to wait after failures in a row: what all that tries again has in common."""

MOST_DOUBLINGS = 62
"""Past some more a float would overflow."""


def ceiling_seconds(failures: int, *, first_seconds: float, longest_seconds: float) -> float:
    """Return the longest wait after some failures in a row: it doubles with each.

    Args:
        failures: How many there were before this one, 0 or more.
        first_seconds: The wait after the first.
        longest_seconds: The longest wait.
    """
    return min(longest_seconds, first_seconds * 2.0 ** min(failures, MOST_DOUBLINGS))


def upper_half(seconds: float, random: float) -> float:
    """Return a wait in the upper half of another, so that many processes do not ask together.

    Args:
        seconds: The longest wait.
        random: A number in 0..1.
    """
    return seconds * (0.5 + 0.5 * random)
