"""Whether a line was logged already: what may happen for every inference is logged once."""

from collections.abc import Hashable


class LogOnce:
    """Remembers what was logged. Never raises; any thread.

    The line itself is logged by whoever asks, so that the record names the right place and nothing
    is made of a line that is not written::

        if self._once.is_first("unwritten"):
            logger.warning("…")

    Args:
        most: Kinds that are remembered; the oldest are forgotten, and may be logged again. None
            for all, where there are only so many.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._logged: dict[Hashable, None] = {}

    def is_first(self, kind: Hashable) -> bool:
        """Return whether this is the first time, or the first since `reset`."""
        if kind in self._logged:
            return False
        if self._most is not None:
            while len(self._logged) >= self._most:
                self._logged.pop(next(iter(self._logged), None), None)
        self._logged[kind] = None
        return True

    def reset(self, kind: Hashable) -> bool:
        """Have it logged when it happens again. Returns whether it was logged before."""
        was_logged = kind in self._logged
        self._logged.pop(kind, None)
        return was_logged
