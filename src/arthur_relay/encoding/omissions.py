"""Who counts the values that can't be sent: the ledger."""

from typing import Protocol


class CountsOmissions(Protocol):
    """Counts values that are cut, left out, or sent in another form. Worker's thread."""

    def omit(self, name: str) -> None:
        """Count a value.

        Args:
            name: The name of its field or attribute, or "" when it has none.
        """
        ...


class NoOmissions:
    """Counts nothing: for rows that are not the application's own."""

    def omit(self, name: str) -> None:
        """Do nothing."""
