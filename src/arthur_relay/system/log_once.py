"""Logs a line once, where its cause may recur for every inference."""

from collections.abc import Hashable


class LogOnce:
    """Remembers which lines were logged. Never raises. Any thread.

    The caller logs the line, so that the record names the right place and an unwritten line is not
    formatted::

        if self._once.is_first("unwritten"):
            logger.warning("…")

    Args:
        most: The most kinds that are remembered; the oldest are forgotten and may be logged again.
            None when there are only a few.
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
        """Allow a kind to be logged again. Returns whether it was logged before."""
        was_logged = kind in self._logged
        self._logged.pop(kind, None)
        return was_logged
