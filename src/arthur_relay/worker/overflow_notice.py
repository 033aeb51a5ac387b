"""Says once when the queue begins to overflow, and once when it has stopped; pure."""

QUIET_SECONDS = 60.0
"""How long nothing may overflow before the log says that the queue has room again."""


class OverflowNotice:
    """A line for the log when the state changes, never one for each inference.

    Args:
        policy: What is done when the queue is full, for the text.
    """

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self._seen = 0
        self._seen_at = 0.0
        self._overflows = False

    def look(self, overflown: int, now: float) -> str | None:
        """Return what to log, or None.

        Args:
            overflown: Inferences that did not fit, so far.
            now: Seconds, on any scale.
        """
        grew = overflown > self._seen
        self._seen = overflown
        if grew:
            self._seen_at = now
        if grew and not self._overflows:
            self._overflows = True
            return (
                "the queue is full; inferences are dropped"
                f" (overflow = {self._policy}), see stats()"
            )
        if self._overflows and now >= self._seen_at + QUIET_SECONDS:
            self._overflows = False
            return f"the queue has room again; {overflown} inferences were dropped"
        return None
