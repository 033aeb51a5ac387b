"""Reasons, told apart in a bounded number: Arthur's answers are a part of them."""

import re

REASONS = 40
"""So many are told apart."""

OTHER = "other"

_USUAL = re.compile(r"(http|row) [1-5][0-9][0-9]|[a-z_ ]{1,40}")


class BoundedReasons:
    """Makes of any reason one of a bounded number. One thread."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def bound(self, reason: str) -> str:
        """Return the reason, or `other` where it is an odd one, or one too many."""
        if reason in self._known:
            return reason
        if len(self._known) >= REASONS or _USUAL.fullmatch(reason) is None:
            return OTHER
        self._known.add(reason)
        return reason
